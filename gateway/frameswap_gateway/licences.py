"""What the licences of known swappers allow, to say beside them; a server names its swapper only.

A test compares this with the table that the deployment side has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LICENCES", "Licence", "licence_of"]

_OWN: Final = "any use (doubts: weights/README.md)"
_RESEARCH: Final = "non-commercial research"
_GHOST: Final = "any use (but its w600k_r50 source: non-commercial)"


@dataclass(frozen=True)
class Licence:
    """Its name, and what it allows, in one phrase."""

    name: str
    allows: str


LICENCES: Final[Mapping[str, Licence]] = {
    "image_swapper_256": Licence("Apache-2.0", "any use"),
    "frameswap_256": Licence("Apache-2.0", _OWN),
    "frameswap_256_small": Licence("Apache-2.0", _OWN),
    "inswapper_128": Licence("InsightFace model terms", _RESEARCH),
    "inswapper_128_fp16": Licence("InsightFace model terms", _RESEARCH),
    "hyperswap_1a_256": Licence("ResearchRAIL", _RESEARCH),
    "hyperswap_1b_256": Licence("ResearchRAIL", _RESEARCH),
    "hyperswap_1c_256": Licence("ResearchRAIL", _RESEARCH),
    "simswap_256": Licence("CC BY-NC 4.0", "non-commercial use"),
    "ghost_1_256": Licence("Apache-2.0", _GHOST),
    "ghost_2_256": Licence("Apache-2.0", _GHOST),
    "ghost_3_256": Licence("Apache-2.0", _GHOST),
    "alphaface_256": Licence("MIT code; weights: non-commercial", "non-commercial use"),
    "uniface_256": Licence("not stated", "unclear: ask the author"),
    "blendswap_256": Licence("non-commercial", "non-commercial use"),
}


def licence_of(swapper: str) -> Licence:
    """Of a swapper that is not known here, nothing is promised."""
    return LICENCES.get(swapper, Licence("not known here", "unclear: ask who runs this server"))
