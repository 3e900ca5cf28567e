"""Precision as a property of the graph: the network in float16, everything around it in float32.

TensorRT 11 has no precision flags any more, and TensorRT 10 and TensorRT-RTX take strongly typed
networks: what a tensor's type says is what runs. So the typing is done here, once, and the same
typed graph is verified with ONNX Runtime and compiled.

Only nodes whose name starts with `network/` (`graphs.authoring.GraphAuthor.embed`) are typed;
geometry, coordinates, pixel arithmetic and the I/O contract stay float32. Inside the network:

    statistic   reductions, what feeds them by squaring, what is made of them alone (epsilon, root,
                reciprocal), and arithmetic on shapes: float32 throughout. inswapper's epsilon of
                1e-8 is 0 in float16, and the square of 300 is infinite.
    mixed       computed in float32, the result rounded to float16: where a statistic meets a
                feature map, normalisations, exponentials, roots, powers.
    feature     float16 in and out: convolutions, matrix products, additions, resizes and so on
                (which accumulate in float32 on a GPU).

Source: TensorRT documentation, "Strongly Typed Networks" and "Working with Transformers" (why
normalisations want float32).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from engines.errors import PrecisionError
from networks.editing import add_initializer, known_array

Precision = Literal["fp32", "fp16", "int8", "fp8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8", "fp8")

NETWORK_PREFIX: Final = "network/"

_F16: Final = ir.DataType.FLOAT16
_F32: Final = ir.DataType.FLOAT
_LARGEST: Final = float(np.finfo(np.float16).max)

Kind = Literal["statistic", "mixed", "feature", "untouched"]

# GlobalAveragePool is how some exporters write a mean over a feature map.
_REDUCTIONS: Final = frozenset(
    {
        "CumSum", "GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
        "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    }
)  # fmt: skip
_FLOAT32_OPERATORS: Final = frozenset(
    {
        "BatchNormalization", "Exp", "GridSample", "GroupNormalization", "InstanceNormalization",
        "LRN", "LayerNormalization", "Log", "LogSoftmax", "LpNormalization",
        "MeanVarianceNormalization", "Pow", "Reciprocal", "Softmax", "Softplus", "Sqrt",
    }
)  # fmt: skip
_ELEMENTWISE: Final = frozenset(
    {
        "Abs", "Add", "Ceil", "Clip", "Div", "Exp", "Floor", "Identity", "Log", "Max", "Min",
        "Mul", "Neg", "Pow", "Reciprocal", "Round", "Sigmoid", "Sqrt", "Sub", "Sum", "Tanh",
        "Where",
    }
)  # fmt: skip
# They move a statistic without changing it.
_VIEWS: Final = frozenset(
    {
        "Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# Their float values come from shapes or control flow; nothing is gained by narrowing them.
_UNTYPED: Final = frozenset({"ConstantOfShape", "EyeLike", "If", "Loop", "Range", "Scan"})
# They read a shape, whatever the element type.
_SHAPE_READERS: Final = frozenset({"Shape", "Size"})
# Inputs that stay float32 beside a float16 tensor. Source: ONNX operators' type constraints.
_FLOAT32_INPUTS: Final = MappingProxyType(
    {"Resize": frozenset({1, 2}), "Upsample": frozenset({1}), "Dropout": frozenset({1})}
)


def to_fp16(model: onnx.ModelProto, *, prefix: str = NETWORK_PREFIX) -> onnx.ModelProto:
    """`model` with its network in float16; the same inputs and outputs by name and type.

    Args:
        model: a float32 graph; not changed. A part that is float16 already stays as it is.
        prefix: start of the names of the nodes to type; "" types a bare network, whose inputs and
            outputs stay float32.

    Raises:
        PrecisionError: a weight is too large for float16, or no node has the prefix.
    """
    typed = ir.from_proto(infer_types(model))
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True)(typed)
    regions = [_Region(graph, prefix) for graph in every_graph(typed.graph)]
    if not any(region.nodes for region in regions):
        raise PrecisionError(
            f"the graph has no node named {prefix}*: there is no network in it to type"
        )
    for region in regions:
        region.convert()
    common_passes.RemoveUnusedNodesPass()(typed)
    # The types written above are declarations; a wrong one does not survive this.
    proto = infer_types(ir.to_proto(typed))
    onnx.checker.check_model(proto, full_check=False)
    return proto


def infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the types of its values worked out and checked.

    Raises:
        PrecisionError: a node's types do not fit; the sentence names it.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise PrecisionError(f"the graph's types do not fit together: {reason}") from error


def every_graph(graph: ir.Graph) -> Iterator[ir.Graph]:
    """`graph` and every body inside it."""
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from every_graph(attribute.as_graph())


class _Region:
    """The network's nodes in one graph or body, and the casts at its seams."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self.nodes = [node for node in graph if (node.name or "").startswith(prefix)]
        # float32 value of the untyped graph -> the same in float16 / rounded, in float32.
        self._half: dict[ir.Value, ir.Value] = {}
        self._full: dict[ir.Value, ir.Value] = {}
        self._statistics: set[ir.Value] = set()

    def convert(self) -> None:
        """Type every node of the region, then give the rest of the graph its float32 back."""
        _fold_batch_normalizations(self.graph, self.nodes)
        members = set(self.nodes)
        features = []
        for node in self.nodes:
            kind = self._classify(node)
            if kind != "untouched" and node.op_type not in _SHAPE_READERS:
                self._type_inputs(node, kind)
            floats = [value for value in node.outputs if value.dtype == _F32]
            if kind == "statistic":
                self._statistics.update(floats)
            elif kind == "mixed":
                for value in floats:
                    self._half[value] = self._insert_cast(value, _F16)
                    self._full[value] = self._insert_cast(self._half[value], _F32)
            elif kind == "feature":
                features += floats
                for value in floats:
                    value.dtype = _F16
                    self._half[value] = value
        for value in features:
            self._restore_outside(value, members)

    def _classify(self, node: ir.Node) -> Kind:
        operator = node.op_type
        floats = [value for value in node.inputs if value is not None and self._is_float(value)]
        outputs = [value for value in node.outputs if value.dtype == _F32]
        if operator == "Constant":
            return "untouched"
        foreign = node.domain not in ("", "ai.onnx") and operator not in _FLOAT32_OPERATORS
        if foreign or operator in _UNTYPED:
            self._statistics.update(outputs)
            return "untouched"
        if not outputs:
            return "statistic" if floats else "untouched"
        if operator == "Cast" or operator in _REDUCTIONS:
            return "statistic"
        moving = [value for value in floats if not _is_constant(value)]
        settled = [value for value in moving if value in self._statistics]
        follows = operator in _ELEMENTWISE or operator in _VIEWS
        if follows and moving and len(settled) == len(moving):
            return "statistic"
        if operator in _ELEMENTWISE and _only_reduced(node):
            return "statistic"
        if operator in _FLOAT32_OPERATORS or (operator in _ELEMENTWISE and settled):
            return "mixed"
        return "feature"

    def _is_float(self, value: ir.Value) -> bool:
        """Whether `value` was float32 in the untyped graph."""
        return value.dtype == _F32 or value in self._half

    def _type_inputs(self, node: ir.Node, kind: Kind) -> None:
        wide = _FLOAT32_INPUTS.get(node.op_type, frozenset())
        for index, value in enumerate(node.inputs):
            if value is None or not self._is_float(value):
                continue
            narrow = kind == "feature" and index not in wide
            node.replace_input_with(index, self._as_half(value) if narrow else self._as_full(value))

    def _as_half(self, value: ir.Value) -> ir.Value:
        if value not in self._half:
            if value.const_value is not None and value.is_initializer():
                self._half[value] = _half_initializer(value)
            else:
                self._half[value] = self._insert_cast(value, _F16)
        return self._half[value]

    def _as_full(self, value: ir.Value) -> ir.Value:
        if value.dtype == _F32 and value not in self._full:
            return value
        if value not in self._full:
            self._full[value] = self._insert_cast(value, _F32)
        return self._full[value]

    def _insert_cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A Cast of `value` right after the node that makes it, or first of all."""
        name = f"{value.name}/{'float16' if dtype == _F16 else 'float32'}"
        cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], name=f"{name}/Cast")
        output = cast.outputs[0]
        output.name, output.dtype, output.shape = name, dtype, value.shape
        producer = value.producer()
        if producer is not None and producer.graph is self.graph:
            self.graph.insert_after(producer, cast)
        else:
            self.graph.insert_before(self.graph[0], cast)
        return output

    def _restore_outside(self, value: ir.Value, members: set[ir.Node]) -> None:
        """Feed everything outside the region, and the graph's own output, the float32 value."""
        cast_node = self._full[value].producer() if value in self._full else None
        for use in list(value.uses()):
            if use.node not in members and use.node is not cast_node:
                use.node.replace_input_with(use.idx, self._as_full(value))
        if not value.is_graph_output():
            return
        full = self._as_full(value)
        name, value.name = value.name, f"{value.name}/float16"
        full.name = name
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = full


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _only_reduced(node: ir.Node) -> bool:
    """Whether reductions alone read what `node` makes: the squares of a variance."""
    uses = list(node.outputs[0].uses())
    return bool(uses) and all(use.node.op_type in _REDUCTIONS for use in uses)


def _half_initializer(value: ir.Value) -> ir.Value:
    """A float16 copy of a float32 initializer, beside it in the same graph."""
    array = known_array(value)
    # Infinities and NaN are meant: they are the same in float16.
    largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
    if largest > _LARGEST:
        raise PrecisionError(
            f"the weight {value.name} reaches {largest:.3g}, but float16 ends at "
            f"{_LARGEST:.0f}: build this swapper with --precision fp32"
        )
    assert value.graph is not None
    return add_initializer(value.graph, f"{value.name}/float16", array.astype(np.float16))


def _fold_batch_normalizations(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Put each batch normalisation into the convolution before it, in float64.

    Its mean and the convolution's output may be large and cancel: in float16 that must not be
    rounded in between. One that follows something else stays in float32 (`_FLOAT32_OPERATORS`).
    """
    for node in list(nodes):
        if node.op_type != "BatchNormalization" or len(node.outputs) != 1:
            continue
        convolution = node.inputs[0].producer() if node.inputs[0] is not None else None
        if convolution is None or convolution.op_type != "Conv" or convolution not in nodes:
            continue
        made = convolution.outputs[0]
        parameters = [*convolution.inputs[1:], *node.inputs[1:]]
        if any(value is None or value.const_value is None for value in parameters):
            continue
        if len(list(made.uses())) != 1 or made.is_graph_output():
            continue
        _fold_into_convolution(convolution, node)
        output = node.outputs[0]
        if output.is_graph_output():
            for index, value in enumerate(graph.outputs):
                if value is output:
                    graph.outputs[index] = made
            made.name, output.name = output.name, made.name
        ir.convenience.replace_all_uses_with(output, made)
        graph.remove(node, safe=True)
        nodes.remove(node)


def _fold_into_convolution(convolution: ir.Node, normalization: ir.Node) -> None:
    """w' = w * g, b' = (b - mean) * g + beta, with g = gamma / sqrt(variance + epsilon)."""
    gamma, beta, mean, variance = (
        known_array(value).astype(np.float64) for value in normalization.inputs[1:5]
    )
    epsilon = normalization.attributes.get_float("epsilon", 1e-5)
    gain = gamma / np.sqrt(variance + epsilon)
    weight = known_array(convolution.inputs[1]).astype(np.float64)
    bias = np.zeros(len(gain))
    if len(convolution.inputs) > 2:
        bias = known_array(convolution.inputs[2]).astype(np.float64)
    folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    graph = convolution.graph
    assert graph is not None
    values = []
    for part, array in (("weight", folded), ("bias", (bias - mean) * gain + beta)):
        name = f"{normalization.name}/{part}"
        values.append(add_initializer(graph, name, array.astype(np.float32)))
    convolution.resize_inputs(3)
    convolution.replace_input_with(1, values[0])
    convolution.replace_input_with(2, values[1])
