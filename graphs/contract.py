"""The serving contract, written once: tensor names, axes, option codes and limits.

Axis letters: B batch (Triton's), K face slots asked for by the request, M rows the detector
reports, H W frame height and width, S swapper crop size, D length of one flat source vector,
E embedding length. Frames are uint8. Coordinates are pixels, x then y, and integer coordinates
are pixel centres. Crops are float32 RGB in [0, 1], channels first.

Nothing in this file depends on ONNX, Triton or a client library; every other module reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

MIN_FRAME_SIDE: Final = 64
"""Smallest height and width of a frame, in pixels."""

FrameFormat = Literal["i420", "bgr"]
FRAME_FORMATS: Final[tuple[FrameFormat, ...]] = ("i420", "bgr")

FACE_COLUMNS: Final = 15
"""Columns of `faces`: x1 y1 x2 y2, score, then x y of the left eye, right eye, nose, left and
right mouth corner (left and right as seen in the image). Score 0 marks an empty row, whose other
columns are 0 as well; empty rows come last."""
SCORE_COLUMN: Final = 4
LANDMARK_COLUMN: Final = 5

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

OPTION_CODES: Final[Mapping[Option, type[IntEnum]]] = {
    Option.FACE_ORDER: FaceOrder,
    Option.COLOR_MATRIX: ColorMatrix,
    Option.COLOR_RANGE: ColorRange,
    Option.CHROMA_LOCATION: ChromaLocation,
}
"""Options whose value is a code; the others are thresholds from 0 to 1."""


def option_ranges() -> str:
    """Every position of `options`: name=lowest..highest, whole numbers unless there is a point."""
    entries = ["reserved=0..0"] * OPTION_COUNT
    for option in Option:
        codes = OPTION_CODES.get(option)
        highest = "0.0..1.0" if codes is None else f"0..{max(codes)}"
        entries[option] = f"{option.name.lower()}={highest}"
    return ",".join(entries)


def sizes_up_to(largest: int) -> tuple[int, ...]:
    """Row counts that runs of at most `largest` rows are padded to on a device.

    Powers of two, then the largest itself.
    """
    powers = (1 << exponent for exponent in range(largest.bit_length()))
    return (*(size for size in powers if size < largest), largest)


# Keys of a config's parameters. What a repository was built for; clients read it of the ensembles:
PARAMETER_CONTRACT_VERSION: Final = "contract_version"
PARAMETER_SWAPPER: Final = "swapper"
PARAMETER_SOURCE_KIND: Final = "source_kind"
PARAMETER_SOURCE_LENGTH: Final = "source_length"
PARAMETER_PROVENANCE: Final = "provenance"
PARAMETER_DETECTOR: Final = "detector"
PARAMETER_RECOGNIZER: Final = "recognizer"
PARAMETER_PIXEL_BOOST: Final = "pixel_boost"
# What the Python-based backends check of a request:
PARAMETER_MAX_FACES: Final = "max_faces"
PARAMETER_FRAME_FORMAT: Final = "frame_format"
PARAMETER_MIN_HEIGHT: Final = "min_height"
PARAMETER_MIN_WIDTH: Final = "min_width"
PARAMETER_MAX_HEIGHT: Final = "max_height"
PARAMETER_MAX_WIDTH: Final = "max_width"
PARAMETER_FACE_INPUTS: Final = "face_inputs"
PARAMETER_FINITE_INPUTS: Final = "finite_inputs"
PARAMETER_OPTION_RANGES: Final = "option_ranges"
# How they run the network:
PARAMETER_PASSTHROUGH: Final = "passthrough"
PARAMETER_ROW_INPUTS: Final = "row_inputs"
PARAMETER_ROW_MASK: Final = "row_mask"
PARAMETER_ROW_OUTPUTS: Final = "row_outputs"
PARAMETER_MAX_ROWS: Final = "max_rows"
PARAMETER_SESSION_PER_SIZE: Final = "session_per_size"
PARAMETER_ENGINE_FLAVOUR: Final = "engine_flavour"
PARAMETER_ONNX_UNTIL_PLAN: Final = "onnx_until_plan"

CHECKED_INPUT_LISTS: Final = (PARAMETER_FACE_INPUTS, PARAMETER_FINITE_INPUTS)
"""Parameters that name the inputs that they check."""

DataType = Literal["uint8", "float32"]

Measure = Literal["crop PSNR", "frame PSNR", "landmarks", "cosine"]
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


SOURCE: Final = TensorSpec("source", "float32", ("K", "D"))
OPTIONS: Final = TensorSpec("options", "float32", (OPTION_COUNT,))
FACES: Final = TensorSpec("faces", "float32", (MAX_DETECTIONS, FACE_COLUMNS), "landmarks")
CROPS: Final = TensorSpec("crops", "float32", ("K", 3, "S", "S"), "crop PSNR")
SWAPPED_CROPS: Final = TensorSpec("swapped_crops", "float32", ("K", 3, "S", "S"), "crop PSNR")
WARPS: Final = TensorSpec("warps", "float32", ("K", 2, 3))
"""Frame to crop: crop_xy = warp @ [x, y, 1]. All zeros for an empty slot."""
ENCODED_SOURCE: Final = TensorSpec("source", "float32", ("D",), "cosine")
EMBEDDING: Final = TensorSpec("embedding", "float32", ("E",), "cosine")

FRAME: Final = "frame"
DETECTED_FRAME: Final = "detected_frame"
"""The detector's copy of `frame`, byte for byte: the blender reads the one on the device."""
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

Sees = Literal["frame", "photo", "crops"]
"""What comes in: a frame of a video, a photo that a source is taken from (once a job), or crops of
faces. It decides a plan's sizes, a config's limits and whether a CPU joins requests."""

Network = Literal["swapper", "other"]
"""The swapper's is nine tenths of the arithmetic: it alone is put into 8 bits and rewritten for
channels-last kernels."""


@dataclass(frozen=True)
class JoinedRows:
    """Tensors [B, K, ...] whose rows with a face, of all requests, may run as one batch.

    mask: the input whose score says which rows hold a face.
    """

    inputs: tuple[str, ...]
    mask: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ServedSpec:
    """Inputs and outputs of one name that a server answers to."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sees: Sees

    @property
    def frame_format(self) -> FrameFormat | None:
        """Of the input `frame`; None where there is none."""
        for frame_format in FRAME_FORMATS:
            if frame_spec(FRAME, frame_format) in self.inputs:
                return frame_format
        return None


@dataclass(frozen=True)
class ModelSpec(ServedSpec):
    """One served model that is a graph, and what it is like.

    network: what is in it beside geometry and pixels; with some swappers a model has less.
    passthrough: outputs that are copies of an input: output name to input name.
    joined_rows: for a model that works on each face by itself; None for the others.
    """

    network: Network | None = None
    passthrough: Mapping[str, str] = field(default_factory=dict)
    joined_rows: JoinedRows | None = None


@dataclass(frozen=True)
class StepSpec:
    """One step of an ensemble: the model's tensor names to the names of the ensemble's values."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class EnsembleSpec(ServedSpec):
    """One ensemble: its own inputs and outputs, and its steps in an order in which they can run.

    Every input goes to the first step, too: Triton answers "unexpected deadlock" when outputs are
    left out of a request and an input feeds a later step only.
    """

    steps: tuple[StepSpec, ...]

    @property
    def makers(self) -> dict[str, tuple[str, str]]:
        """Values that steps make: name of the value to the model and the name of its output."""
        return {
            value: (step.model, output)
            for step in self.steps
            for output, value in step.outputs.items()
        }


_IN_PLACE: Final = {DETECTED_FRAME: FRAME}
_ON_DEVICE: Final = {FRAME: DETECTED_FRAME}
"""Wiring of a step after the detector."""


def _photo_models() -> Iterator[ModelSpec]:
    frame = frame_spec(FRAME, "bgr")
    yield ModelSpec(
        "face_locator_bgr", (frame, OPTIONS), (FACES, frame_spec(DETECTED_FRAME, "bgr")),
        sees="photo", network="other", passthrough=_IN_PLACE,
    )  # fmt: skip
    yield ModelSpec(
        "source_encoder", (frame, FACES), (ENCODED_SOURCE,), sees="photo", network="other"
    )
    yield ModelSpec("face_recognizer", (frame, FACES), (EMBEDDING,), sees="photo", network="other")


def _crop_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        "face_swapper", (CROPS, SOURCE, FACES), (SWAPPED_CROPS,), sees="crops", network="swapper",
        joined_rows=JoinedRows((CROPS.name, SOURCE.name), FACES.name, (SWAPPED_CROPS.name,)),
    )  # fmt: skip


def _frame_models(pixel: FrameFormat) -> Iterator[ModelSpec]:
    frame = frame_spec(FRAME, pixel)
    yield ModelSpec(
        f"face_detector_{pixel}", (frame, SOURCE, OPTIONS),
        (FACES, CROPS, WARPS, frame_spec(DETECTED_FRAME, pixel)),
        sees="frame", network="other", passthrough=_IN_PLACE,
    )  # fmt: skip
    # `options` carries the colour matrix, range and chroma location of an I420 frame.
    options = (OPTIONS,) if pixel == "i420" else ()
    yield ModelSpec(
        f"face_blender_{pixel}", (frame, SWAPPED_CROPS, WARPS, FACES, *options),
        (frame_spec(SWAPPED_FRAME, pixel, "frame PSNR"),), sees="frame",
    )  # fmt: skip


MODEL_SPECS: Final[dict[str, ModelSpec]] = {
    spec.name: spec
    for spec in (
        *_photo_models(),
        *_crop_models(),
        *(spec for pixel in FRAME_FORMATS for spec in _frame_models(pixel)),
    )
}
"""Every served model that is a graph, by name."""


def _step(model: str, renamed: Mapping[str, str] | None = None) -> StepSpec:
    """A step whose values are called like the model's tensors, but for the inputs in `renamed`."""
    spec = MODEL_SPECS[model]
    names = renamed or {}
    return StepSpec(
        model,
        {tensor.name: names.get(tensor.name, tensor.name) for tensor in spec.inputs},
        {tensor.name: tensor.name for tensor in spec.outputs},
    )


def _swap_ensemble(pixel: FrameFormat) -> EnsembleSpec:
    return EnsembleSpec(
        f"swap_faces_{pixel}", (frame_spec(FRAME, pixel), SOURCE, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel), FACES), sees="frame",
        steps=(
            _step(f"face_detector_{pixel}"),
            _step("face_swapper"),
            _step(f"face_blender_{pixel}", _ON_DEVICE),
        ),
    )  # fmt: skip


def _photo_ensemble(name: str, answer: TensorSpec, model: str) -> EnsembleSpec:
    return EnsembleSpec(
        name, (frame_spec(FRAME, "bgr"), OPTIONS), (answer, FACES), sees="photo",
        steps=(_step("face_locator_bgr"), _step(model, _ON_DEVICE)),
    )  # fmt: skip


ENSEMBLE_SPECS: Final[dict[str, EnsembleSpec]] = {
    spec.name: spec
    for spec in (
        *(_swap_ensemble(pixel) for pixel in FRAME_FORMATS),
        _photo_ensemble("encode_source_bgr", ENCODED_SOURCE, "source_encoder"),
        _photo_ensemble("embed_face_bgr", EMBEDDING, "face_recognizer"),
    )
}
"""The public API: what a client calls."""


def models_of(*ensembles: str) -> tuple[str, ...]:
    """The models that are steps of these ensembles, in order, each once."""
    steps = (step.model for name in ensembles for step in ENSEMBLE_SPECS[name].steps)
    return tuple(dict.fromkeys(steps))


def served_spec(name: str) -> ModelSpec | EnsembleSpec:
    """The contract of a model or an ensemble; KeyError where there is none of this name."""
    return ENSEMBLE_SPECS[name] if name in ENSEMBLE_SPECS else MODEL_SPECS[name]
