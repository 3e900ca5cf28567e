"""The arithmetic of a float16 graph on a machine without float16: every tensor rounded, explicitly.

ONNX Runtime's CPU provider has few float16 kernels. It computes such nodes in float32 and leaves
out the casts between them, so that a chain of float16 nodes keeps 24 bits where a GPU keeps 11:
comparing a typed graph by simply running it there would flatter it. Here every node computes in
float32, as a GPU accumulates, and its result goes through float16 and back.

Seen with ONNX Runtime 1.32: two float16 convolutions in a row answer 5.044e-4 where rounding in
between gives 4.044e-4 (`tests/engines/test_rounding.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from engines.precision import every_graph, infer_types

_F16 = ir.DataType.FLOAT16
_F32 = ir.DataType.FLOAT
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def with_explicit_rounding(typed: onnx.ModelProto) -> onnx.ModelProto:
    """`typed` with its float16 tensors held in float32 but rounded to float16 values.

    The same inputs and outputs, which must not be float16 themselves. A graph without float16
    comes back with the same meaning.
    """
    model = ir.from_proto(infer_types(typed))
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    for graph in list(every_graph(model.graph)):
        for initializer in list(graph.initializers.values()):
            _widen(initializer)
    for graph in list(every_graph(model.graph)):
        for node in list(graph):
            _round_outputs(graph, node)
    proto = ir.to_proto(model)
    for graph_proto in _graph_protos(proto.graph):
        del graph_proto.value_info[:]
    return proto


def _graph_protos(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graph_protos(attribute.g)


def _widen(initializer: ir.Value) -> None:
    """The same numbers in float32: every float16 value is one."""
    if initializer.dtype != _F16 or initializer.const_value is None:
        return
    array = initializer.const_value.numpy().astype(np.float32)
    initializer.const_value = ir.tensor(array, name=initializer.name)
    initializer.dtype = _F32


def _round_outputs(graph: ir.Graph, node: ir.Node) -> None:
    for value in node.outputs:
        if value.dtype != _F16:
            continue
        uses = list(value.uses())
        places = [index for index, output in enumerate(graph.outputs) if output is value]
        last, rounded = node, value
        if node.op_type in _CONTROL_FLOW:
            value.dtype = _F32  # its branches were rounded inside
            continue
        if node.op_type != "Cast":
            value.dtype = _F32
            last, rounded = _append_cast(graph, node, value, _F16)
        _, widened = _append_cast(graph, last, rounded, _F32)
        for use in uses:
            use.node.replace_input_with(use.idx, widened)
        for place in places:
            graph.outputs[place] = widened


def _append_cast(
    graph: ir.Graph, after: ir.Node, value: ir.Value, dtype: ir.DataType
) -> tuple[ir.Node, ir.Value]:
    name = f"{value.name}/{'rounded' if dtype == _F16 else 'widened'}"
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], name=name)
    cast.outputs[0].name, cast.outputs[0].dtype = name, dtype
    graph.insert_after(after, cast)
    return cast, cast.outputs[0]
