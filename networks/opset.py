"""What every network here is brought to: one opset, and one way to say what stays float32."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import version_converter

from graphs.contract import IR_VERSION, OPSET


def as_network(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A graph that a reader made, in this project's opset and IR, checked."""
    network = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="frameswap",
    )
    onnx.checker.check_model(network, full_check=True)
    return network

MICROSOFT_DOMAIN: Final = "com.microsoft"
"""ONNX Runtime's own operators; a model that has one must import version 1 of it."""
FLOAT32_PREFIX: Final = "float32/"
"""First part of the names of a network's nodes that make coordinates or light: they are never
typed float16, which rounds 200 pixels to an eighth."""


def to_project_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in this project's opset (unchanged when it already is)."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) == OPSET:
        return model
    return version_converter.convert_version(model, OPSET)
