"""Looking only: what a build would do and why, and what a repository's models are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from engines.build import BuildRequest, make_recipes, make_typist, selected_graphs
from engines.cache import PlanCache
from engines.plans import plan_key
from engines.progress import Announce
from engines.recipe import differences
from engines.typed_graphs import model_precision


def preview(request: BuildRequest, announce: Announce) -> Iterator[str]:
    """One sentence per model: whether it would be built, and why."""
    repository, filename = request.repository, request.filename
    for model, recipe in make_recipes(request, announce).items():
        manifest = repository.manifest(model, filename)
        path = repository.file(model, filename)
        if manifest is None:
            reason = f"would be built: there is no {path} that this program built"
        elif dict(manifest.recipe) != recipe:
            reason = f"would be built: {differences(manifest.recipe, recipe)}"
        elif not repository.is_current(model, filename, recipe):
            reason = f"would be built: {path} is missing or was changed since"
        else:
            reason = "unchanged"
        yield f"{model}: {reason}"


def preview_cache(request: BuildRequest, announce: Announce) -> Iterator[str]:
    """One sentence per plan: whether the cache has it, or how its nearest one differs.

    The graphs are authored and typed for it; nothing is compiled.
    """
    settings = request.compile
    if settings is None:
        return
    typist = make_typist(request, announce)
    cache = PlanCache(settings.cache)
    for model, served in selected_graphs(request).items():
        _, key = plan_key(model, typist.type_graph(served), request.target, settings)
        yield cache.nearest(model, key)


def inspect(request: BuildRequest, announce: Announce) -> Iterator[str]:
    """Describe every model asked for, as it would be built, and the file that is there.

    For plans the layers are those that the compiler's parser makes, before fusion: the file itself
    can only be opened on its GPU.
    """
    make_recipes(request, announce)  # brings the weights
    typist = make_typist(request, announce)
    for model, served in selected_graphs(request).items():
        graph = typist.type_graph(served)
        yield f"{model} ({model_precision(served, request.precision)})"
        yield from (f"  {line}" for line in _layers(request, graph))
        manifest = request.repository.manifest(model, request.filename)
        if manifest is None:
            yield f"  not built: {request.repository.file(model, request.filename)}"
            continue
        yield f"  {request.filename}: {manifest.size / 1e6:,.1f} MB, SHA-256 {manifest.sha256}"
        if manifest.memory is not None:
            parts = (f"{name.removesuffix('_bytes')} {size / 2**20:,.0f} MiB"
                     for name, size in vars(manifest.memory).items())  # fmt: skip
            yield f"  GPU memory at the largest shapes: {', '.join(parts)}"
        if manifest.fidelity is not None:
            for name, error in manifest.fidelity["outputs"].items():
                yield f"  {name}: worst {error['worst']:.3g}, mean {error['mean']:.3g} from fp32"


def _layers(request: BuildRequest, graph: onnx.ModelProto) -> Iterator[str]:
    """One line a kind of layer and precision, the most frequent first."""
    if request.compile is None:
        kinds = Counter(f"{node.op_type}" for node in graph.graph.node)
    else:
        data = graph.SerializeToString(deterministic=True)
        layers = request.compile.compiler.layers(data)
        kinds = Counter(f"{layer.kind} {layer.precision}" for layer in layers)
    yield f"{kinds.total()} layers"
    for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:5} {kind}"
