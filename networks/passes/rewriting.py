"""What every pass needs: reading constants, inserting nodes, recognising an instance normalisation.

A pass is a function from a model to the number of places it rewrote, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

Array = npt.NDArray[Any]
Pass = Callable[[ir.Model], int]

TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)


def infer_shapes(model: ir.Model) -> None:
    """Work out every shape anew: passes read them, and make values that have none yet."""
    for node in model.graph:
        for value in node.outputs:
            # What an earlier pass widened would contradict its old shape.
            if not value.is_graph_output():
                value.shape = None
    common_passes.ShapeInferencePass(data_prop=True)(model)


class NodeInserter:
    """Puts nodes and initializers in front of `anchor`, named after it."""

    def __init__(self, anchor: ir.Node) -> None:
        assert isinstance(anchor.graph, ir.Graph)
        self.graph = anchor.graph
        self._anchor = anchor
        self._count = 0

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int = 1, **attributes: Any
    ) -> ir.Value:
        """The first output of a new node."""
        return self.nodes(op_type, inputs, outputs, **attributes)[0]

    def nodes(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> list[ir.Value]:
        """All outputs of a new node; they have the type of its first input, or a Cast's own."""
        name = self._name(op_type)
        made = ir.node(op_type, inputs, attributes, num_outputs=outputs, name=name)
        first = inputs[0]
        kind = None if first is None else first.type
        if op_type == "Cast":
            kind = ir.TensorType(ir.DataType(attributes["to"]))
        for index, value in enumerate(made.outputs):
            value.name = f"{name}/output_{index}"
            value.type = kind
        self.graph.insert_before(self._anchor, made)
        return list(made.outputs)

    def constant(
        self, array: npt.ArrayLike, label: str, *, like: ir.Value | None = None
    ) -> ir.Value:
        """A new initializer, of the element type of `like` where that is given."""
        values = np.asarray(array)
        if like is not None and like.dtype is not None:
            values = values.astype(like.dtype.numpy())
        name = self._name(label)
        value = ir.Value(
            name=name,
            shape=ir.Shape(values.shape),
            type=ir.TensorType(ir.DataType.from_numpy(values.dtype)),
            const_value=ir.tensor(values, name=name),
        )
        self.graph.register_initializer(value)
        return value

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        return self.node("Reshape", [value, self.constant(np.array(shape, np.int64), "shape")])

    def cast(self, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        return self.node("Cast", [value], to=dtype)

    def transpose(self, value: ir.Value, permutation: Sequence[int]) -> ir.Value:
        return self.node("Transpose", [value], perm=list(permutation))

    def _name(self, label: str) -> str:
        self._count += 1
        # Nodes need no name; their outputs have one.
        return f"{self._anchor.name or self._anchor.outputs[0].name}/{label}_{self._count}"


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let everything that reads `old` read `new`; a graph output keeps its name."""
    if old.is_graph_output():
        name, old.name = old.name, f"{old.name}/replaced"
        new.name = name
        new.shape = old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def constant_array(value: ir.Value | None) -> Array | None:
    """The numbers of an initializer; None for anything else."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as `NodeInserter.node` takes them."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def is_constant_convolution(node: ir.Node) -> bool:
    """Whether it is a convolution whose weight, and bias where there is one, are constant."""
    given = (operand for operand in node.inputs[1:] if operand is not None)
    return node.op_type == "Conv" and all(constant_array(operand) is not None for operand in given)


def depthwise_behind(node: ir.Node) -> ir.Node | None:
    """The constant depthwise convolution that alone reads the constant convolution `node`."""
    user = only_user(node.outputs[0])
    if user is None or not is_constant_convolution(user) or user.inputs[0] is not node.outputs[0]:
        return None
    channels = len(convolution_weight(node))
    groups = user.attributes.get_int("group", 1)
    return user if groups == channels == len(convolution_weight(user)) else None


def convolution_weight(node: ir.Node) -> Array:
    """Of a convolution whose weight is constant."""
    weight = constant_array(node.inputs[1])
    assert weight is not None
    return weight


def convolution_bias(node: ir.Node) -> Array:
    """[O], zeros where there is none; of a convolution whose weight and bias are constant."""
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    weight = convolution_weight(node)
    return np.zeros(len(weight), weight.dtype) if bias is None else bias


def scalar(value: ir.Value | None) -> float | None:
    """The number of a constant of one element; None for anything else."""
    array = constant_array(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def static_dims(value: ir.Value, axes: Sequence[int]) -> list[int] | None:
    """The value's sizes along `axes`; None where one of them is not there or not fixed."""
    if value.shape is None or len(value.shape) <= max(axes, default=0):
        return None
    dims = [dim for axis in axes if isinstance(dim := value.shape[axis], int)]
    return dims if len(dims) == len(axes) else None


def rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes `value`, if it is an `op_type`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, once; None where there are more, or it is an output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The operand of a two-operand node that is not `value`."""
    first, second = node.inputs
    return second if first is value else first


@dataclass(frozen=True)
class InstanceNorm:
    """A normalisation over the pixels of each channel, and the scale and shift behind it.

    source: [B, C, H, W], what is normalised.
    epsilon: added to the variance.
    scale, shift: [B or 1, C, 1, 1] each; None where there is none.
    result: the value that a rewrite replaces.
    """

    source: ir.Value
    epsilon: float
    scale: ir.Value | None
    shift: ir.Value | None
    result: ir.Value


def find_instance_norms(graph: ir.Graph) -> Iterator[InstanceNorm]:
    """Every instance normalisation of `graph`, written out or as one operator, in order."""
    for node in list(graph):
        found = _match_written_out(node) or _match_operator(node)
        if found is not None:
            yield _with_style(found)


def _match_operator(node: ir.Node) -> InstanceNorm | None:
    """InstanceNormalization with scale 1 and shift 0: the style comes behind it."""
    if node.op_type != "InstanceNormalization":
        return None
    scale, shift = constant_array(node.inputs[1]), constant_array(node.inputs[2])
    if scale is None or shift is None or (scale != 1).any() or (shift != 0).any():
        return None
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    assert node.inputs[0] is not None
    return InstanceNorm(node.inputs[0], epsilon, None, None, node.outputs[0])


def _match_written_out(root: ir.Node) -> InstanceNorm | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon), the division in any of three spellings."""
    if root.op_type != "Sqrt":
        return None
    shifted = producer(root.inputs[0], "Add")
    if shifted is None:
        return None
    for variance, epsilon in (shifted.inputs, shifted.inputs[::-1]):
        mean = producer(variance, "ReduceMean")
        number = scalar(epsilon)
        if mean is None or number is None or not _over_pixels(mean):
            continue
        centred = _squared(mean.inputs[0])
        source = None if centred is None else _centred_source(centred)
        normalized = None if centred is None else _normalized(centred, root.outputs[0])
        if source is not None and normalized is not None:
            return InstanceNorm(source, number, None, None, normalized)
    return None


def _over_pixels(reduction: ir.Node) -> bool:
    """Whether a reduction of [B, C, H, W] is over H and W, which stay as axes of size 1."""
    axes = constant_array(reduction.inputs[1]) if len(reduction.inputs) > 1 else None
    if axes is None or not reduction.attributes.get_int("keepdims", 1):
        return False
    return sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [2, 3]


def _squared(value: ir.Value | None) -> ir.Value | None:
    product = producer(value, "Mul")
    if product is not None and product.inputs[0] is product.inputs[1]:
        return product.inputs[0]
    power = producer(value, "Pow")
    if power is not None and scalar(power.inputs[1]) == 2.0:
        return power.inputs[0]
    return None


def _centred_source(centred: ir.Value) -> ir.Value | None:
    difference = producer(centred, "Sub")
    if difference is None:
        return None
    source, mean = difference.inputs[0], producer(difference.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is not source or not _over_pixels(mean):
        return None
    return source


def _normalized(centred: ir.Value, deviation: ir.Value) -> ir.Value | None:
    """centred / deviation, or centred * (1 / deviation), or centred * Reciprocal(deviation)."""
    for use in deviation.uses():
        node = use.node
        if node.op_type == "Div" and node.inputs[0] is centred:
            return node.outputs[0]
        inverted = node.op_type == "Reciprocal" or (
            node.op_type == "Div" and scalar(node.inputs[0]) == 1.0
        )
        product = only_user(node.outputs[0]) if inverted else None
        if product is None or product.op_type != "Mul":
            continue
        if other_input(product, node.outputs[0]) is centred:
            return product.outputs[0]
    return None


def _with_style(norm: InstanceNorm) -> InstanceNorm:
    """Take in the scale, then the shift, that follow."""
    scale, result = _style_operand(norm.result, "Mul")
    shift, result = _style_operand(result, "Add")
    return InstanceNorm(norm.source, norm.epsilon, scale, shift, result)


def _style_operand(value: ir.Value, op_type: str) -> tuple[ir.Value | None, ir.Value]:
    """The per-channel operand of the one node that reads `value`, and that node's output."""
    user = only_user(value)
    if user is None or user.op_type != op_type:
        return None, value
    operand = other_input(user, value)
    if operand is None or operand is value or rank(operand) != 4:
        return None, value
    if static_dims(operand, (1, 2, 3)) != [*(static_dims(value, (1,)) or [0]), 1, 1]:
        return None, value
    return operand, user.outputs[0]
