"""I420 frames read by GridSample, for ONNX Runtime on a GPU.

There an operator costs a kernel and a pass over memory. Taps gathered and mixed one after the other
(`graphs.letterbox`, `graphs.geometry`) are some eighty of them for a picture; this is one lookup a
plane, of a frame that was converted once. The price is that positions are float32: off by 2^-11
pixels at most at 4K.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.shapes import Op, constant, dimension, sample_on_gpu, split, to_float


def sample_i420(
    op: Op,
    pixels: ir.Value,
    size: tuple[ir.Value, ir.Value],
    points: tuple[ir.Value, ir.Value],
    offset: ir.Value,
) -> tuple[ir.Value, ir.Value]:
    """Y [B, h, w] and U, V [B, 2, h, w] float32 at luma positions, bilinear, edges repeated.

    Args:
        pixels: [B, H*3/2, W] float32.
        size: H and W, int64 [1] each.
        points: x and y, float32, luma pixels, [B or 1, 1, w] and [B or 1, h, 1], or [B, 1, w] both.
        offset: [B, 2] float32, luma position of chroma sample (0, 0).
    """
    (height, width), (x, y) = size, points
    batch = dimension(op, pixels, 0)
    # One picture of H*3/2 rows: a row below the last one of luma must not be mixed in.
    rows = _inside(op, y, height)
    columns = op.Expand(x, op.Concat(batch, [1], [1], axis=0))
    lines = dimension(op, pixels, 1)
    luma = _sample(op, op.Unsqueeze(pixels, [1]), (columns, rows), (lines, width))

    # Seen as rows of W/2, the frame has U in rows 2 H .. 2.5 H and V behind it, whatever H mod 4.
    half_height, half_width = op.Div(height, [2]), op.Div(width, [2])
    offset_x, offset_y = (op.Unsqueeze(part, [2]) for part in split(op, offset, 2, 1))
    columns = op.Mul(op.Sub(x, offset_x), 0.5)
    rows = _inside(op, op.Mul(op.Sub(y, offset_y), 0.5), half_height)
    start = op.Mul(height, [2])
    starts = (to_float(op, start), to_float(op, op.Add(start, half_height)))
    both_rows = op.Concat(*(op.Add(rows, first) for first in starts), axis=1)
    tall = op.Mul(height, [3])
    picture = op.Reshape(pixels, op.Concat(batch, [1], tall, half_width, axis=0))
    both = _sample(op, picture, (columns, both_rows), (tall, half_width))
    shape = op.Concat(batch, [2], dimension(op, rows, 1), [-1], axis=0)
    return op.Squeeze(luma, [1]), op.Reshape(both, shape)


def _inside(op: Op, position: ir.Value, size: ir.Value) -> ir.Value:
    return op.Min(op.Max(position, 0.0), to_float(op, op.Sub(size, [1])))


def _sample(
    op: Op,
    picture: ir.Value,
    points: tuple[ir.Value, ir.Value],
    size: tuple[ir.Value, ir.Value],
) -> ir.Value:
    """[B, 1, h, w] of a picture [B, 1, H, W] at points x and y; `size` is H and W."""
    (x, y), (height, width) = points, size
    grid = op.Add(_axis(op, x, width, 0), _axis(op, y, height, 1))
    return sample_on_gpu(op, picture, grid)


def _axis(op: Op, position: ir.Value, size: ir.Value, axis: int) -> ir.Value:
    """GridSample's positions along one axis (0 for x), the other one 0: a last axis of two."""
    scaled = op.Sub(op.Div(op.Add(op.Mul(position, 2.0), 1.0), to_float(op, size)), 1.0)
    return op.Mul(op.Unsqueeze(scaled, [3]), constant(op, np.eye(2, dtype=np.float32)[axis]))
