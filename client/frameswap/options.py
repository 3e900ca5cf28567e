"""What a request may ask of the server besides the frame: one value class, one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import (
    ENHANCER_BASE,
    OPTION_COUNT,
    PADDING_BASE,
    AreaFlag,
    ChromaLocation,
    ColorMatrix,
    ColorRange,
    FaceOrder,
    KeepFlag,
    MaskFlag,
    Option,
    Refinement,
    RegionFlag,
)
from frameswap.errors import BadOptions
from frameswap.models import Ensemble

__all__ = ["BoxPadding", "SwapOptions", "check_deployed"]

BoxPadding = tuple[int, int, int, int]
"""Top, right, bottom, left: whole percent of the crop's side, 0 to 63 each."""

_NEXT_TO_NOTHING: Final = 1e-30
"""Asks for 0 where a 0 would mean the default."""
_PADDING_BETWEEN: Final = f"0 and {PADDING_BASE - 1} percent"


@dataclass(frozen=True, kw_only=True)
class SwapOptions:
    """Options of one request; the defaults are the server's.

    face_order: which face is given the first source.
    color_matrix, color_range, chroma_location: how an I420 frame is coded; unused for BGR.
    score_threshold, nms_threshold: the detector's, each in (0, 1]; None is the server's default.
    refinement: whose five landmarks align a face.
    masks: what bounds the swapped part, a sum; MaskFlag.NONE shows the whole crop.
    keep: parts of the target's face that stay, a sum.
    areas: areas of the face that the swap is shown in, a sum; EVERYWHERE leaves it to `masks`.
    box_blur: how soft the box mask's edge is, in [0, 1] of the crop's side; None: the default.
    box_padding: how much of each side of the crop the box mask leaves out; None is nothing.
    weight: how much of the swap is shown, in [0, 1]; None is all.
    pose_limit: faces that look farther away from the camera stay as they are, degrees in (0, 180];
        180 is no limit, None the server's default.
    regions: the parts that the mask REGIONS shows, a sum.
    enhance: how much of what the server's enhancer makes of a swapped face is shown, in [0, 1], in
        whole percent; None: its default, 0.8.
    enhancer_weight: how closely an enhancer that takes a weight (CodeFormer) keeps to the face that
        it is given, in [0, 1], in whole percent; None: its default, 0.5.
    """

    face_order: FaceOrder = FaceOrder.LARGEST_FIRST
    color_matrix: ColorMatrix = ColorMatrix.AUTO
    color_range: ColorRange = ColorRange.LIMITED
    chroma_location: ChromaLocation = ChromaLocation.LEFT
    score_threshold: float | None = None
    nms_threshold: float | None = None
    refinement: Refinement = Refinement.DEFAULT
    masks: MaskFlag = MaskFlag.DEFAULT
    keep: KeepFlag = KeepFlag.NOTHING
    areas: AreaFlag = AreaFlag.EVERYWHERE
    box_blur: float | None = None
    box_padding: BoxPadding | None = None
    weight: float | None = None
    pose_limit: float | None = None
    regions: RegionFlag = RegionFlag.ALL
    enhance: float | None = None
    enhancer_weight: float | None = None

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            # 0 would mean "the default" on the wire, so it cannot be asked for.
            if value is not None and not 0.0 < value <= 1.0:
                raise BadOptions(
                    f"{name} must be greater than 0 and at most 1, not {value}; leave it out for "
                    f"the server's default"
                )
        for name, kind in (
            ("face_order", FaceOrder),
            ("color_matrix", ColorMatrix),
            ("color_range", ColorRange),
            ("chroma_location", ChromaLocation),
            ("refinement", Refinement),
            ("masks", MaskFlag),
            ("keep", KeepFlag),
            ("areas", AreaFlag),
            ("regions", RegionFlag),
        ):
            if not isinstance(getattr(self, name), kind):
                known = ", ".join(str(member.name) for member in kind)
                raise BadOptions(
                    f"{name} must be one of {kind.__name__}'s {known}, not {getattr(self, name)!r}"
                )
        self._check_masks()
        for name, what in (
            ("weight", "how much of the swap is shown"),
            ("enhance", "how much of the enhanced face is shown"),
            ("enhancer_weight", "how closely the enhancer keeps to the face"),
        ):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise BadOptions(f"{name} is {what}, from 0 to 1, not {share}")
        if self.pose_limit is not None and not 0.0 < self.pose_limit <= 180.0:
            raise BadOptions(
                f"pose_limit must be greater than 0 and at most 180 degrees (no limit), not "
                f"{self.pose_limit}"
            )

    def _check_masks(self) -> None:
        if MaskFlag.NONE in self.masks and self.masks != MaskFlag.NONE:
            raise BadOptions("masks: NONE stands alone, it shows the whole crop")
        if self.regions and self.masks and MaskFlag.REGIONS not in self.masks:
            raise BadOptions(
                "regions are parts that the mask regions shows, and masks without it are named: "
                "name that one, too, or leave masks or regions out"
            )
        if self.box_blur is not None and not 0.0 <= self.box_blur <= 1.0:
            raise BadOptions(
                f"box_blur is a share of the crop's side, from 0 to 1, not {self.box_blur}"
            )
        padding = self.box_padding
        if padding is not None and not (
            len(padding) == 4
            and all(isinstance(side, int) and 0 <= side < PADDING_BASE for side in padding)
        ):
            raise BadOptions(
                f"box_padding is four whole numbers, top, right, bottom and left, each between "
                f"{_PADDING_BETWEEN}, not {padding!r}"
            )

    def to_tensor(self) -> NDArray[np.float32]:
        """Return `options`: (16,) float32, all zeros when nothing was changed."""
        tensor = np.zeros(OPTION_COUNT, np.float32)
        tensor[Option.FACE_ORDER] = self.face_order
        tensor[Option.COLOR_MATRIX] = self.color_matrix
        tensor[Option.COLOR_RANGE] = self.color_range
        tensor[Option.CHROMA_LOCATION] = self.chroma_location
        tensor[Option.SCORE_THRESHOLD] = self.score_threshold or 0.0
        tensor[Option.NMS_THRESHOLD] = self.nms_threshold or 0.0
        tensor[Option.REFINEMENT] = self.refinement
        tensor[Option.MASKS] = self.masks
        tensor[Option.KEEP] = self.keep
        tensor[Option.AREAS] = self.areas
        tensor[Option.BOX_BLUR] = _given(self.box_blur)
        tensor[Option.BOX_PADDING] = sum(
            side * PADDING_BASE**place for place, side in enumerate(self.box_padding or ())
        )
        tensor[Option.SWAPPER_WEIGHT] = _given(self.weight)
        tensor[Option.POSE_LIMIT] = self.pose_limit or 0.0
        tensor[Option.ENHANCER] = _percent(self.enhance) + ENHANCER_BASE * _percent(
            self.enhancer_weight
        )
        tensor[Option.REGIONS] = self.regions
        return tensor


def _given(value: float | None) -> float:
    return 0.0 if value is None else value or _NEXT_TO_NOTHING


def _percent(share: float | None) -> int:
    """1 + whole percent; 0 for the default."""
    return 0 if share is None else 1 + round(100 * share)


def check_deployed(options: SwapOptions, ensemble: Ensemble) -> None:
    """Refuse what the deployment's networks do not give: it would be left out without a word.

    Raises:
        BadOptions: what to build for it.
    """
    if MaskFlag.SWAPPER in options.masks and not ensemble.gives_mask:
        raise BadOptions(
            f"the server's swapper {ensemble.swapper} gives no mask of its own: build one that "
            f"does (`build_engines.py --swapper hyperswap_1a_256`), or choose box and hull"
        )
    _check_extras(options, ensemble)
    if ensemble.landmarker is not None:
        return
    wanted = {
        "the mask `hull`": MaskFlag.HULL in options.masks,
        "parts of the target to keep": bool(options.keep),
        "a mask of areas of the face": bool(options.areas),
        "a pose limit": options.pose_limit is not None,
    }
    for what, is_wanted in wanted.items():
        if is_wanted:
            raise BadOptions(
                f"{what} needs the landmarks of a face, and the server has no landmark network: "
                f"build its models with one (`build_engines.py --landmarker "
                f"face_mesh_attention`), or leave that out"
            )


def _check_extras(options: SwapOptions, ensemble: Ensemble) -> None:
    enhanced = options.enhance is not None or options.enhancer_weight is not None
    for what, is_wanted, network, kind, example in (
        ("the mask `occlusion`", MaskFlag.OCCLUSION in options.masks, ensemble.occluder,
         "an occluder", "--occluder xseg_1"),
        ("the mask `regions`", MaskFlag.REGIONS in options.masks or bool(options.regions),
         ensemble.parser, "a parser", "--parser bisenet_resnet_34"),
        ("an enhanced face", enhanced, ensemble.enhancer,
         "an enhancer", "--enhancer realesrgan_x4plus"),
    ):  # fmt: skip
        if is_wanted and network is None:
            raise BadOptions(
                f"{what} needs {kind}, and the server has none: build its models with one "
                f"(`build_engines.py {example}`), or leave that out"
            )
    if options.enhancer_weight is not None and not ensemble.enhancer_weight:
        raise BadOptions(
            f"the server's enhancer {ensemble.enhancer} takes no weight: build one that does "
            f"(`build_engines.py --enhancer codeformer`), or leave that out"
        )
