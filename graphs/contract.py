"""The serving contract, written once: tensor names, axes, option codes and limits.

Axis letters: B batch (Triton's), K face slots asked for by the request, M rows the detector
reports, H W frame height and width, S swapper crop size, D length of one flat source vector,
E embedding length. Frames are uint8. Coordinates are pixels, x then y, and integer coordinates
are pixel centres. Crops are float32 RGB in [0, 1], channels first.

Nothing in this file depends on ONNX, Triton or a client library; every other module reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

CONTRACT_VERSION: Final = 1
"""Raised whenever a tensor, an axis or an option changes its meaning."""

OPSET: Final = 18
IR_VERSION: Final = 9
"""Opset 18 and IR 9 are read by ONNX Runtime 1.19 (Triton 24.10) and by TensorRT 10 and newer."""

MAX_DETECTIONS: Final = 16
"""M: rows in `faces`, and the largest K a request may ask for."""

DETECTOR_SIZE: Final = 640
"""Side of the detector's letterboxed square input, in pixels."""

FrameFormat = Literal["i420", "bgr"]
FRAME_FORMATS: Final[tuple[FrameFormat, ...]] = ("i420", "bgr")

FACE_COLUMNS: Final = 15
"""Columns of `faces`: x1 y1 x2 y2, score, then x y of the left eye, right eye, nose, left and
right mouth corner (left and right as seen in the image). Score 0 marks an empty row, whose other
columns are 0 as well; empty rows come last."""
SCORE_COLUMN: Final = 4
LANDMARK_COLUMN: Final = 5

MIN_FRAME_SIDE: Final = 64
"""The least height and width of a frame, pixels."""

OPTION_COUNT: Final = 8


class Option(IntEnum):
    """Position of each option in the `options` tensor; positions 6 and 7 are reserved, 0."""

    FACE_ORDER = 0
    COLOR_MATRIX = 1
    COLOR_RANGE = 2
    CHROMA_LOCATION = 3
    SCORE_THRESHOLD = 4
    NMS_THRESHOLD = 5


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


DEFAULT_SCORE_THRESHOLD: Final = 0.5
DEFAULT_NMS_THRESHOLD: Final = 0.4
"""What an option of 0 means. A face is kept when score >= threshold; a box is suppressed when its
intersection over union with a kept box is > threshold."""

DataType = Literal["uint8", "float32"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a served model, without the batch axis.

    dims: fixed sizes, or a letter for an axis that a request or a swapper decides.
    """

    name: str
    dtype: DataType
    dims: tuple[int | str, ...]


def frame_spec(name: str, frame_format: FrameFormat) -> TensorSpec:
    """`frame` as sent: I420 is [H*3/2, W] (all of Y, then U, then V), BGR is [H, W, 3]."""
    if frame_format == "i420":
        return TensorSpec(name, "uint8", ("H*3/2", "W"))
    return TensorSpec(name, "uint8", ("H", "W", 3))


SOURCE: Final = TensorSpec("source", "float32", ("K", "D"))
OPTIONS: Final = TensorSpec("options", "float32", (OPTION_COUNT,))
FACES: Final = TensorSpec("faces", "float32", (MAX_DETECTIONS, FACE_COLUMNS))
CROPS: Final = TensorSpec("crops", "float32", ("K", 3, "S", "S"))
SWAPPED_CROPS: Final = TensorSpec("swapped_crops", "float32", ("K", 3, "S", "S"))
WARPS: Final = TensorSpec("warps", "float32", ("K", 2, 3))
"""Frame to crop: crop_xy = warp @ [x, y, 1]. All zeros for an empty slot."""
ENCODED_SOURCE: Final = TensorSpec("source", "float32", ("D",))
EMBEDDING: Final = TensorSpec("embedding", "float32", ("E",))

FRAME: Final = "frame"
DETECTED_FRAME: Final = "detected_frame"
"""The detector's copy of `frame`, byte for byte: the blender reads the one on the device."""
SWAPPED_FRAME: Final = "swapped_frame"


@dataclass(frozen=True)
class ModelSpec:
    """Inputs and outputs of one served model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def _model_specs() -> dict[str, ModelSpec]:
    specs = [
        ModelSpec(
            "face_locator_bgr",
            (frame_spec(FRAME, "bgr"), OPTIONS),
            (FACES, frame_spec(DETECTED_FRAME, "bgr")),
        ),
        ModelSpec("source_encoder", (frame_spec(FRAME, "bgr"), FACES), (ENCODED_SOURCE,)),
        ModelSpec("face_recognizer", (frame_spec(FRAME, "bgr"), FACES), (EMBEDDING,)),
        ModelSpec("face_swapper", (CROPS, SOURCE, FACES), (SWAPPED_CROPS,)),
    ]
    for pixel in FRAME_FORMATS:
        specs.append(
            ModelSpec(
                f"face_detector_{pixel}",
                (frame_spec(FRAME, pixel), SOURCE, OPTIONS),
                (FACES, CROPS, WARPS, frame_spec(DETECTED_FRAME, pixel)),
            )
        )
        # `options` carries the colour matrix, range and chroma location of an I420 frame.
        blender_inputs = (frame_spec(FRAME, pixel), SWAPPED_CROPS, WARPS, FACES)
        specs.append(
            ModelSpec(
                f"face_blender_{pixel}",
                (*blender_inputs, OPTIONS) if pixel == "i420" else blender_inputs,
                (frame_spec(SWAPPED_FRAME, pixel),),
            )
        )
    return {spec.name: spec for spec in specs}


MODEL_SPECS: Final[dict[str, ModelSpec]] = _model_specs()
"""Every served model that is a graph, by name."""

ENSEMBLE_SPECS: Final[dict[str, ModelSpec]] = {
    spec.name: spec
    for spec in (
        *(
            ModelSpec(
                f"swap_faces_{pixel}",
                (frame_spec(FRAME, pixel), SOURCE, OPTIONS),
                (frame_spec(SWAPPED_FRAME, pixel), FACES),
            )
            for pixel in FRAME_FORMATS
        ),
        ModelSpec(
            "encode_source_bgr",
            (frame_spec(FRAME, "bgr"), OPTIONS),
            (ENCODED_SOURCE, FACES),
        ),
        ModelSpec("embed_face_bgr", (frame_spec(FRAME, "bgr"), OPTIONS), (EMBEDDING, FACES)),
    )
}
"""The public API: what a client calls."""


def sizes_up_to(max_batch_size: int) -> tuple[int, ...]:
    """Return the row counts that runs of at most `max_batch_size` rows are padded to on a device.

    Powers of two, then the largest itself.
    """
    powers = (1 << exponent for exponent in range(max_batch_size.bit_length()))
    return (*(size for size in powers if size < max_batch_size), max_batch_size)
