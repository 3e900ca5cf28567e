"""ONNX networks from TensorFlow Lite files, as MediaPipe publishes them, without TensorFlow.

A .tflite is a flat table of tensors and operators, read here with the packages `tflite` (the
schema's Python classes) and `flatbuffers`. Its feature maps are channels last and its batch is 1;
the network made of it is channels first, in float32, with a free batch. Only what the files that
this project knows hold is read: an operator, an activation or a form beyond that is refused with
one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from onnx import helper

from networks.opset import as_network
from networks.tflite_reader.mediapipe import MEDIAPIPE_RULES
from networks.tflite_reader.model import TfliteError
from networks.tflite_reader.operators import BUILTIN_RULES
from networks.tflite_reader.reader import Reader, Rule

__all__ = ["INPUT", "RULES", "TfliteError", "read_tflite"]

INPUT: Final = "image"
"""Name of the made network's one input."""

RULES: Final[Mapping[str, Rule]] = MappingProxyType({**BUILTIN_RULES, **MEDIAPIPE_RULES})
"""Every operator that is known, by its name in the file."""


def read_tflite(content: bytes) -> onnx.ModelProto:
    """The network of a .tflite as ONNX, in this project's opset.

    Args:
        content: the file's bytes; one image input [1, H, W, 3] float32.

    Returns:
        A model with input `image` [B, 3, H, W] float32 and the file's outputs by name (the part
        behind the last slash), each flat, [B, n] float32. Two calls give the same bytes.

    Raises:
        TfliteError: damaged, or an operator (or a form of one) that this reader does not know; the
            sentence names it.
    """
    reader = Reader(content)
    model = reader.model
    image = [model.shape(tensor) for tensor in model.inputs]
    if len(image) != 1 or len(image[0]) != 4 or image[0][0] != 1:
        raise TfliteError(f"one image input of batch 1 is expected, this network takes {image}")
    reader.set_value(model.inputs[0], INPUT)
    for operation in model.operations:
        rule = RULES.get(operation.name)
        if rule is None:
            raise TfliteError(
                f"the .tflite holds the operator {operation.name}, which this reader does not know"
            )
        rule(reader, operation)
    outputs = []
    for tensor in model.outputs:
        length = int(np.prod(model.shape(tensor)))
        name = model.name(tensor)
        flat = reader.channels_last(tensor)
        shape = reader.initializer(np.array([-1, length], np.int64))
        reader.node("Reshape", flat, shape, output=name)
        outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", length]))
    _, height, width, channels = image[0]
    graph = helper.make_graph(
        reader.nodes,
        "tflite",
        [
            helper.make_tensor_value_info(
                INPUT, onnx.TensorProto.FLOAT, ["B", channels, height, width]
            )
        ],
        outputs,
        reader.initializers,
    )
    return as_network(graph)
