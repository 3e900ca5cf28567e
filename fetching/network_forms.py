"""What each form of a weight file becomes: an ONNX network of fp32 weights."""

from __future__ import annotations

import onnx

from fetching.known_weights import Form
from networks.dequantize import dequantize
from networks.frameswap_network import build_network
from networks.ncnn_reader import read_ncnn
from networks.tflite_reader import read_tflite

__all__ = ["read_network"]


def read_network(form: Form, content: bytes, layers: str | None = None) -> onnx.ModelProto:
    """The network in a file's bytes.

    Args:
        layers: the text of ncnn's .param beside its weights; nothing else has it.

    Raises:
        ValueError: an .npz that does not hold the project's own network.
    """
    if form == "npz":
        return build_network(content)
    if form == "tflite":
        return read_tflite(content)
    if layers is not None:
        return read_ncnn(layers, content)
    network = onnx.load_model_from_string(content)
    return dequantize(network) if form == "int8bq" else network
