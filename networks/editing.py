"""Editing an onnx_ir graph: constants, new nodes, and who makes and who reads a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer of `graph`, of the array's own dtype and shape."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


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
        return add_initializer(self.graph, self._name(label), values)

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


def known_array(value: ir.Value | None) -> Array:
    """The numbers of a value that is known to be an initializer."""
    array = constant_array(value)
    assert array is not None, f"{value} has no constant numbers"
    return array


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as `NodeInserter.node` takes them."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


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
