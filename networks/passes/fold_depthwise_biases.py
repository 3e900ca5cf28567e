"""A depthwise convolution's bias through the pointwise one behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, attribute_values, only_user, replace
from networks.passes.rewriting import (
    convolution_bias,
    convolution_weight,
    is_constant_convolution,
)


def fold_depthwise_biases(model: ir.Model) -> int:
    """Conv(1x1) of a depthwise Conv, with both biases in the second: the same but for rounding.

    Nothing is between the two and the pointwise one pads nothing, so that the first one's bias goes
    through the second's weights. ONNX Runtime adds a bias on CUDA by a kernel of its own. (One
    dense convolution for both is slower there: its kernels want another layout.)
    """
    folded = 0
    for node in list(model.graph):
        pointwise = _pointwise_behind(node)
        if pointwise is None or not convolution_bias(node).any():
            continue
        inserter = NodeInserter(pointwise)
        mix = convolution_weight(pointwise)
        through = mix[:, :, 0, 0].astype(np.float64) @ convolution_bias(node)
        bias = (through + convolution_bias(pointwise)).astype(mix.dtype)
        plain = inserter.node("Conv", list(node.inputs[:2]), **attribute_values(node))
        made = inserter.node(
            "Conv",
            [plain, pointwise.inputs[1], inserter.constant(bias, "bias")],
            **attribute_values(pointwise),
        )
        replace(pointwise.outputs[0], made)
        folded += 1
    return folded


def _pointwise_behind(node: ir.Node) -> ir.Node | None:
    """The constant 1x1 convolution that alone reads the constant depthwise one `node`."""
    if not is_constant_convolution(node):
        return None
    groups = node.attributes.get_int("group", 1)
    if groups == 1 or groups != len(convolution_weight(node)):
        return None
    user = only_user(node.outputs[0])
    if user is None or not is_constant_convolution(user) or user.inputs[0] is not node.outputs[0]:
        return None
    plain = convolution_weight(user).shape[2:] == (1, 1)
    plain &= user.attributes.get_int("group", 1) == 1
    plain &= set(user.attributes.get_ints("strides", [1])) == {1}
    plain &= set(user.attributes.get_ints("pads", [0])) == {0}
    return user if plain else None
