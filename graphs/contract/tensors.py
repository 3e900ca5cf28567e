"""The tensors of the served models, without the batch axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from graphs.contract.limits import FACE_COLUMNS, MAX_DETECTIONS, FrameFormat
from graphs.contract.options import OPTION_COUNT
from graphs.contract.parameters import (
    PARAMETER_FRAME_FORMAT,
    PARAMETER_MAX_HEIGHT,
    PARAMETER_MAX_WIDTH,
    PARAMETER_MIN_HEIGHT,
    PARAMETER_MIN_WIDTH,
    PARAMETER_OPTION_RANGES,
)

DataType = Literal["uint8", "float32"]

Measure = Literal["crop PSNR", "frame PSNR", "landmarks", "points", "cosine"]
"""What a person would notice of an output that is a little off: see `engines.fidelity`."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a served model, without the batch axis.

    dims: fixed sizes, or a letter for an axis that a request or a swapper decides.
    measure: how an output is compared with another precision's; None where its values tell nobody
        anything that the model's other outputs do not.
    """

    name: str
    dtype: DataType
    dims: tuple[int | str, ...]
    measure: Measure | None = None


def frame_spec(name: str, frame_format: FrameFormat, measure: Measure | None = None) -> TensorSpec:
    """`frame` as sent: I420 is [H*3/2, W] (all of Y, then U, then V), BGR is [H, W, 3]."""
    dims = ("H*3/2", "W") if frame_format == "i420" else ("H", "W", 3)
    return TensorSpec(name, "uint8", dims, measure)


OPTIONS: Final = TensorSpec("options", "float32", (OPTION_COUNT,))
SOURCE: Final = TensorSpec("source", "float32", ("K", "D"))
"""Slot k is given the k-th row of `faces`."""

DETECTIONS: Final = TensorSpec("detections", "float32", (MAX_DETECTIONS, FACE_COLUMNS), "landmarks")
"""What the detector found, in the order asked for."""
FACES: Final = TensorSpec("faces", "float32", (MAX_DETECTIONS, FACE_COLUMNS), "landmarks")
"""The same rows, the five landmarks of the first F refined where there is a landmark network."""
CHOSEN_FACES: Final = TensorSpec("chosen_faces", "float32", (MAX_DETECTIONS, FACE_COLUMNS))
"""Rows of `faces` that are swapped; every other row is 0, and so an empty slot."""
VERDICTS: Final = TensorSpec("verdicts", "float32", (MAX_DETECTIONS,))
"""A `Verdict` a row of `faces`."""

VIEWS: Final = TensorSpec("views", "float32", ("F", 3, "V", "V"))
"""The first F faces as the landmark network sees them: RGB in [0, 1], zeros for none."""
VIEW_WARPS: Final = TensorSpec("view_warps", "float32", ("F", 2, 3))
"""Frame to view: view_xy = view_warp @ [x, y, 1]. All zeros for an empty row."""
LANDMARKS: Final = TensorSpec("landmarks", "float32", ("F", "P", 3), "points")
"""x, y in frame pixels and z in the same unit, away from the viewer; row f belongs to row f of
`faces`. A row of zeros: none."""
SLOT_LANDMARKS: Final = TensorSpec("slot_landmarks", "float32", ("K", "P", 3))
"""`landmarks` of each slot's face: K rows, whatever F is."""
POSE: Final = TensorSpec("pose", "float32", ("F", 3))
"""Yaw, pitch and roll in degrees (`graphs.face_pose`); zeros where there are no landmarks."""

CROPS: Final = TensorSpec("crops", "float32", ("K", 3, "S", "S"), "crop PSNR")
SWAPPED_CROPS: Final = TensorSpec("swapped_crops", "float32", ("K", 3, "S", "S"), "crop PSNR")
SWAP_MASKS: Final = TensorSpec("swap_masks", "float32", ("K", 1, "S", "S"))
"""The swapper's own mask, in [0, 1]; ones where the swapper gives none."""
MASKS: Final = TensorSpec("masks", "float32", ("K", 1, "S", "S"))
"""How much of each pixel of a swapped crop is shown, in [0, 1]."""
WARPS: Final = TensorSpec("warps", "float32", ("K", 2, 3))
"""Frame to crop: crop_xy = warp @ [x, y, 1]. All zeros for an empty slot."""
SHOWN_MASKS: Final = replace(MASKS, measure="crop PSNR")
"""`masks` of a masker with a network."""
OCCLUSIONS: Final = TensorSpec("occlusions", "float32", ("K", 1, "S", "S"))
"""What an occluder showed of each pixel; ones where it was not asked."""

CONTEXT: Final = TensorSpec("context", "float32", ("K", 3, "X", "X"), "crop PSNR")
"""The target's face as the enhancer's network wants it framed: RGB in [0, 1]."""
CONTEXT_WARPS: Final = TensorSpec("context_warps", "float32", ("K", 2, 3))
"""Frame to context."""
ENHANCED_CROPS: Final = TensorSpec("enhanced_crops", "float32", ("K", 3, "T", "T"), "crop PSNR")
ENHANCED_MASKS: Final = TensorSpec("enhanced_masks", "float32", ("K", 1, "T", "T"))
ENHANCED_WARPS: Final = TensorSpec("enhanced_warps", "float32", ("K", 2, 3))
"""What the blender lays on where there is an enhancer, in its own framing."""
ENCODED_SOURCE: Final = TensorSpec("source", "float32", ("D",), "cosine")
EMBEDDING: Final = TensorSpec("embedding", "float32", ("E",), "cosine")

FRAME: Final = "frame"
DETECTED_FRAME: Final = "detected_frame"
"""The detector's copy of `frame`, byte for byte: the aligner reads the one on the device."""
SEEN_FRAME: Final = "seen_frame"
"""The aligner's copy of it, which the blender reads."""
SWAPPED_FRAME: Final = "swapped_frame"

CHECKED_BY_TENSOR: Final[Mapping[str, tuple[str, ...]]] = {
    FRAME: (
        PARAMETER_FRAME_FORMAT, PARAMETER_MIN_HEIGHT, PARAMETER_MIN_WIDTH,
        PARAMETER_MAX_HEIGHT, PARAMETER_MAX_WIDTH,
    ),
    OPTIONS.name: (PARAMETER_OPTION_RANGES,),
}  # fmt: skip
"""The input that the other checking parameters are about; `PARAMETER_MAX_FACES` bounds the axis K
of the inputs in `PARAMETER_FACE_INPUTS`."""
