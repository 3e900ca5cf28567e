"""Flags of `frameswap swap` about faces: whose, which, and what of them is shown."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from frameswap.arguments import WholeNumber, share, share_or_zero
from frameswap.contract import (
    MAX_DETECTIONS,
    PADDING_BASE,
    AreaFlag,
    FaceOrder,
    KeepFlag,
    MaskFlag,
    Refinement,
    RegionFlag,
)
from frameswap.options import BoxPadding, SwapOptions

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["ORDERS", "add_face_flags", "face_options"]

ORDERS: Final = {order.name.lower().replace("_", "-"): order for order in FaceOrder}
_MASKS: Final = {
    "box": MaskFlag.BOX,
    "hull": MaskFlag.HULL,
    "own": MaskFlag.SWAPPER,
    "occlusion": MaskFlag.OCCLUSION,
    "regions": MaskFlag.REGIONS,
}
_PARTS: Final = {
    "mouth": KeepFlag.MOUTH,
    "lips": KeepFlag.LIPS,
    "eyes": KeepFlag.EYES,
    "brows": KeepFlag.BROWS,
}
REGIONS: Final = {str(flag.name).lower().replace("_", "-"): flag for flag in RegionFlag}
_AREAS: Final = {
    "upper-face": AreaFlag.UPPER_FACE,
    "lower-face": AreaFlag.LOWER_FACE,
    "mouth": AreaFlag.MOUTH,
}
MOST_DEGREES: Final = 180.0


def masks(text: str) -> MaskFlag:
    """Names of masks, with commas between, or none."""
    if text == "none":
        return MaskFlag.NONE
    names = text.split(",")
    if not set(names) <= _MASKS.keys():
        raise ArgumentTypeError(
            f"must be one or more of {', '.join(_MASKS)}, with commas between, or none, not "
            f"{text!r}"
        )
    return MaskFlag(sum({_MASKS[name] for name in names}))


def parts(text: str) -> KeepFlag:
    """Names of parts of a face, with commas between."""
    return KeepFlag(_sum(text, _PARTS))


def areas(text: str) -> AreaFlag:
    """Names of areas of a face, with commas between."""
    return AreaFlag(_sum(text, _AREAS))


def _sum(text: str, known: Mapping[str, int]) -> int:
    names = text.split(",")
    if not set(names) <= known.keys():
        raise ArgumentTypeError(
            f"must be one or more of {', '.join(known)}, with commas between, not {text!r}"
        )
    return sum({known[name] for name in names})


def regions(text: str) -> RegionFlag:
    """Names of parts that a parser knows, with commas between."""
    return RegionFlag(_sum(text, REGIONS))


def padding(text: str) -> BoxPadding:
    """Percent of the crop at its top, right, bottom and left; one number for all four."""
    numbers = text.split(",")
    sides = [int(each) for each in numbers if each.isascii() and each.isdecimal() and len(each) < 4]
    if len(sides) != len(numbers) or len(sides) not in (1, 4) or max(sides) >= PADDING_BASE:
        raise ArgumentTypeError(
            f"must be TOP,RIGHT,BOTTOM,LEFT or one number for all, whole percent from 0 to "
            f"{PADDING_BASE - 1}, not {text!r}"
        )
    top, right, bottom, left = sides * (4 // len(sides))
    return top, right, bottom, left


def degrees(text: str) -> float:
    """An angle above 0, up to 180 degrees."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # Written so that a NaN fails.
    if not 0.0 < value <= MOST_DEGREES:
        raise ArgumentTypeError(f"must be greater than 0 and at most 180 degrees, not {text!r}")
    return value


def add_face_flags(parser: ArgumentParser) -> None:
    """Add the groups of flags."""
    group = parser.add_argument_group("faces")
    group.add_argument(
        "--source-face",
        choices=ORDERS,
        metavar="ORDER",
        help=f"which face of a source photo, when it has several: {', '.join(ORDERS)} "
        "(default: it must have one)",
    )
    group.add_argument(
        "--face-order",
        choices=ORDERS,
        metavar="ORDER",
        default="largest-first",
        help="order in which the target's faces are given the source, the first K of them; choices "
        "as for --source-face",
    )
    group.add_argument(
        "--faces",
        type=WholeNumber(1, MAX_DETECTIONS),
        default=1,
        metavar="K",
        help="how many faces of each frame are swapped, at most",
    )
    group.add_argument(
        "--score-threshold",
        type=share,
        metavar="SCORE",
        help="how sure the detector must be of a face, above 0 to 1 (default: the server's)",
    )
    _add_look_flags(parser)


def _add_look_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("what is shown of a swap")
    group.add_argument(
        "--mask", type=masks, metavar="NAMES",
        help="what bounds the swapped part: box, hull (of the landmarks), own (the swapper's), "
        "occlusion (what is in front stays), regions (parts of the swapped face), with commas "
        "between, or none (default: the server's, mostly box,hull)",
    )  # fmt: skip
    group.add_argument(
        "--regions", type=regions, metavar="PARTS",
        help="parts that the mask regions shows: one or more of "
        f"{', '.join(REGIONS)}, with commas between (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--enhance", type=share_or_zero, metavar="SHARE",
        help="how much of the enhanced face is shown, 0 to 1, of a server with an enhancer "
        "(default: 0.8)",
    )  # fmt: skip
    group.add_argument(
        "--enhancer-weight", type=share_or_zero, metavar="SHARE",
        help="how closely codeformer keeps to the face that it is given, 0 to 1 (default: 0.5)",
    )  # fmt: skip
    group.add_argument(
        "--keep", type=parts, metavar="PARTS",
        help="parts of the target's face that stay: mouth (between the lips), lips (and what is "
        "between them), eyes, brows, with commas between",
    )  # fmt: skip
    group.add_argument(
        "--areas", type=areas, metavar="AREAS",
        help="show the swap in these areas alone, as FaceFusion bounds them: upper-face, "
        "lower-face, mouth, with commas between (default: everywhere inside the masks)",
    )  # fmt: skip
    group.add_argument(
        "--weight", type=share_or_zero, metavar="SHARE",
        help="how much of the swap is shown, 0 to 1 (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--box-blur", type=share_or_zero, metavar="SHARE",
        help="how soft the edge of the box is, 0 to 1 of the crop's side (default: 0.3)",
    )  # fmt: skip
    group.add_argument(
        "--box-padding", type=padding, metavar="PERCENT",
        help="how much the box leaves out at each side of the crop: TOP,RIGHT,BOTTOM,LEFT or one "
        "number (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--pose-limit", type=degrees, metavar="DEGREES",
        help="faces that look farther away from the camera stay as they are; 180 is no limit "
        "(default: the server's, 75)",
    )  # fmt: skip
    group.add_argument(
        "--refinement", choices=("on", "off"), default="on",
        help="align a face by the landmark network's points, where the server has one, or by the "
        "detector's",
    )  # fmt: skip


def face_options(arguments: Namespace) -> SwapOptions:
    """What the flags ask of the server."""
    refined = arguments.refinement == "on"
    return SwapOptions(
        face_order=ORDERS[arguments.face_order],
        score_threshold=arguments.score_threshold,
        masks=arguments.mask or MaskFlag.DEFAULT,
        keep=arguments.keep or KeepFlag.NOTHING,
        areas=arguments.areas or AreaFlag.EVERYWHERE,
        weight=arguments.weight,
        regions=arguments.regions or RegionFlag.ALL,
        enhance=arguments.enhance,
        enhancer_weight=arguments.enhancer_weight,
        box_blur=arguments.box_blur,
        box_padding=arguments.box_padding,
        pose_limit=arguments.pose_limit,
        refinement=Refinement.DEFAULT if refined else Refinement.NONE,
    )
