"""One addition behind a pointwise and a depthwise convolution, instead of a bias of each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import Array, NodeInserter, attribute_values, replace, static_dims
from networks.passes.rewriting import (
    convolution_bias,
    convolution_weight,
    depthwise_behind,
    is_constant_convolution,
)

_INSIDE = (slice(1, 3), slice(0, 3), slice(0, 2))
"""Which of three taps see the map: where it begins, in its middle, where it ends."""


def join_separable_biases(model: ir.Model) -> int:
    """Take the biases of 1x1 convolutions and depthwise 3x3 ones behind them, add both at the end.

    ONNX Runtime adds a bias on CUDA by a kernel of its own, a pass over the map each. The depthwise
    part pads what it reads with zeros, so that at the border fewer of its taps see the first bias:
    what is added is a map [1, C, H, W] that differs there. The same sums in another order.
    """
    joined = 0
    for node in list(model.graph):
        depthwise = _depthwise_part(node)
        size = None if depthwise is None else static_dims(depthwise.outputs[0], (2, 3))
        if depthwise is None or size is None or min(size) < 2:
            continue
        inserter = NodeInserter(depthwise)
        value = node.inputs[0]
        for part in (node, depthwise):
            value = inserter.node("Conv", [value, part.inputs[1]], **attribute_values(part))
        biases = inserter.constant(_joined_biases(node, depthwise)[None], "biases")
        for axis, length in zip((2, 3), size, strict=True):
            places = np.ones(length, np.int64)
            places[0], places[-1] = 0, 2
            place = inserter.constant(places, "place")
            biases = inserter.node("Gather", [biases, place], axis=axis)
        replace(depthwise.outputs[0], inserter.node("Add", [value, biases]))
        joined += 1
    return joined


def _depthwise_part(node: ir.Node) -> ir.Node | None:
    """The depthwise 3x3 convolution that alone reads the 1x1 one `node`; None without biases."""
    if not is_constant_convolution(node) or not _is_simple(node, kernel=1, padding=0):
        return None
    behind = depthwise_behind(node)
    if behind is None or not _is_simple(behind, kernel=3, padding=1):
        return None
    has_bias = convolution_bias(node).any() or convolution_bias(behind).any()
    return behind if has_bias else None


def _is_simple(node: ir.Node, *, kernel: int, padding: int) -> bool:
    """Whether a convolution has this kernel and padding, stride 1 and no dilation."""
    values = attribute_values(node)
    return (
        list(convolution_weight(node).shape[2:]) == [kernel, kernel]
        and list(values.get("pads", [0] * 4)) == [padding] * 4
        and all(step == 1 for name in ("strides", "dilations") for step in values.get(name, ()))
    )


def _joined_biases(pointwise: ir.Node, depthwise: ir.Node) -> Array:
    """What both come to, [C, 3, 3]: in the first, a middle, the last row, and columns likewise."""
    taps = convolution_weight(depthwise)[:, 0]
    seen = np.array(
        [[taps[:, rows, columns].sum((1, 2)) for columns in _INSIDE] for rows in _INSIDE]
    )
    first, second = (convolution_bias(node)[:, None, None] for node in (pointwise, depthwise))
    joined: Array = (seen.transpose(2, 0, 1) * first + second).astype(taps.dtype)
    return joined
