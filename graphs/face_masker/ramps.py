"""Distances on a coarse grid of a crop, brought to its size, and made soft edges of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.shapes import Op


def grid_positions(size: int, grid: int) -> npt.NDArray[np.float32]:
    """Where the centres of `grid` cells a side lie in a crop, (grid,) pixels."""
    return ((np.arange(grid) + 0.5) * (size / grid) - 0.5).astype(np.float32)


def to_crop_size(op: Op, planes: ir.Value, grid: int, size: int) -> ir.Value:
    """[N, C, S, S] of [N, C, grid, grid], bilinear between the positions of `grid_positions`, and
    without a filter where it shrinks."""
    if grid == size:
        return planes
    scales = [1.0, 1.0, size / grid, size / grid]
    return op.Resize(
        planes, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )


def smoothstep(op: Op, values: ir.Value) -> ir.Value:
    """3 v^2 - 2 v^3 of `values` clipped to [0, 1]: flat at both ends."""
    ramp = op.Clip(values, 0.0, 1.0)
    return op.Mul(op.Mul(ramp, ramp), op.Sub(3.0, op.Mul(ramp, 2.0)))
