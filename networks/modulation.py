"""StyleGAN2's modulated convolutions, as GFPGAN and GPEN have them, made to take a batch.

They are exported for one picture as a convolution whose weight is computed: the trained weight
times a style for each input channel, and, where it is demodulated, times a factor for each output
channel that makes the whole unit length. A weight that differs from picture to picture is none that
a convolution of a batch could have. But a factor of an input channel may as well scale the input,
and one of an output channel the output: that is done here, and the convolution keeps the trained
weight alone. The factor's own sum of squares over every weight becomes a matrix product.

Source: T. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020,
section 2.2 and equations 1 to 3; the form is that of an export of GFPGAN 1.3 by PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from networks.editing import (
    Array,
    NodeInserter,
    attribute_values,
    constant_array,
    producer,
    replace,
    static_dims,
)
from networks.opset import to_project_opset

_WEIGHT_AXES = 5
"""[1, O, I, k, k]."""


@dataclass(frozen=True)
class _Modulated:
    """A weight: the trained one [O, I, k, k], and factors [1, 1, I, 1, 1] and [1, O, 1, 1, 1]."""

    trained: Array
    styles: tuple[ir.Value, ...]
    demodulations: tuple[ir.Value, ...]


def split_modulation(network: onnx.ModelProto) -> onnx.ModelProto:
    """`network` without convolutions of computed weights, where they are modulated ones.

    Others stay as they are. A network without any comes back in this project's opset.

    Args:
        network: exported for one picture, shapes known; not changed.
    """
    model = ir.from_proto(to_project_opset(network))
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common_passes.ShapeInferencePass(data_prop=True)(model)
    for node in list(model.graph):
        if node.op_type == "Conv" and constant_array(node.inputs[1]) is None:
            weight = _read_weight(node)
            if weight is not None:
                _split(node, weight)
    common_passes.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _read_weight(node: ir.Node) -> _Modulated | None:
    """What a convolution's weight is made of; None for another form."""
    if node.attributes.get_int("group", 1) != 1:
        return None
    reshape = producer(node.inputs[1], "Reshape")
    value = node.inputs[1] if reshape is None else reshape.inputs[0]
    trained: Array | None = None
    styles, demodulations = [], []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        known = constant_array(part)
        if known is not None and known.ndim == _WEIGHT_AXES and trained is None:
            trained = known[0]
            continue
        # A factor may be a product itself: what has one long axis is one.
        axis = None if part is None else _long_axis(part)
        if part is not None and axis == 2:
            styles.append(part)
        elif part is not None and axis == 1:
            demodulations.append(part)
        else:
            product = producer(part, "Mul")
            if product is None:
                return None
            waiting += product.inputs
    if trained is None or not styles:
        return None
    return _Modulated(trained, tuple(styles), tuple(demodulations))


def _long_axis(value: ir.Value) -> int | None:
    """The one axis of five that is longer than 1."""
    dims = static_dims(value, range(_WEIGHT_AXES))
    if dims is None or value.shape is None or len(value.shape) != _WEIGHT_AXES:
        return None
    long = [axis for axis, size in enumerate(dims) if size != 1]
    return long[0] if len(long) == 1 else None


def _split(node: ir.Node, weight: _Modulated) -> None:
    """Move the factors of a weight to the convolution's input and output."""
    before = NodeInserter(node)
    made, taken = weight.trained.shape[:2]
    x = node.inputs[0]
    assert x is not None
    for style in weight.styles:
        x = before.node("Mul", [x, before.reshape(style, 1, taken, 1, 1)])
    if len(weight.styles) == 1:
        _sum_squares_by_product(before, weight)
    kernel = before.constant(np.ascontiguousarray(weight.trained), "trained", like=x)
    inputs: list[ir.Value | None] = [x, kernel]
    result = before.node("Conv", inputs, **attribute_values(node))
    for factor in weight.demodulations:
        result = before.node("Mul", [result, before.reshape(factor, 1, made, 1, 1)])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = before.node("Add", [result, before.reshape(node.inputs[2], 1, made, 1, 1)])
    replace(node.outputs[0], result)


def _sum_squares_by_product(before: NodeInserter, weight: _Modulated) -> None:
    """The sum of squares of trained weight times style, without making that product.

    Sum over i and pixels of (w_oi s_i)^2 is the product of s^2 and the sums of w_oi^2.
    """
    (style,) = weight.styles
    made, taken = weight.trained.shape[:2]
    energy = (weight.trained.astype(np.float64) ** 2).sum(axis=(2, 3)).T.astype(np.float32)
    for use in list(style.uses()):
        if use.node.op_type != "Mul" or not _is_trained(use.node, weight.trained):
            continue
        for total in _sums_of_squares(use.node.outputs[0]):
            anchor = NodeInserter(total)
            flat = anchor.reshape(style, 1, taken)
            squared = anchor.node("Mul", [flat, flat])
            found = anchor.node("MatMul", [squared, anchor.constant(energy, "energy")])
            dims = [1, made] if not total.attributes.get_int("keepdims", 1) else [1, made, 1, 1, 1]
            shaped = anchor.reshape(found, *dims)
            replace(total.outputs[0], shaped)


def _is_trained(product: ir.Node, trained: Array) -> bool:
    arrays = [constant_array(value) for value in product.inputs]
    return any(array is not None and array.shape == (1, *trained.shape) for array in arrays)


def _sums_of_squares(value: ir.Value) -> list[ir.Node]:
    """ReduceSum nodes over all but the output channels of the squares of `value`."""
    found = []
    # a square by product reads it twice
    for node in dict.fromkeys(use.node for use in value.uses()):
        power = constant_array(node.inputs[1]) if node.op_type == "Pow" else None
        squared = (power is not None and np.all(power == 2)) or (
            node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
        )
        if not squared:
            continue
        for reading in node.outputs[0].uses():
            axes = constant_array(reading.node.inputs[1]) if len(reading.node.inputs) > 1 else None
            if (
                reading.node.op_type == "ReduceSum"
                and axes is not None
                and sorted(int(axis) % _WEIGHT_AXES for axis in axes) == [2, 3, 4]
            ):
                found.append(reading.node)
    return found
