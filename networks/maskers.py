"""The mask networks this project can serve, one row of data each.

An occluder looks at the target's crop and says how much of each pixel is face, and not a hand or a
microphone in front of it. A parser looks at the swapped crop and says which part of a face each
pixel is. `graphs.face_masker` reads nothing else.

Source of the contracts: FaceFusion 3.8.1, face_masker.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from graphs.contract import RegionFlag
from networks.swappers import IMAGENET_MEAN, IMAGENET_STD, Triple


@dataclass(frozen=True, kw_only=True)
class Occluder:
    """One occluder: channels last, BGR in [0, 1], [*, S, S, 3] -> [*, S, S, 1], 1 where it is face.

    weight: key in `fetching.weights.WEIGHTS`.
    size: S, pixels.
    """

    name: str
    weight: str
    size: int = 256


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One parser: (RGB - mean) / std, [*, 3, S, S] -> [*, C, S, S], the largest channel wins.

    weight: key in `fetching.weights.WEIGHTS`.
    size: S, pixels.
    classes: C.
    regions: the class of each part that a request can name.
    """

    name: str
    weight: str
    size: int = 512
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    classes: int = 19
    regions: Mapping[RegionFlag, int]


OCCLUDERS: Final[Mapping[str, Occluder]] = MappingProxyType(
    {name: Occluder(name=name, weight=name) for name in ("xseg_1", "xseg_2", "xseg_3")}
)
"""Every occluder by name."""

_CELEBA_MASK: Final = MappingProxyType(
    {
        RegionFlag.SKIN: 1,
        RegionFlag.LEFT_BROW: 2,
        RegionFlag.RIGHT_BROW: 3,
        RegionFlag.LEFT_EYE: 4,
        RegionFlag.RIGHT_EYE: 5,
        RegionFlag.GLASSES: 6,
        RegionFlag.NOSE: 10,
        RegionFlag.MOUTH: 11,
        RegionFlag.UPPER_LIP: 12,
        RegionFlag.LOWER_LIP: 13,
    }
)
"""The classes of CelebAMask-HQ that are face; hair, ears, neck, hat and clothes are not."""

PARSERS: Final[Mapping[str, Parser]] = MappingProxyType(
    {
        name: Parser(name=name, weight=name, regions=_CELEBA_MASK)
        for name in ("bisenet_resnet_18", "bisenet_resnet_34")
    }
)
"""Every parser by name."""
