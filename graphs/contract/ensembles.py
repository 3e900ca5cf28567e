"""The ensembles, which are what clients call: their tensors, and how the models are wired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graphs.contract.limits import FRAME_FORMATS, FrameFormat
from graphs.contract.models import MODEL_SPECS, ModelSpec, Sees, ServedSpec
from graphs.contract.tensors import (
    CHOSEN_FACES,
    DETECTED_FRAME,
    EMBEDDING,
    ENCODED_SOURCE,
    FACES,
    FRAME,
    LANDMARKS,
    OPTIONS,
    POSE,
    SEEN_FRAME,
    SLOT_LANDMARKS,
    SOURCE,
    SWAPPED_FRAME,
    VERDICTS,
    TensorSpec,
    frame_spec,
)


@dataclass(frozen=True)
class StepSpec:
    """One step of an ensemble: the model's tensor names to the names of the ensemble's values."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class EnsembleSpec(ServedSpec):
    """One ensemble: its own inputs and outputs, and its steps in an order in which they can run.

    A request asks for all outputs: where an input feeds a later step only, Triton answers
    "unexpected deadlock" to one that leaves an output out. (`source` goes to the aligner: the
    detector is a step of `find_faces`, too, which has no source.)
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


_ON_DEVICE: Final = {FRAME: DETECTED_FRAME}
"""Wiring of a step after the detector."""

_OF_SLOTS: Final = {LANDMARKS.name: SLOT_LANDMARKS.name, FACES.name: CHOSEN_FACES.name}
"""Wiring of a step after the aligner."""


def _step(model: str, renamed: Mapping[str, str] | None = None) -> StepSpec:
    """A step whose values are called like the model's tensors, but for the inputs in `renamed`."""
    spec = MODEL_SPECS[model]
    names = renamed or {}
    return StepSpec(
        model,
        {tensor.name: names.get(tensor.name, tensor.name) for tensor in spec.inputs},
        {tensor.name: tensor.name for tensor in spec.outputs},
    )


def _ensemble(
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    sees: Sees,
    steps: tuple[StepSpec, ...],
) -> EnsembleSpec:
    """An ensemble without the values that nothing reads: Triton loads none that names one."""
    read = {value for step in steps for value in step.inputs.values()}
    read |= {tensor.name for tensor in outputs}
    pruned = tuple(
        StepSpec(
            step.model,
            step.inputs,
            {tensor: value for tensor, value in step.outputs.items() if value in read},
        )
        for step in steps
    )
    return EnsembleSpec(name, inputs, outputs, sees=sees, steps=pruned)


def _find_steps(pixel: FrameFormat) -> tuple[StepSpec, ...]:
    return _step(f"face_detector_{pixel}"), _step("face_landmarker")


def _swap_steps(pixel: FrameFormat, frame: str) -> tuple[StepSpec, ...]:
    """From the aligner on. frame: the value that it reads the frame from."""
    return (
        _step(f"face_aligner_{pixel}", {FRAME: frame}),
        _step("face_swapper", _OF_SLOTS),
        _step("face_masker", _OF_SLOTS),
        _step(f"face_blender_{pixel}", {FRAME: SEEN_FRAME, **_OF_SLOTS}),
    )


def _swap_ensemble(pixel: FrameFormat) -> EnsembleSpec:
    return _ensemble(
        f"swap_faces_{pixel}", (frame_spec(FRAME, pixel), SOURCE, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel), FACES, VERDICTS), "frame",
        (*_find_steps(pixel), *_swap_steps(pixel, DETECTED_FRAME)),
    )  # fmt: skip


def _find_ensemble(pixel: FrameFormat) -> EnsembleSpec:
    return _ensemble(
        f"find_faces_{pixel}", (frame_spec(FRAME, pixel), OPTIONS), (FACES, LANDMARKS, POSE),
        "frame", _find_steps(pixel),
    )  # fmt: skip


def _swap_found_ensemble(pixel: FrameFormat) -> EnsembleSpec:
    return _ensemble(
        f"swap_found_faces_{pixel}",
        (frame_spec(FRAME, pixel), FACES, LANDMARKS, SOURCE, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel), VERDICTS), "frame", _swap_steps(pixel, FRAME),
    )  # fmt: skip


def _photo_ensemble(name: str, answer: TensorSpec, model: str) -> EnsembleSpec:
    return _ensemble(
        name, (frame_spec(FRAME, "bgr"), OPTIONS), (answer, FACES), "photo",
        (_step("face_locator_bgr"), _step("face_landmarker"), _step(model, _ON_DEVICE)),
    )  # fmt: skip


ENSEMBLE_SPECS: Final[dict[str, EnsembleSpec]] = {
    spec.name: spec
    for spec in (
        *(_swap_ensemble(pixel) for pixel in FRAME_FORMATS),
        *(_find_ensemble(pixel) for pixel in FRAME_FORMATS),
        *(_swap_found_ensemble(pixel) for pixel in FRAME_FORMATS),
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
