"""Running a piece of a graph, or a whole one, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from graphs.authoring import GraphAuthor
from graphs.shapes import Op
from networks.opset import MICROSOFT_DOMAIN

_ELEMENT_TYPES = {
    np.dtype(np.float32): ir.DataType.FLOAT,
    np.dtype(np.int64): ir.DataType.INT64,
    np.dtype(np.uint8): ir.DataType.UINT8,
    np.dtype(np.bool_): ir.DataType.BOOL,
}


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """`model` on the CPU, one thread, warnings off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def evaluate(
    piece: Callable[..., ir.Value | Sequence[ir.Value]], *arrays: np.ndarray
) -> list[np.ndarray]:
    """Outputs of `piece(op, *values)` for the given inputs; every axis of them is dynamic."""
    author = GraphAuthor("piece")
    author.builder.graph.opset_imports[MICROSOFT_DOMAIN] = 1
    values = [
        author.builder.input(
            f"input_{index}",
            _ELEMENT_TYPES[array.dtype],
            [f"axis_{index}_{axis}" for axis in range(array.ndim)],
        )
        for index, array in enumerate(arrays)
    ]
    op: Op = author.op
    outputs = piece(op, *values)
    if isinstance(outputs, ir.Value):
        outputs = [outputs]
    for index, output in enumerate(outputs):
        author.builder.add_output(op.Identity(output), f"output_{index}")
    session = open_session(author.finish())
    feeds = {f"input_{index}": array for index, array in enumerate(arrays)}
    return [np.asarray(result) for result in session.run(None, feeds)]
