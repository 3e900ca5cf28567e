"""`options`: one row of numbers a request, what each position means, and the codes of verdicts.

A row of zeros is what a deployment does by itself. Each row of a batch keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum, IntFlag
from itertools import pairwise
from typing import Final

from graphs.contract.extras import NO_EXTRAS, Extras

OPTION_COUNT: Final = 16


class Option(IntEnum):
    """Position of each option in the `options` tensor.

    ENHANCER and REGIONS are reserved, 0, in a deployment without the network that they are about.
    """

    FACE_ORDER = 0
    COLOR_MATRIX = 1
    COLOR_RANGE = 2
    CHROMA_LOCATION = 3
    SCORE_THRESHOLD = 4
    NMS_THRESHOLD = 5
    REFINEMENT = 6
    MASKS = 7
    KEEP = 8
    BOX_BLUR = 9
    BOX_PADDING = 10
    SWAPPER_WEIGHT = 11
    POSE_LIMIT = 12
    AREAS = 13
    ENHANCER = 14
    REGIONS = 15


class FaceOrder(IntEnum):
    """Which face is row 0 of `faces` (and so gets slot 0). Ties: higher score, then NMS order."""

    LARGEST_FIRST = 0
    SMALLEST_FIRST = 1
    LEFT_TO_RIGHT = 2
    RIGHT_TO_LEFT = 3
    TOP_TO_BOTTOM = 4
    BOTTOM_TO_TOP = 5
    BEST_FIRST = 6
    WORST_FIRST = 7


class ColorMatrix(IntEnum):
    """Luma matrix of an I420 frame. AUTO: BT.709 from 720 rows up, BT.601 below."""

    AUTO = 0
    BT601 = 1
    BT709 = 2
    BT2020 = 3


class ColorRange(IntEnum):
    """LIMITED: Y in 16..235, chroma in 16..240. FULL: 0..255."""

    LIMITED = 0
    FULL = 1


class ChromaLocation(IntEnum):
    """Where a 4:2:0 chroma sample lies in its 2x2 luma block.

    LEFT (MPEG-2, H.264 default): x on the left column, y between the rows.
    CENTER (MPEG-1, JPEG): between columns and rows. TOP_LEFT (BT.2020): on the first pixel.
    """

    LEFT = 0
    CENTER = 1
    TOP_LEFT = 2


class Refinement(IntEnum):
    """Whose five landmarks align a face: the landmark network's where there is one, or, with NONE,
    the detector's."""

    DEFAULT = 0
    NONE = 1


class MaskFlag(IntFlag):
    """Which masks bound a swapped crop: a sum, combined by minimum.

    DEFAULT: what the deployment uses. NONE, alone: the whole crop is shown. OCCLUSION and REGIONS:
    only in a deployment with an occluder or a parser.
    """

    DEFAULT = 0
    BOX = 1
    HULL = 2
    SWAPPER = 4
    NONE = 8
    OCCLUSION = 32
    REGIONS = 64


class KeepFlag(IntFlag):
    """Which parts of the target's own face stay as they are: a sum.

    MOUTH is what lies between the lips, LIPS the lips with it.
    """

    NOTHING = 0
    MOUTH = 1
    EYES = 2
    BROWS = 4
    LIPS = 8


class AreaFlag(IntFlag):
    """Which areas of the face the swap is shown in: a sum, whose convex hull is a mask.

    EVERYWHERE: there is no such mask.
    """

    EVERYWHERE = 0
    UPPER_FACE = 1
    LOWER_FACE = 2
    MOUTH = 4


class RegionFlag(IntFlag):
    """Which parts of the swapped face a parser's mask shows: a sum.

    ALL: every one of them. Left and right are the person's.
    """

    ALL = 0
    SKIN = 1
    LEFT_BROW = 2
    RIGHT_BROW = 4
    LEFT_EYE = 8
    RIGHT_EYE = 16
    GLASSES = 32
    NOSE = 64
    MOUTH = 128
    UPPER_LIP = 256
    LOWER_LIP = 512


class Verdict(IntEnum):
    """Why a row of `faces` was not swapped, as `verdicts` says it.

    SWAPPED: it was, or the row is empty. LOOKS_AWAY: it is turned from the camera by more than the
    pose limit, or a landmark network sees no face in it and its five points are turned. MISSHAPEN:
    its points fit no face. NO_SLOT: the request has no source for it. BELOW_THRESHOLD: its score is
    below the threshold that the request names.
    """

    SWAPPED = 0
    LOOKS_AWAY = 1
    MISSHAPEN = 2
    NO_SLOT = 3
    BELOW_THRESHOLD = 4


DEFAULT_SCORE_THRESHOLD: Final = 0.5
DEFAULT_NMS_THRESHOLD: Final = 0.4
"""What an option of 0 means. A face is kept when score >= threshold; a box is suppressed when its
intersection over union with a kept box is > threshold."""

DEFAULT_BOX_BLUR: Final = 0.3
"""Of the crop's side, as FaceFusion counts it; a blur below 1 / S blurs nothing."""

DEFAULT_POSE_LIMIT: Final = 75.0
"""Degrees between where a face looks and the camera; 180 is no limit."""

PADDING_BASE: Final = 64
"""BOX_PADDING is top + 64 right + 4,096 bottom + 262,144 left, each 0 to 63 percent of the crop's
side: one position holds all four exactly, because float32 has every whole number up to 2^24."""

ENHANCER_BASE: Final = 128
"""ENHANCER is blend + 128 weight, each 0 for the default or 1 + a whole percentage."""
ENHANCER_FULL: Final = 101
"""Either's code of 100 percent."""
DEFAULT_ENHANCER_BLEND: Final = 0.8
"""How much of what the enhancer made is shown, as FaceFusion's default."""
DEFAULT_ENHANCER_WEIGHT: Final = 0.5
"""CodeFormer's own: 0 invents most, 1 keeps closest to what it is given. FaceFusion's default."""

OPTION_CODES: Final[Mapping[Option, type[IntEnum] | type[IntFlag]]] = {
    Option.FACE_ORDER: FaceOrder,
    Option.COLOR_MATRIX: ColorMatrix,
    Option.COLOR_RANGE: ColorRange,
    Option.CHROMA_LOCATION: ChromaLocation,
    Option.REFINEMENT: Refinement,
    Option.MASKS: MaskFlag,
    Option.KEEP: KeepFlag,
    Option.AREAS: AreaFlag,
    Option.REGIONS: RegionFlag,
}
"""Options whose value is a code."""

OPTION_HIGHEST: Final[Mapping[Option, int | float]] = {
    Option.FACE_ORDER: max(FaceOrder),
    Option.COLOR_MATRIX: max(ColorMatrix),
    Option.COLOR_RANGE: max(ColorRange),
    Option.CHROMA_LOCATION: max(ChromaLocation),
    Option.SCORE_THRESHOLD: 1.0,
    Option.NMS_THRESHOLD: 1.0,
    Option.REFINEMENT: max(Refinement),
    Option.MASKS: MaskFlag.NONE,
    Option.KEEP: sum(KeepFlag),
    Option.BOX_BLUR: 1.0,
    Option.BOX_PADDING: PADDING_BASE**4 - 1,
    Option.SWAPPER_WEIGHT: 1.0,
    Option.POSE_LIMIT: 180.0,
    Option.AREAS: sum(AreaFlag),
}
"""Largest value of each position of a deployment without extras, the smallest is 0: an int where
values are whole numbers."""


def option_highest(extras: Extras) -> Mapping[Option, int | float]:
    """`OPTION_HIGHEST` of a deployment with these extras."""
    more: dict[Option, int | float] = {Option.MASKS: max(mask_codes(extras))}
    if extras.enhances is not None:
        more[Option.ENHANCER] = ENHANCER_FULL * (ENHANCER_BASE + 1)
    if extras.parses:
        more[Option.REGIONS] = sum(RegionFlag)
    return {**OPTION_HIGHEST, **more}


def mask_codes(extras: Extras) -> tuple[int, ...]:
    """Every value that MASKS may have, in order: sums of the masks that there are, or NONE."""
    codes = {*range(int(MaskFlag.NONE)), int(MaskFlag.NONE)}
    for flag, there in (
        (MaskFlag.OCCLUSION, extras.occludes), (MaskFlag.REGIONS, extras.parses),
    ):  # fmt: skip
        if there:
            codes |= {code + int(flag) for code in codes if not code & MaskFlag.NONE}
    return tuple(sorted(codes))


def option_ranges(extras: Extras = NO_EXTRAS) -> str:
    """Every position of `options`: name=lowest..highest, whole numbers unless there is a point.

    Where whole numbers between are missing, several ranges with `|` between them.
    """
    entries = ["reserved=0..0"] * OPTION_COUNT
    for option, highest in option_highest(extras).items():
        lowest = "0" if isinstance(highest, int) else "0.0"
        text = str(int(highest)) if isinstance(highest, int) else str(highest)
        entries[option] = f"{option.name.lower()}={lowest}..{text}"
    masks = "|".join(f"{first}..{last}" for first, last in _runs(mask_codes(extras)))
    entries[Option.MASKS] = f"{Option.MASKS.name.lower()}={masks}"
    return ",".join(entries)


def _runs(codes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and last of every run of whole numbers without a gap."""
    first = codes[0]
    for code, following in pairwise((*codes, codes[-1] + 2)):
        if following != code + 1:
            yield first, code
            first = following
