"""One build of a model repository: bring weights, author, type, check, compile, publish.

ONNX Runtime's targets (`cpu`, `cuda`) end with an ONNX file, the TensorRT ones (`tensorrt`, `rtx`)
with a plan. Configs are written last, so that a target that Triton can pick has its files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engines.cache import CacheResult, Outcome
from engines.configs import HostOptions, Limits, plan_filenames
from engines.deployment import Deployment
from engines.errors import DeploymentError
from engines.fidelity import FidelityReport, check_report
from engines.manifest import PlannedMemory, describe
from engines.plans import CompileSettings, make_plan
from engines.precision import Precision
from engines.profiles import check_memory
from engines.progress import Announce, CompileProgress
from engines.recipe import bring_weights, differences, frames_digest, make_recipe
from engines.repository import RepositoryWriter
from engines.served_graphs import ServedGraph, served_graphs
from engines.targets import Target
from engines.typed_graphs import Typist, model_precision


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What a person asked for.

    models: names out of the deployment's `model_specs`; configs are written for all, whatever is
        built.
    frames: pictures and folders to calibrate and check with; none takes two paintings.
    compile: how plans are made; None for ONNX Runtime's targets.
    """

    deployment: Deployment
    target: Target
    precision: Precision
    models: tuple[str, ...]
    repository: RepositoryWriter
    limits: Limits
    host: HostOptions
    frames: tuple[Path, ...] = ()
    accept_licence: bool = False
    allow_worse: bool = False
    compile: CompileSettings | None = None

    @property
    def filename(self) -> str:
        """What a built file of any model is called."""
        if self.compile is not None:
            return self.compile.filename(self.target)
        return self.target.filename


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """One line of a build. seconds: spent on this model. size: of the published file, bytes.

    notes: sentences for a person. memory: planned GPU memory, for plans.
    """

    model: str
    precision: Precision
    seconds: float
    size: int
    outcome: Outcome | Literal["unchanged"]
    report: str | None = None
    memory: PlannedMemory | None = None

    def __str__(self) -> str:
        memory = "" if self.memory is None else f" {self.memory.total_bytes() / 2**20:8,.0f} MiB"
        return (
            f"{self.model:<18} {self.precision:<4} {self.seconds:7.1f} s {self.size / 1e6:9,.1f} MB"
            f"{memory}  {self.outcome}"
        )


@dataclass
class Build:
    """A build under way: `run` yields one line a model and leaves a complete repository.

    progress: told what the compiler is doing.
    """

    request: BuildRequest
    announce: Announce
    progress: CompileProgress | None = None
    _planned: dict[str, PlannedMemory] = field(default_factory=dict)

    def run(self) -> Iterator[BuiltModel]:
        """Build what is not as wanted yet, then write the configs.

        Raises:
            EngineError: one sentence; what was published before it is whole.
        """
        request = self.request
        recipes = make_recipes(request, self.announce)
        request.repository.complete(request.deployment.extras)
        refuse_mixed_deployments(request)
        typist = make_typist(request, self.announce)
        for model, served in selected_graphs(request).items():
            started = time.perf_counter()
            built = self._current(served, recipes[model])
            if built is None:
                make = self._make_onnx if request.compile is None else self._make_plan
                built = make(served, recipes[model], typist)
            if built.memory is not None:
                self._planned[model] = built.memory
            yield replace(built, seconds=time.perf_counter() - started)
        self.check_memory()
        self._write_configs()

    def check_memory(self) -> int:
        """Bytes of GPU memory that all plans of this build need together.

        Raises:
            MemoryLimitExceeded: more than was allowed.
        """
        settings = self.request.compile
        limit = None if settings is None else settings.gpu_memory
        counts = {
            model: self.request.host.instance_counts.get(model, self.request.host.instance_count)
            for model in self._planned
        }
        return check_memory(self._planned, limit, counts)

    def _current(self, served: ServedGraph, recipe: Mapping[str, str]) -> BuiltModel | None:
        """The line of a file that is as wanted already; None when it has to be made."""
        repository, filename = self.request.repository, self.request.filename
        if not repository.is_current(served.model, filename, recipe):
            return None
        manifest = repository.manifest(served.model, filename)
        if manifest is None:
            return None
        misses = (manifest.fidelity or {}).get("misses", ())
        if misses and not self.request.allow_worse:
            return None
        return BuiltModel(
            model=served.model,
            precision=self._precision(served),
            seconds=0.0,
            size=manifest.size,
            outcome="unchanged",
            memory=manifest.memory,
        )

    def _make_onnx(
        self, served: ServedGraph, recipe: Mapping[str, str], typist: Typist
    ) -> BuiltModel:
        typed = typist.type_graph(served)
        report = typist.check(served, typed)
        if report is not None:
            check_report(report, allow_worse=self.request.allow_worse)
        data = typed.SerializeToString(deterministic=True)
        manifest = describe(
            data,
            model=served.model,
            file=self.request.filename,
            recipe=recipe,
            fidelity=None if report is None else report.as_facts(),
        )
        self.request.repository.publish(data, manifest)
        return BuiltModel(
            model=served.model,
            precision=self._precision(served),
            seconds=0.0,
            size=manifest.size,
            outcome="built",
            report=None if report is None else str(report),
        )

    def _make_plan(
        self, served: ServedGraph, recipe: Mapping[str, str], typist: Typist
    ) -> BuiltModel:
        request, settings = self.request, self.request.compile
        assert settings is not None
        typed = typist.type_graph(served)

        def check() -> FidelityReport | None:
            report = typist.check(served, typed)
            if report is not None:
                check_report(report, allow_worse=request.allow_worse)
            return report

        made = make_plan(
            served.model,
            typed,
            request.target,
            settings,
            recipe=recipe,
            check=check,
            announce=self.announce,
            progress=self.progress,
        )
        report = self._report(made, check)
        # A plan out of the cache was published elsewhere, from what may be another recipe.
        manifest = replace(
            made.manifest,
            model=served.model,
            file=request.filename,
            recipe=recipe,
            fidelity=None if report is None else report.as_facts(),
        )
        request.repository.publish(made.data, manifest)
        return BuiltModel(
            model=served.model,
            precision=self._precision(served),
            seconds=0.0,
            size=manifest.size,
            outcome=made.outcome,
            report=None if report is None else str(report),
            memory=manifest.memory,
        )

    def _report(
        self, made: CacheResult, check: Callable[[], FidelityReport | None]
    ) -> FidelityReport | None:
        """The report that belongs to this build.

        A plan out of the cache brings its builder's, which someone's --allow-worse may have let
        in; with frames of one's own it is measured again.
        """
        facts = made.manifest.fidelity
        if facts is None:
            return None
        if made.outcome != "built" and self.request.frames:
            return check()
        report = FidelityReport.from_facts(facts)
        check_report(report, allow_worse=self.request.allow_worse)
        return report

    def _precision(self, served: ServedGraph) -> Precision:
        return model_precision(served, self.request.precision)

    def _write_configs(self) -> None:
        request = self.request
        host = request.host
        if request.target.name_by_gpu:
            host = replace(host, plan_filenames=plan_filenames(request.repository.root))
        request.repository.write_configs(
            request.target, request.deployment, limits=request.limits, host=host
        )


def target_graphs(request: BuildRequest) -> Mapping[str, ServedGraph]:
    """Every model's graph in the form that the target runs best."""
    return served_graphs(request.deployment, request.target)


def selected_graphs(request: BuildRequest) -> dict[str, ServedGraph]:
    """The graphs of the models that were asked for, in the contract's order."""
    return {
        model: served for model, served in target_graphs(request).items() if model in request.models
    }


def make_recipes(request: BuildRequest, announce: Announce) -> dict[str, dict[str, str]]:
    """Each wanted model's recipe; brings the weights that they need."""
    wanted = selected_graphs(request)
    names = [name for served in wanted.values() for name in served.weights]
    digests = bring_weights(names, accept_licence=request.accept_licence, announce=announce)
    recipes = {}
    for model, served in wanted.items():
        precision = model_precision(served, request.precision)
        more = {} if precision == "fp32" else {"frames": frames_digest(request.frames)}
        if precision in ("int8", "fp8"):
            more["allow worse"] = str(request.allow_worse)
        if request.compile is not None:
            more |= request.compile.recipe(model, request.target)
        recipes[model] = make_recipe(served, digests, precision=precision, more=more)
    return recipes


def refuse_mixed_deployments(request: BuildRequest) -> None:
    """With some models only, those that are there already must fit the same deployment.

    Raises:
        DeploymentError: a model that is left out was built for something else.
    """
    for model, served in target_graphs(request).items():
        manifest = request.repository.manifest(model, request.filename)
        if model in request.models or manifest is None:
            continue
        settings = {name: manifest.recipe.get(name, "unknown") for name in served.settings}
        if settings != dict(served.settings):
            raise DeploymentError(
                f"{model} in {request.repository.root} was built for another deployment "
                f"({differences(settings, served.settings)}): leave --models out"
            )


def make_typist(request: BuildRequest, announce: Announce) -> Typist:
    """What types the graphs of `request`."""
    return Typist(
        request.deployment,
        request.precision,
        request.frames,
        allow_worse=request.allow_worse,
        announce=announce,
    )
