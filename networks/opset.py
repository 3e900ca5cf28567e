"""Bringing a network of any age to the one opset that every graph here is written in."""

from __future__ import annotations

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


def to_project_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in this project's opset (unchanged when it already is)."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) == OPSET:
        return model
    return version_converter.convert_version(model, OPSET)
