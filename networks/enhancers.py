"""The face enhancers this project can serve, one row of data each.

A restorer (GFPGAN and its like) sees the face in its surroundings, framed as it was trained, with
the swap laid in, and answers the same picture with detail of its own. A super-resolution network
sees the swapped crop as it is and answers it four times as wide. `graphs.face_enhancer` reads
nothing else.

Sources of the contracts: FaceFusion 3.8.1, processors/modules/face_enhancer; Real-ESRGAN 0.3.0,
its ncnn files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from graphs.contract import Enhances
from networks.swappers import HALF, ONE, ZERO, Swapper, Triple

LARGEST_CROP: Final = 1024
"""Pixels of a side: what an enhancer hands to the blender at most."""


@dataclass(frozen=True, kw_only=True)
class Enhancer:
    """One enhancer: (RGB - mean) / std in, [*, 3, X, X]; y * std + mean is the picture out.

    weight: key in `fetching.weights.WEIGHTS`.
    size: X, pixels; None: the swapped crop's, whichever that is.
    template: key in `graphs.alignment.TEMPLATES` that its surroundings are aligned to; None: it
        sees the swapped crop alone.
    scale: pixels of the answer a pixel that it sees.
    mean, std: per RGB channel, in [0, 1].
    takes_weight: a second input, `weight`, one number a picture.
    """

    name: str
    weight: str
    size: int | None = None
    template: str | None = None
    scale: int = 1
    mean: Triple = HALF
    std: Triple = HALF
    takes_weight: bool = False

    @property
    def enhances(self) -> Enhances:
        """What it works on."""
        return "crops" if self.template is None else "context"

    def made_size(self, crop_size: int) -> int:
        """T, side of what it makes of swapped crops of `crop_size`, pixels."""
        return (self.size or crop_size) * self.scale


def _restorer(
    name: str, *, size: int = 512, template: str = "ffhq_512", takes_weight: bool = False
) -> Enhancer:
    return Enhancer(
        name=name, weight=name, size=size, template=template, takes_weight=takes_weight
    )


_ROWS: Final = (
    *(
        Enhancer(name=name, weight=name, scale=4, mean=ZERO, std=ONE)
        for name in ("realesrgan_x4plus", "realesr_animevideov3_x4")
    ),
    *(_restorer(f"gfpgan_{version}") for version in ("1.2", "1.3", "1.4")),
    _restorer("codeformer", takes_weight=True),
    _restorer("restoreformer_plus_plus"),
    _restorer("gpen_bfr_256", size=256, template="arcface_128"),
    _restorer("gpen_bfr_512"),
)

ENHANCERS: Final[Mapping[str, Enhancer]] = MappingProxyType({row.name: row for row in _ROWS})
"""Every enhancer by name."""


def check_enhanced_size(enhancer: Enhancer, swapper: Swapper, pixel_boost: int) -> None:
    """Refuse crops that an enhancer would make too large to be worth it.

    Raises:
        ValueError: with what to choose instead.
    """
    crop = swapper.crop_size * pixel_boost
    made = enhancer.made_size(crop)
    if made > LARGEST_CROP:
        raise ValueError(
            f"{enhancer.name} makes crops of {made} pixels out of {crop}, and {LARGEST_CROP} is "
            f"the most: leave it out, or choose a smaller pixel boost"
        )
