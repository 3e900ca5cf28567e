"""Following the batch axis of a network through its graph, for `networks.batching`.

Every value that depends on an input has its batch somewhere. A rule, one per operator
(`networks.batch_rules`), says where it is in a node's outputs, and rewrites the node's constants
where they say 1 and mean the batch. Shapes that rules read are those of the network for one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from networks.editing import Array, add_initializer, constant_array


@dataclass(frozen=True)
class BatchAxis:
    """Where a value's batch is.

    position: index of the batch axis, in the shape for one image.
    lifted: the shape for one image has no batch axis left (the exporter folded it away); the free
        network has one more axis, the batch, in front. position is 0 then.
    """

    position: int
    lifted: bool = False


class BatchTracker:
    """Follows the batch axis through a graph, node by node, in topological order.

    Args:
        rules: by operator of ONNX's own domain.

    Raises:
        ValueError: from `visit`, where no rule keeps the images of a batch apart.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self.axes: dict[ir.Value, BatchAxis] = {}
        self._shapes: dict[ir.Value, list[int]] = {}

    def visit(self, node: ir.Node) -> None:
        """Record the batch axis of the node's outputs, rewriting the node where it must."""
        if not any(value in self.axes for value in node.inputs if value is not None):
            return
        rule = self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise refusal(node, "there is no rule for this operator")
        outputs = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        for value in outputs:
            self._shapes[value] = self.static_shape(value)
        axis = rule(self, node)
        for value in outputs:
            self.axes[value] = axis

    def static_shape(self, value: ir.Value | None) -> list[int]:
        """The value's shape for one image."""
        assert value is not None
        if value in self._shapes:
            return self._shapes[value]
        if value.shape is None or not value.shape.is_static():
            producer = value.producer()
            made_by = f"node {producer.name} ({producer.op_type})" if producer else "the network"
            raise ValueError(f"the shape of {value.name}, made by {made_by}, cannot be inferred")
        return [int(dim) for dim in value.shape.numpy()]

    def plain_axis(self, node: ir.Node, index: int = 0) -> int:
        """Batch position of input `index`, which must not be lifted."""
        value = node.inputs[index]
        axis = self.axes.get(value) if value is not None else None
        if axis is None:
            raise refusal(node, f"its input {index} must depend on the batch")
        if axis.lifted:
            raise refusal(node, "the batch axis of its input was folded away before it")
        return axis.position


Rule = Callable[[BatchTracker, ir.Node], BatchAxis]
"""Where the batch is in a node's outputs. May rewrite the node, and raises `refusal`."""


def refusal(node: ir.Node, reason: str) -> ValueError:
    """Why a network cannot be given a free batch, for the user."""
    return ValueError(f"node {node.name} ({node.op_type}) cannot be given a free batch: {reason}")


def count_from_front(axis: int, rank: int) -> int:
    """`axis` without a minus sign."""
    return axis + rank if axis < 0 else axis


def constant_input(node: ir.Node, index: int, what: str) -> Array:
    """The numbers of input `index`, which must be constant; `what` says what they are."""
    array = constant_array(node.inputs[index] if index < len(node.inputs) else None)
    if array is None:
        raise refusal(node, f"its {what} is not a constant")
    return array


def set_constant_input(node: ir.Node, index: int, array: Array) -> None:
    """Feed the node `array`, in a fresh initializer: the old one may have other users."""
    before = constant_array(node.inputs[index])
    if before is not None and before.dtype == array.dtype and np.array_equal(before, array):
        return
    assert node.graph is not None
    name = f"{node.outputs[0].name}/{node.op_type}_{index}"
    while name in node.graph.initializers:
        name += "'"
    node.replace_input_with(index, add_initializer(node.graph, name, array))
