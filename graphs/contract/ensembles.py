"""The ensembles, which are what clients call: their tensors, and how the models are wired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from graphs.contract.extras import NO_EXTRAS, Extras
from graphs.contract.limits import FRAME_FORMATS, FrameFormat
from graphs.contract.models import ModelSpec, Sees, ServedSpec, model_specs
from graphs.contract.tensors import (
    CHOSEN_FACES,
    DETECTED_FRAME,
    EMBEDDING,
    ENCODED_SOURCE,
    ENHANCED_CROPS,
    ENHANCED_MASKS,
    ENHANCED_WARPS,
    FACES,
    FRAME,
    LANDMARKS,
    MASKS,
    OPTIONS,
    POSE,
    SEEN_FRAME,
    SLOT_LANDMARKS,
    SOURCE,
    SWAPPED_CROPS,
    SWAPPED_FRAME,
    VERDICTS,
    WARPS,
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

_ENHANCED: Final = {
    SWAPPED_CROPS.name: ENHANCED_CROPS.name, MASKS.name: ENHANCED_MASKS.name,
    WARPS.name: ENHANCED_WARPS.name,
}  # fmt: skip
"""Wiring of the blender after an enhancer."""


def _step(
    model: str, renamed: Mapping[str, str] | None = None, *, extras: Extras = NO_EXTRAS
) -> StepSpec:
    """A step whose values are called like the model's tensors, but for the inputs in `renamed`."""
    spec = model_specs(extras)[model]
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


def _swap_steps(pixel: FrameFormat, frame: str, extras: Extras) -> tuple[StepSpec, ...]:
    """From the aligner on. frame: the value that it reads the frame from."""

    def step(model: str, renamed: Mapping[str, str]) -> StepSpec:
        return _step(model, renamed, extras=extras)

    enhanced = extras.enhances is not None
    return (
        step(f"face_aligner_{pixel}", {FRAME: frame}),
        step("face_swapper", _OF_SLOTS),
        step("face_masker", _OF_SLOTS),
        *([step("face_enhancer", _OF_SLOTS)] if enhanced else []),
        step(
            f"face_blender_{pixel}",
            {FRAME: SEEN_FRAME, **(_ENHANCED if enhanced else {}), **_OF_SLOTS},
        ),
    )


def _swap_ensemble(pixel: FrameFormat, extras: Extras) -> EnsembleSpec:
    return _ensemble(
        f"swap_faces_{pixel}", (frame_spec(FRAME, pixel), SOURCE, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel), FACES, VERDICTS), "frame",
        (*_find_steps(pixel), *_swap_steps(pixel, DETECTED_FRAME, extras)),
    )  # fmt: skip


def _find_ensemble(pixel: FrameFormat) -> EnsembleSpec:
    return _ensemble(
        f"find_faces_{pixel}", (frame_spec(FRAME, pixel), OPTIONS), (FACES, LANDMARKS, POSE),
        "frame", _find_steps(pixel),
    )  # fmt: skip


def _swap_found_ensemble(pixel: FrameFormat, extras: Extras) -> EnsembleSpec:
    return _ensemble(
        f"swap_found_faces_{pixel}",
        (frame_spec(FRAME, pixel), FACES, LANDMARKS, SOURCE, OPTIONS),
        (frame_spec(SWAPPED_FRAME, pixel), VERDICTS), "frame", _swap_steps(pixel, FRAME, extras),
    )  # fmt: skip


def _photo_ensemble(name: str, answer: TensorSpec, model: str) -> EnsembleSpec:
    return _ensemble(
        name, (frame_spec(FRAME, "bgr"), OPTIONS), (answer, FACES), "photo",
        (_step("face_locator_bgr"), _step("face_landmarker"), _step(model, _ON_DEVICE)),
    )  # fmt: skip


@cache
def ensemble_specs(extras: Extras) -> Mapping[str, EnsembleSpec]:
    """Every ensemble by name, of a deployment with these extras; clients see no difference."""
    found = (
        *(_swap_ensemble(pixel, extras) for pixel in FRAME_FORMATS),
        *(_find_ensemble(pixel) for pixel in FRAME_FORMATS),
        *(_swap_found_ensemble(pixel, extras) for pixel in FRAME_FORMATS),
        _photo_ensemble("encode_source_bgr", ENCODED_SOURCE, "source_encoder"),
        _photo_ensemble("embed_face_bgr", EMBEDDING, "face_recognizer"),
    )
    return {spec.name: spec for spec in found}


ENSEMBLE_SPECS: Final = ensemble_specs(NO_EXTRAS)
"""The public API: what a client calls. Steps are those of a deployment without extras."""


def models_of(*ensembles: str, extras: Extras = NO_EXTRAS) -> tuple[str, ...]:
    """The models that are steps of these ensembles, in order, each once."""
    specs = ensemble_specs(extras)
    steps = (step.model for name in ensembles for step in specs[name].steps)
    return tuple(dict.fromkeys(steps))


def served_spec(name: str, extras: Extras = NO_EXTRAS) -> ModelSpec | EnsembleSpec:
    """The contract of a model or an ensemble; KeyError where there is none of this name."""
    return served_specs(extras)[name]


@cache
def served_specs(extras: Extras) -> Mapping[str, ModelSpec | EnsembleSpec]:
    """Every model, then every ensemble, by name."""
    return {**model_specs(extras), **ensemble_specs(extras)}
