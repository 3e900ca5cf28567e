"""Recognising an instance normalisation, however an exporter wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from networks.editing import (
    constant_array,
    only_user,
    other_input,
    producer,
    rank,
    scalar,
    static_dims,
)


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
