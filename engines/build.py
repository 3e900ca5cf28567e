"""One build of a model repository: resolve, author, type, check, compile, publish.

ONNX Runtime's variants (`cpu`, `cuda`) end with an ONNX file; the TensorRT ones (`tensorrt`,
`rtx`) go on to `engines.plans`. Configs are written last, so that a variant that Triton can pick
always has its files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from engines.deployment import Deployment, DeploymentError
from engines.publish import Repository
from engines.recipe import explain_difference, make_recipe
from engines.resolve_weights import Announce, resolve_weights
from engines.served_graphs import ServedGraph, served_graphs
from engines.variants import MODEL_FILENAMES, HostOptions, Limits, Variant
from graphs import weights

Outcome = Literal["built", "unchanged", "cache hit"]


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What a person asked for.

    models: names out of `MODEL_SPECS`; configs are written for all, whatever is built.
    """

    deployment: Deployment
    target: Variant
    precision: str
    models: tuple[str, ...]
    repository: Repository
    limits: Limits
    host: HostOptions
    accept_licence: bool = False


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """One line of a build. seconds: spent on this model. size: of the published file, bytes."""

    model: str
    precision: str
    seconds: float
    size: int
    outcome: Outcome

    def __str__(self) -> str:
        size = f"{self.size / 1e6:,.1f} MB"
        return (
            f"{self.model:<20} {self.precision:<5} {self.seconds:7.1f} s {size:>12}  {self.outcome}"
        )


def build_onnx(request: BuildRequest, *, announce: Announce) -> Iterator[BuiltModel]:
    """Build the ONNX files of a `cpu` or `cuda` repository, then write its configs.

    Raises:
        EngineError: one sentence; nothing half-written is left behind.
    """
    repository, filename = request.repository, MODEL_FILENAMES[request.target]
    wanted = selected_graphs(request)
    recipes = make_recipes(request, wanted, announce)
    repository.complete()
    refuse_mixed_deployments(request)
    for model, served in wanted.items():
        started = time.perf_counter()
        outcome: Outcome = "unchanged"
        if not repository.is_current(model, filename, recipes[model]):
            graph = served.author(weights.load_network)
            repository.publish(model, filename, onnx_bytes(graph), recipe=recipes[model])
            outcome = "built"
        yield BuiltModel(
            model=model,
            precision=request.precision,
            seconds=time.perf_counter() - started,
            size=repository.file(model, filename).stat().st_size,
            outcome=outcome,
        )
    repository.write_variant(
        request.target, request.deployment, limits=request.limits, host=request.host
    )


def selected_graphs(request: BuildRequest) -> dict[str, ServedGraph]:
    """The graphs of the models that were asked for, in the contract's order."""
    every = target_graphs(request)
    return {model: served for model, served in every.items() if model in request.models}


def target_graphs(request: BuildRequest) -> Mapping[str, ServedGraph]:
    """Every model's graph in the form that the target runs best."""
    return served_graphs(
        request.deployment,
        region_only=request.target == "cpu",
        # NVIDIA's backends hand whole batches to the graph; ours drop empty slots themselves.
        skip_empty=request.target == "tensorrt",
    )


def make_recipes(
    request: BuildRequest, wanted: Mapping[str, ServedGraph], announce: Announce
) -> dict[str, dict[str, str]]:
    """Each wanted model's recipe; brings the weights that they need."""
    names = [name for served in wanted.values() for name in served.weights]
    digests = resolve_weights(names, accept_licence=request.accept_licence, announce=announce)
    return {
        model: make_recipe(served, digests, precision=request.precision)
        for model, served in wanted.items()
    }


def refuse_mixed_deployments(request: BuildRequest) -> None:
    """With some models only, those that are there already must fit the same deployment.

    Raises:
        DeploymentError: a model that is left out was built for something else.
    """
    filename = MODEL_FILENAMES[request.target]
    for model, served in target_graphs(request).items():
        if model in request.models:
            continue
        record = request.repository.record(model, filename)
        if record is None:
            continue
        settings = {name: record.recipe.get(name, "unknown") for name in served.settings}
        if settings != dict(served.settings):
            raise DeploymentError(
                f"{model} in {request.repository.root} was built for another deployment "
                f"({explain_difference(settings, served.settings)}): leave --models out"
            )


def explain(request: BuildRequest, *, announce: Announce) -> Iterator[str]:
    """One sentence a model: whether it would be built, and why."""
    filename = MODEL_FILENAMES[request.target]
    wanted = selected_graphs(request)
    for model, recipe in make_recipes(request, wanted, announce).items():
        yield f"{model}: {explain_model(request.repository, model, filename, recipe)}"


def explain_model(
    repository: Repository, model: str, filename: str, recipe: Mapping[str, str]
) -> str:
    """Why the file of one model would be built, or that it would not."""
    record = repository.record(model, filename)
    if record is None:
        return f"would be built, because {repository.file(model, filename)} has no record"
    if dict(record.recipe) != dict(recipe):
        return f"would be built, because {explain_difference(record.recipe, recipe)}"
    if not repository.is_current(model, filename, recipe):
        return "would be built, because the file is missing or was changed since"
    return "unchanged"


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """`model` serialised, the same bytes for the same model."""
    return model.SerializeToString(deterministic=True)


