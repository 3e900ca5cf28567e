"""Bilinear doubling before a convolution as two products with a constant matrix."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import Array, NodeInserter, constant_array, replace, static_dims
from networks.passes.rewriting import TO_CHANNELS_FIRST, TO_CHANNELS_LAST


def upsample_channels_last(model: ir.Model) -> int:
    """Replace each bilinear Resize by 2 by interpolation matrices over [B, H, W*C] and [.., W, C].

    Equal to rounding: an output pixel is the same four inputs with the same weights (1/4 and 3/4,
    exact in float16), edge pixels repeated.
    """
    rewritten = 0
    for node in list(model.graph):
        source = node.inputs[0] if _doubles(node) else None
        sizes = static_dims(source, (1, 2, 3)) if source is not None else None
        if source is None or sizes is None:
            continue
        channels, height, width = sizes
        inserter = NodeInserter(node)
        rows = inserter.reshape(
            inserter.transpose(source, TO_CHANNELS_LAST), -1, height, width * channels
        )
        down = inserter.constant(interpolation_matrix(height), "rows", like=source)
        tall = inserter.node("MatMul", [down, rows])
        columns = inserter.reshape(tall, -1, 2 * height, width, channels)
        across = inserter.constant(interpolation_matrix(width), "columns", like=source)
        wide = inserter.node("MatMul", [across, columns])
        replace(node.outputs[0], inserter.transpose(wide, TO_CHANNELS_FIRST))
        rewritten += 1
    return rewritten


def interpolation_matrix(size: int) -> Array:
    """[2 size, size] float32: output i is read at (i + 1/2) / 2 - 1/2, clamped to the edges.

    Source: ONNX operator Resize, coordinate_transformation_mode half_pixel.
    """
    matrix = np.zeros((2 * size, size), np.float32)
    for index in range(2 * size):
        position = (index + 0.5) / 2 - 0.5
        low = int(np.floor(position))
        weight = position - low
        matrix[index, min(max(low, 0), size - 1)] += 1 - weight
        matrix[index, min(max(low + 1, 0), size - 1)] += weight
    return matrix


def _doubles(node: ir.Node) -> bool:
    """Whether `node` is a Resize of [B, C, H, W] to twice the height and width, bilinear."""
    if node.op_type != "Resize" or node.attributes.get_string("mode", "nearest") != "linear":
        return False
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    # Halves of a pixel stay inside a doubled axis, where these two modes agree.
    if mode not in ("half_pixel", "pytorch_half_pixel"):
        return False
    if len(node.inputs) != 3 or node.attributes.get_int("antialias", False):
        return False
    scales = constant_array(node.inputs[2])
    return scales is not None and scales.tolist() == [1.0, 1.0, 2.0, 2.0]
