"""Crops and masks made harmless before they are looked up: no NaN may reach a pixel."""

from __future__ import annotations

import onnx_ir as ir

from graphs.arithmetic import is_number
from graphs.shapes import Op, split, to_float


def harmless_crops(op: Op, crops: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Crops clipped to [0, 1] with 0 for what is no number, and where they are numbers.

    Args:
        crops: [B, K, 3, S, S] float32.

    Returns:
        [B, K, 3, S, S] and [B, K, 1, S, S] float32 (1 where all three channels are numbers).
    """
    number = is_number(op, crops)
    clean = op.Clip(op.Where(number, crops, 0.0), 0.0, 1.0)
    # A product of three, not a minimum over the axis, which ONNX Runtime leaves to cuDNN on a GPU.
    red, green, blue = split(op, to_float(op, number), 3, 2)
    return clean, op.Mul(op.Mul(red, green), blue)


def harmless_masks(op: Op, masks: ir.Value) -> ir.Value:
    """Masks clipped to [0, 1], with 0 for what is no number."""
    return op.Clip(op.Where(is_number(op, masks), masks, 0.0), 0.0, 1.0)
