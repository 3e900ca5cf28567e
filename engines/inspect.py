"""What a repository's models are made of: layers, precisions, sizes, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import onnx

from engines.build import BuildRequest, make_recipes, make_typist, selected_graphs
from engines.typed_graphs import model_precision


def inspect(request: BuildRequest, announce: Callable[[str], None]) -> Iterator[str]:
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
        record = request.repository.record(model, request.filename)
        if record is None:
            yield f"  not built: {request.repository.file(model, request.filename)}"
            continue
        yield f"  {request.filename}: {record.size / 1e6:,.1f} MB, SHA-256 {record.sha256}"
        memory = record.facts.get("memory")
        if memory is not None:
            parts = (f"{name.removesuffix('_bytes')} {size / 2**20:,.0f} MiB"
                     for name, size in memory.items())  # fmt: skip
            yield f"  GPU memory at the largest shapes: {', '.join(parts)}"
        fidelity = record.facts.get("fidelity")
        if fidelity is not None:
            for name, error in fidelity["outputs"].items():
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
