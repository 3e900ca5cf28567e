"""Networks exported with numbers that no GPU runtime takes, or with numbers of too few axes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper


def without_doubles(network: onnx.ModelProto) -> onnx.ModelProto:
    """`network` with float32 wherever it says float64: TensorRT has no such tensors.

    Inputs, outputs, constants and casts are changed; the argument is not. A network without any
    comes back as it is.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(network)
    graph = changed.graph
    found = False
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            found = True
    for tensor in graph.initializer:
        found |= _narrow(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                found |= _narrow(attribute.t)
            elif node.op_type == "Cast" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
                found = True
    return changed if found else network


def _narrow(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.DOUBLE:
        return False
    array = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return True


def with_lifted_input(network: onnx.ModelProto, name: str, *, rank: int) -> onnx.ModelProto:
    """`network` whose input `name` has `rank` axes of size 1, for one number a picture.

    A number exported as [1] stands for every picture of a batch; with as many axes as the feature
    maps that it is multiplied with, its first one is the batch.

    Raises:
        ValueError: the network has no such input.
    """
    model = ir.from_proto(network)
    for value in model.graph.inputs:
        if value.name == name:
            value.shape = ir.Shape([1] * rank)
            return ir.to_proto(model)
    known = [value.name for value in model.graph.inputs]
    raise ValueError(f"the network should have an input {name!r}, and it has {known}")
