"""Bringing a network of any age to the one opset that every graph here is written in."""

from __future__ import annotations

import onnx
from onnx import version_converter

from graphs.contract import OPSET


def to_project_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in this project's opset (unchanged when it already is)."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 0) == OPSET:
        return model
    return version_converter.convert_version(model, OPSET)
