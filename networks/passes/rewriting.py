"""What several passes need: shapes worked out anew, and convolutions whose weights are constant.

A pass is a function from a model to the number of places it rewrote, in place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from networks.editing import Array, constant_array, known_array, only_user

Pass = Callable[[ir.Model], int]

TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)


def infer_shapes(model: ir.Model) -> None:
    """Work out every shape anew: passes read them, and make values that have none yet.

    Nodes of other domains keep theirs: ONNX infers nothing for them.
    """
    for node in model.graph:
        if node.domain:
            continue
        for value in node.outputs:
            # What an earlier pass widened would contradict its old shape.
            if not value.is_graph_output():
                value.shape = None
    common_passes.ShapeInferencePass(data_prop=True)(model)


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
    return known_array(node.inputs[1])


def convolution_bias(node: ir.Node) -> Array:
    """[O], zeros where there is none; of a convolution whose weight and bias are constant."""
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    weight = convolution_weight(node)
    return np.zeros(len(weight), weight.dtype) if bias is None else bias
