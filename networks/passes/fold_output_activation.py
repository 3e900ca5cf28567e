"""tanh(x) / 2 + 1/2 is a sigmoid of 2 x, and the 2 goes into the last convolution."""

from __future__ import annotations

import onnx_ir as ir

from networks.editing import (
    NodeInserter,
    constant_array,
    only_user,
    other_input,
    producer,
    replace,
    scalar,
)


def fold_output_activation(model: ir.Model) -> int:
    """Replace (tanh(conv(x)) + 1) / 2 by sigmoid(conv'(x)), weights and bias doubled.

    Three passes over the image become one; a factor of 2 changes no mantissa, so only the
    activation's own rounding differs.
    """
    folded = 0
    for node in list(model.graph):
        result = _halved(node) if node.op_type == "Tanh" else None
        conv = producer(node.inputs[0], "Conv") if result is not None else None
        if result is None or conv is None or only_user(conv.outputs[0]) is not node:
            continue
        arrays = [constant_array(value) for value in conv.inputs[1:] if value is not None]
        if any(array is None for array in arrays):
            continue
        inserter = NodeInserter(conv)
        for index, array in enumerate(arrays, start=1):
            assert array is not None
            conv.replace_input_with(
                index, inserter.constant(array * array.dtype.type(2), "doubled")
            )
        replace(result, NodeInserter(node).node("Sigmoid", [conv.outputs[0]]))
        folded += 1
    return folded


def _halved(tanh: ir.Node) -> ir.Value | None:
    """The output of (tanh + 1) / 2 or (tanh + 1) * 0.5; None for anything else."""
    add = only_user(tanh.outputs[0])
    if add is None or add.op_type != "Add":
        return None
    if scalar(other_input(add, tanh.outputs[0])) != 1.0:
        return None
    half = only_user(add.outputs[0])
    if half is None:
        return None
    number = scalar(other_input(half, add.outputs[0]))
    divided = half.op_type == "Div" and half.inputs[0] is add.outputs[0] and number == 2.0
    multiplied = half.op_type == "Mul" and number == 0.5
    return half.outputs[0] if divided or multiplied else None
