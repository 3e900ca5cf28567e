"""What a deployment may have beside the six steps: masks that look at pictures, an enhancer.

The contract is one; a deployment without an extra has neither its tensors nor its options, and its
graphs and configs are those of a project that knows no extras.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Enhances = Literal["context", "crops"]
"""What `face_enhancer` works on: the face in its surroundings, framed as its network wants it, with
the swap laid in; or the swapped crop as it is."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """The extras of one deployment.

    occludes: a network says what of the target's crop is face and not something in front of it.
    parses: a network says which part of a face each pixel of the swapped crop is.
    enhances: what the step `face_enhancer` works on; None: there is no such step.
    """

    occludes: bool = False
    parses: bool = False
    enhances: Enhances | None = None

    @property
    def looks(self) -> bool:
        """Whether a mask looks at a picture."""
        return self.occludes or self.parses


NO_EXTRAS: Final = Extras()

EVERY_EXTRA: Final = Extras(occludes=True, parses=True, enhances="context")
"""Has every model and every tensor that any deployment has."""
