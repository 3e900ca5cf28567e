"""Plain fp32 networks from OpenCV Zoo's block-quantised "int8bq" files.

Those files hold each weight as int8 blocks with a scale and a zero point a block; ONNX Runtime
refuses them (its DequantizeLinear wants `block_size` 0 for per-tensor scales, and SFace still lists
its quantised weights as graph inputs), and TensorRT has no block of 9. Unpacked once, the same
numbers are ordinary initializers and every runtime reads them.

Source: ONNX operator DequantizeLinear, opset 21 (blocked dequantisation):
y[i] = (x[i] - x_zero_point[i // block_size]) * x_scale[i // block_size] along `axis`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from graphs.contract import IR_VERSION, OPSET

Array = npt.NDArray[np.generic]


def dequantize(network: onnx.ModelProto) -> onnx.ModelProto:
    """The fp32 network, in this project's opset, with a free batch dimension "N".

    Weights that pass DequantizeLinear, and a Reshape behind it, become fp32 initializers under the
    name that the consuming node reads. Dropout is removed (inference). Graph inputs that no node
    feeds on as data are removed. Reshape targets that fix the batch at 1 keep it (0) instead.

    Args:
        network: an OpenCV Zoo `*_int8bq.onnx`; it is not changed.

    Returns:
        The same outputs to float32 rounding. Two calls give the same bytes.

    Raises:
        ValueError: a quantised weight is not constant, so it cannot be unpacked.
    """
    graph = network.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for node in graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        if node.op_type == "DequantizeLinear":
            constants[node.output[0]] = _unpack(node, constants)
        elif node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Reshape" and inputs[0] in constants:
            shape = constants[inputs[1]].astype(np.int64)
            constants[node.output[0]] = constants[inputs[0]].reshape(shape)
        elif node.op_type == "Dropout":
            renamed[node.output[0]] = inputs[0]
        else:
            kept = onnx.NodeProto()
            kept.CopyFrom(node)
            del kept.input[:]
            kept.input.extend(inputs)
            nodes.append(kept)
    return _assemble(graph, nodes, constants)


def _unpack(node: onnx.NodeProto, constants: dict[str, Array]) -> Array:
    attributes = {a.name: a.i for a in node.attribute}
    missing = [name for name in node.input if name not in constants]
    if missing:
        raise ValueError(f"{node.name}: {missing[0]} is not a constant weight")
    values, scale, zero = (constants[name] for name in node.input)
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    return (values.astype(np.float32) - _spread(zero.astype(np.float32), values, axis, block)) * (
        _spread(scale.astype(np.float32), values, axis, block)
    )


def _spread(
    per_block: npt.NDArray[np.float32], values: Array, axis: int, block: int
) -> npt.NDArray[np.float32]:
    """`per_block` repeated to the shape of `values`, or as it is where one number serves all."""
    if per_block.size == 1:
        # The zoo's exporter leaves `block_size` on per-tensor scales; it has no meaning there.
        return per_block.reshape(())
    if block == 0:
        shape = [1] * values.ndim
        shape[axis] = -1
        return per_block.reshape(shape)
    return np.repeat(per_block, block, axis=axis).take(range(values.shape[axis]), axis=axis)


def _assemble(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, Array]
) -> onnx.ModelProto:
    targets = {node.input[1] for node in nodes if node.op_type == "Reshape"}
    for name in targets & constants.keys():
        if constants[name].size and constants[name].flat[0] == 1:
            constants[name] = np.concatenate([[0], constants[name][1:]]).astype(np.int64)
    used = [name for node in nodes for name in node.input]
    produced = {name for node in nodes for name in node.output}
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(constants[name]), name)
        for name in dict.fromkeys(used)
        if name in constants and name not in produced
    ]
    inputs = [v for v in graph.input if v.name in used and v.name not in constants]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            graph.name,
            [_with_free_batch(value) for value in inputs],
            [_with_free_batch(value) for value in graph.output],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="frameswap",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _with_free_batch(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    free = onnx.ValueInfoProto()
    free.CopyFrom(value)
    free.type.tensor_type.shape.dim[0].dim_param = "N"
    return free
