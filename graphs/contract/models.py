"""The served models that are graphs: what goes in, what comes out, and what each is like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, Literal

from graphs.contract.extras import EVERY_EXTRA, NO_EXTRAS, Extras
from graphs.contract.limits import FRAME_FORMATS, FrameFormat
from graphs.contract.tensors import (
    CHOSEN_FACES,
    CONTEXT,
    CONTEXT_WARPS,
    CROPS,
    DETECTED_FRAME,
    DETECTIONS,
    EMBEDDING,
    ENCODED_SOURCE,
    ENHANCED_CROPS,
    ENHANCED_MASKS,
    ENHANCED_WARPS,
    FACES,
    FRAME,
    LANDMARKS,
    MASKS,
    OCCLUSIONS,
    OPTIONS,
    POSE,
    SEEN_FRAME,
    SHOWN_MASKS,
    SLOT_LANDMARKS,
    SOURCE,
    SWAP_MASKS,
    SWAPPED_CROPS,
    SWAPPED_FRAME,
    VERDICTS,
    VIEW_WARPS,
    VIEWS,
    WARPS,
    TensorSpec,
    frame_spec,
)

Sees = Literal["frame", "photo", "crops"]
"""What comes in: a frame of a video, a photo that a source is taken from (once a job), or crops of
faces. It decides a plan's sizes, a config's limits and whether a CPU joins requests."""

Network = Literal["swapper", "landmarker", "other"]
"""The swapper's is nine tenths of the arithmetic: it alone is put into 8 bits and rewritten for
channels-last kernels. The landmark network's runs are recorded where that is known to go."""


@dataclass(frozen=True)
class JoinedRows:
    """Tensors [B, K, ...] whose rows with a face, of all requests, may run as one batch.

    inputs: their rows are what is joined. mask: the input whose score says which rows hold a face.
    outputs: made for each row; other rows are 0.
    shared: inputs [B, ...] that hold for all rows of a frame.
    updated: outputs like the mask, which they copy but for the rows that were run.
    """

    inputs: tuple[str, ...]
    mask: str
    outputs: tuple[str, ...]
    shared: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()


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

    @property
    def rows_axis(self) -> str | None:
        """Letter of the axis whose rows are joined, K or F; None where none are."""
        if self.joined_rows is None:
            return None
        first = self.joined_rows.inputs[0]
        return next(str(tensor.dims[0]) for tensor in self.inputs if tensor.name == first)


_OF_SLOTS: Final = TensorSpec(LANDMARKS.name, "float32", SLOT_LANDMARKS.dims)
"""`landmarks` of the models behind the aligner: a row a slot."""


def _photo_models() -> Iterator[ModelSpec]:
    frame = frame_spec(FRAME, "bgr")
    yield ModelSpec(
        "face_locator_bgr", (frame, OPTIONS), _found("bgr"), sees="photo", network="other",
        passthrough={DETECTED_FRAME: FRAME},
    )  # fmt: skip
    yield ModelSpec(
        "source_encoder", (frame, FACES, LANDMARKS), (ENCODED_SOURCE,), sees="photo",
        network="other",
    )  # fmt: skip
    yield ModelSpec("face_recognizer", (frame, FACES), (EMBEDDING,), sees="photo", network="other")


def _found(pixel: FrameFormat) -> tuple[TensorSpec, ...]:
    return DETECTIONS, VIEWS, VIEW_WARPS, frame_spec(DETECTED_FRAME, pixel)


def _crop_models(extras: Extras) -> Iterator[ModelSpec]:
    yield ModelSpec(
        "face_landmarker", (VIEWS, VIEW_WARPS, DETECTIONS, OPTIONS), (FACES, LANDMARKS, POSE),
        sees="crops", network="landmarker",
        joined_rows=JoinedRows(
            (VIEWS.name, VIEW_WARPS.name), DETECTIONS.name, (LANDMARKS.name, POSE.name),
            shared=(OPTIONS.name,), updated=(FACES.name,),
        ),
    )  # fmt: skip
    yield ModelSpec(
        "face_swapper", (CROPS, SOURCE, FACES, _OF_SLOTS, WARPS, OPTIONS),
        (SWAPPED_CROPS, SWAP_MASKS), sees="crops", network="swapper",
        joined_rows=JoinedRows(
            (CROPS.name, SOURCE.name, LANDMARKS.name, WARPS.name), FACES.name,
            (SWAPPED_CROPS.name, SWAP_MASKS.name), shared=(OPTIONS.name,),
        ),
    )  # fmt: skip
    yield _masker(extras)
    if extras.enhances is not None:
        yield _enhancer(extras)


def _masker(extras: Extras) -> ModelSpec:
    """Without extras no mask looks at a picture: what the crops would cost to bring is saved."""
    seen = tuple(
        tensor
        for tensor, there in ((CROPS, extras.occludes), (SWAPPED_CROPS, extras.parses))
        if there
    )
    made: tuple[TensorSpec, ...] = (SHOWN_MASKS if extras.looks else MASKS,)
    if extras.occludes and extras.enhances == "context":
        made = (*made, OCCLUSIONS)
    rows = (SWAP_MASKS, *seen, _OF_SLOTS, WARPS)
    return ModelSpec(
        "face_masker", (*rows, FACES, OPTIONS), made, sees="crops",
        network="other" if extras.looks else None,
        joined_rows=_joined(rows, made),
    )  # fmt: skip


def _enhancer(extras: Extras) -> ModelSpec:
    rows: tuple[TensorSpec, ...] = (SWAPPED_CROPS, MASKS, WARPS)
    if extras.enhances == "context":
        rows = (*rows, CONTEXT, CONTEXT_WARPS)
        if extras.occludes:
            rows = (*rows, OCCLUSIONS)
    made = (ENHANCED_CROPS, ENHANCED_MASKS, ENHANCED_WARPS)
    return ModelSpec(
        "face_enhancer", (*rows, FACES, OPTIONS), made, sees="crops", network="other",
        joined_rows=_joined(rows, made),
    )  # fmt: skip


def _joined(rows: tuple[TensorSpec, ...], made: tuple[TensorSpec, ...]) -> JoinedRows:
    return JoinedRows(
        tuple(tensor.name for tensor in rows), FACES.name,
        tuple(tensor.name for tensor in made), shared=(OPTIONS.name,),
    )  # fmt: skip


def _frame_models(pixel: FrameFormat, extras: Extras) -> Iterator[ModelSpec]:
    frame = frame_spec(FRAME, pixel)
    yield ModelSpec(
        f"face_detector_{pixel}", (frame, OPTIONS), _found(pixel), sees="frame", network="other",
        passthrough={DETECTED_FRAME: FRAME},
    )  # fmt: skip
    around = (CONTEXT, CONTEXT_WARPS) if extras.enhances == "context" else ()
    yield ModelSpec(
        f"face_aligner_{pixel}", (frame, FACES, LANDMARKS, SOURCE, OPTIONS),
        (
            CROPS, WARPS, *around, SLOT_LANDMARKS, CHOSEN_FACES, VERDICTS,
            frame_spec(SEEN_FRAME, pixel),
        ),
        sees="frame", passthrough={SEEN_FRAME: FRAME},
    )  # fmt: skip
    laid = (SWAPPED_CROPS, MASKS)
    if extras.enhances is not None:
        laid = replace(SWAPPED_CROPS, dims=ENHANCED_CROPS.dims), replace(
            MASKS, dims=ENHANCED_MASKS.dims
        )
    yield ModelSpec(
        f"face_blender_{pixel}", (frame, *laid, WARPS, FACES, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel, "frame PSNR"),), sees="frame",
    )  # fmt: skip


@cache
def model_specs(extras: Extras) -> Mapping[str, ModelSpec]:
    """Every served model that is a graph, by name, of a deployment with these extras."""
    found = (
        *_photo_models(),
        *_crop_models(extras),
        *(spec for pixel in FRAME_FORMATS for spec in _frame_models(pixel, extras)),
    )
    return {spec.name: spec for spec in found}


MODEL_SPECS: Final = model_specs(NO_EXTRAS)
"""Those of a deployment without extras."""

EVERY_MODEL: Final = model_specs(EVERY_EXTRA)
"""What there is in any deployment: for what a model is like, whichever tensors it has."""
