"""From a typed graph to a plan and its manifest: profile, shape arithmetic, shared cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import onnx

from engines.cache import Built, CacheResult, PlanCache
from engines.compilers import CompileOptions, Compiler
from engines.configs import Limits
from engines.errors import ProfileError
from engines.fidelity import FidelityReport
from engines.lease import Holder
from engines.manifest import PlanKey, describe
from engines.profiles import AxisRange, Profile, ProfileLimits, make_profile, planned_memory
from engines.progress import Announce, CompileProgress
from engines.shapes import check_elements
from engines.targets import Target
from fetching.files import data_sha256
from graphs.contract import EVERY_MODEL, MAX_DETECTIONS, MAX_VIEWS, MIN_FRAME_SIDE

MINIMA: Final = {"height": MIN_FRAME_SIDE, "width": MIN_FRAME_SIDE, "photo": MIN_FRAME_SIDE}
"""What the smallest frame is, for every backend."""

_DEFAULT: Final = ProfileLimits()
_PHOTO: Final = AxisRange(MIN_FRAME_SIDE, 1024, 2048)


@dataclass(frozen=True)
class PlanAxes:
    """What requests may ask of the plans. height and width in pixels, of video frames.

    photo: height and width of a photo that a source is taken from. It is one a job, so its plans
        are tuned for little and allow much.
    """

    batch: AxisRange = _DEFAULT.batch
    faces: AxisRange = _DEFAULT.faces
    height: AxisRange = _DEFAULT.height
    width: AxisRange = _DEFAULT.width
    photo: AxisRange = _PHOTO

    def __post_init__(self) -> None:
        for name, axis in vars(self).items():
            if not MINIMA.get(name, 1) <= axis.min <= axis.opt <= axis.max:
                raise ProfileError(
                    f"the profile of {name} is {axis.min}, {axis.opt}, {axis.max}: wanted are "
                    f"{MINIMA.get(name, 1)} <= min <= opt <= max"
                )
        if self.faces.max > MAX_DETECTIONS:
            raise ProfileError(
                f"at most {MAX_DETECTIONS} faces are found in a frame, {self.faces.max} asked for"
            )
        for axis in (self.height, self.width):
            if any(size % 2 for size in (axis.min, axis.opt, axis.max)):
                raise ProfileError(f"heights and widths of frames are even, not {axis}")

    @property
    def limits(self) -> Limits:
        """The same maxima as the configs state them."""
        return Limits(
            max_height=self.height.max,
            max_width=self.width.max,
            max_photo_side=self.photo.max,
            max_faces=self.faces.max,
            max_batch_size=self.batch.max,
        )

    def of(self, model: str, target: Target) -> ProfileLimits:
        """The axes of one model's plan."""
        spec = EVERY_MODEL[model]
        if spec.joined_rows is not None and target.joins_rows:
            # Our backend joins the faces of a whole batch: N rows go in as B = N, K = F = 1.
            slots = AxisRange(1, 1, MAX_VIEWS) if spec.rows_axis == "F" else self.faces
            rows = AxisRange(
                self.batch.min * slots.min,
                self.batch.opt * slots.opt,
                self.batch.max * slots.max,
            )
            one_row = AxisRange(1, 1, 1)
            return ProfileLimits(batch=rows, faces=one_row, views=one_row)
        if spec.sees == "photo":
            one = AxisRange(self.batch.min, 1, self.batch.max)
            return ProfileLimits(batch=one, faces=self.faces, height=self.photo, width=self.photo)
        return ProfileLimits(
            batch=self.batch, faces=self.faces, height=self.height, width=self.width
        )


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """How plans are made.

    cache: folder shared by every builder. gpu_memory: bytes that all plans together may need.
    name_by_gpu: `model.sm89.plan` and `cc_model_filenames` in place of `model.plan`, so that
        plans for several types of GPU lie side by side.
    """

    compiler: Compiler
    compute_capabilities: tuple[str, ...]
    axes: PlanAxes
    options: CompileOptions
    cache: Path
    gpu_memory: int | None = None
    name_by_gpu: bool = False

    def filename(self, target: Target) -> str:
        """File name of the plans."""
        if not (target.name_by_gpu and self.name_by_gpu):
            return target.filename
        return f"model.sm{self.compute_capabilities[0].replace('.', '')}.plan"

    def recipe(self, model: str, target: Target) -> dict[str, str]:
        """What the compiler adds to a file's recipe."""
        return {
            "compiler": f"{self.compiler.flavour} {self.compiler.version}",
            "compute capability": ", ".join(self.compute_capabilities),
            "profile": json.dumps(asdict(self.axes.of(model, target)), sort_keys=True),
            "options": json.dumps(self.options.key(), sort_keys=True),
        }


def make_plan(
    model: str,
    typed: onnx.ModelProto,
    target: Target,
    settings: CompileSettings,
    *,
    recipe: Mapping[str, str],
    check: Callable[[], FidelityReport | None],
    announce: Announce,
    progress: CompileProgress | None,
) -> CacheResult:
    """The plan of one typed graph, out of the cache or compiled by exactly one builder.

    Args:
        check: compares the typed graph with fp32; called only when the plan has to be compiled,
            and before that. A report that came with a cached plan is checked by the caller.

    Raises:
        EngineError: the profile, the graph or the compiler refuses; one sentence.
    """
    data = typed.SerializeToString(deterministic=True)
    profile, key = plan_key(model, typed, target, settings)

    def build() -> Built:
        shapes = check_elements(typed, {name: shape.max for name, shape in profile.items()})
        report = check()
        compiled = settings.compiler.compile(
            data,
            profile=profile,
            compute_capabilities=settings.compute_capabilities,
            options=settings.options,
            progress=progress,
        )
        manifest = describe(
            compiled.data,
            model=model,
            file=settings.filename(target),
            recipe=recipe,
            plan=key,
            memory=planned_memory(shapes, compiled.activation_bytes, compiled.weight_bytes),
            fidelity=None if report is None else report.as_facts(),
            seconds=compiled.seconds,
            warnings=compiled.warnings,
        )
        return Built(compiled.data, manifest)

    waits = _Waits(model, announce)
    result = PlanCache(settings.cache).get_or_build(key, build, on_wait=waits)
    for note in result.notes:
        announce(f"{model}: {note}")
    return result


def plan_key(
    model: str, typed: onnx.ModelProto, target: Target, settings: CompileSettings
) -> tuple[Profile, PlanKey]:
    """The profile of one typed graph, and the name of its plan in the cache."""
    profile = make_profile(typed, settings.axes.of(model, target))
    key = PlanKey(
        onnx_sha256=data_sha256(typed.SerializeToString(deterministic=True)),
        flavour=settings.compiler.flavour,
        tensorrt_version=settings.compiler.version,
        compute_capabilities=tuple(sorted(settings.compute_capabilities)),
        profile={name: asdict(shapes) for name, shapes in profile.items()},
        options=settings.options.key(),
    )
    return profile, key


class _Waits:
    """Says that another builder is at it: at once, and every ten seconds after."""

    _EVERY_S = 10.0

    def __init__(self, model: str, announce: Announce) -> None:
        self._model = model
        self._announce = announce
        self._next_s = 0.0

    def __call__(self, holder: Holder, waited_s: float) -> None:
        if waited_s >= self._next_s:
            self._announce(f"{self._model}: waiting for {holder} to build it ({waited_s:.0f} s)")
            self._next_s = waited_s + self._EVERY_S
