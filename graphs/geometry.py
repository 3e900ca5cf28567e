"""Warps, and planes read between pixels.

Coordinates are pixels, x then y, with pixel centres at integers. A warp is a 2x3 matrix that takes
frame coordinates to crop coordinates; all zeros means "no warp". Everything here is float32: half
precision cannot tell neighbouring pixels of a 4K frame apart, and no matrix product is used,
because a GPU may run those with a 10-bit mantissa (TF32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.arithmetic import lerp
from graphs.shapes import Op, constant, split, to_float, to_int64

LEAST_SCALE: Final = 1e-6
"""A warp that shrinks the frame below this (squared: 1e-12) has no inverse worth the name."""


def _entries(op: Op, warps: ir.Value) -> list[ir.Value]:
    """The six entries of warps [..., 2, 3], row by row, each [..., 1, 1]."""
    return [entry for row in split(op, warps, 2, -2) for entry in split(op, row, 3, -1)]


def regular_warps(op: Op, warps: ir.Value) -> ir.Value:
    """Which warps [..., 2, 3] have an inverse: bool [..., 1, 1]."""
    return op.Greater(op.Abs(_determinants(op, _entries(op, warps))), LEAST_SCALE**2)


def _determinants(op: Op, entries: list[ir.Value]) -> ir.Value:
    a, b, _, d, e, _ = entries
    return op.Sub(op.Mul(a, e), op.Mul(b, d))


def invert_warps(op: Op, warps: ir.Value) -> ir.Value:
    """Crop to frame from frame to crop, [..., 2, 3] float32; zeros stay zeros.

    An affine matrix of determinant 0 gives zeros too: nothing becomes NaN or infinite.
    """
    a, b, c, d, e, f = entries = _entries(op, warps)
    determinant = _determinants(op, entries)
    regular = op.Greater(op.Abs(determinant), LEAST_SCALE**2)
    factor = op.Div(1.0, op.Where(regular, determinant, 1.0))
    shift_x = op.Sub(op.Mul(b, f), op.Mul(e, c))
    shift_y = op.Sub(op.Mul(d, c), op.Mul(a, f))
    rows = op.Concat(
        op.Concat(e, op.Neg(b), shift_x, axis=-1),
        op.Concat(op.Neg(d), a, shift_y, axis=-1),
        axis=-2,
    )
    return op.Where(regular, op.Mul(rows, factor), 0.0)


def compose_warps(op: Op, outer: ir.Value, inner: ir.Value) -> ir.Value:
    """The warps [..., 2, 3] float32 that do `inner` first and `outer` then; zeros where either is.

    Sums of products written out: a matrix product may be rounded to 10 bits on a GPU.
    """
    first, second = split(op, inner, 2, -2)
    rows = []
    for row in split(op, outer, 2, -2):
        by_x, by_y, shift = split(op, row, 3, -1)
        moved = op.Add(op.Mul(by_x, first), op.Mul(by_y, second))
        # the shift belongs to the last column alone
        rows.append(op.Add(moved, op.Mul(shift, constant(op, np.array([0, 0, 1], np.float32)))))
    both = op.And(regular_warps(op, outer), regular_warps(op, inner))
    return op.Where(both, op.Concat(*rows, axis=-2), 0.0)


def scale_warps(op: Op, warps: ir.Value, scale: int) -> ir.Value:
    """Warps [..., 2, 3] float32 to crops of `scale` times the size, pixel centres at integers."""
    shift = np.zeros((2, 3), np.float32)
    shift[:, 2] = (scale - 1) / 2
    return op.Add(op.Mul(warps, float(scale)), constant(op, shift))


def apply_warps(op: Op, warps: ir.Value, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Warped coordinates x' and y' (float32, pixels), each shaped as warps' batch axes x grid.

    Args:
        warps: [..., 2, 3] float32.
        x, y: coordinates that broadcast with [..., 1, 1]: a row [1, w] and a column [h, 1] make a
            grid [..., h, w].
    """
    a, b, c, d, e, f = _entries(op, warps)
    new_x = op.Add(op.Add(op.Mul(a, x), op.Mul(b, y)), c)
    new_y = op.Add(op.Add(op.Mul(d, x), op.Mul(e, y)), f)
    return new_x, new_y


def points_in_crops(op: Op, points: ir.Value, warps: ir.Value) -> ir.Value:
    """Points [..., K, P, 2 or 3] of frames in pixels of their crops; depth scales as a length does.

    Args:
        points: float32, frame pixels.
        warps: [..., K, 2, 3] float32, frame to crop.
    """
    x, y = (op.Slice(points, [axis], [axis + 1], [-1]) for axis in (0, 1))
    moved = list(apply_warps(op, warps, x, y))
    column = op.Slice(warps, [0], [1], [-1])
    scale = op.Sqrt(op.ReduceSum(op.Mul(column, column), [-2], keepdims=1))
    depth = op.Slice(points, [2], [3], [-1])
    return op.Concat(*moved, op.Mul(depth, scale), axis=-1)


@dataclass(frozen=True)
class BilinearTaps:
    """Four neighbours of each point of a plane stored row by row, and how much each counts.

    first: int64 [B, P], element offset of the upper left neighbour within the plane.
    steps: int64 [1] each, from there to the right and to the lower neighbour.
    right, below: float32 [B, P], weights of the right and the lower neighbours, in [0, 1].
    """

    first: ir.Value
    steps: tuple[ir.Value, ir.Value]
    right: ir.Value
    below: ir.Value


def bilinear_taps(
    op: Op, x: ir.Value, y: ir.Value, height: ir.Value, width: ir.Value
) -> BilinearTaps:
    """Taps of points x, y ([B, P] float32, pixels) in planes [height, width] (int64 [1] each).

    Points outside read the nearest edge pixel (border replicate). Beside the last pixel the first
    neighbour is the last but one, with all the weight on the other, so that the steps between
    neighbours are the same everywhere.
    """
    firsts, weights = [], []
    for position, size in ((x, width), (y, height)):
        last = op.Sub(to_float(op, size), 1.0)
        inside = op.Min(op.Max(position, 0.0), last)
        low = op.Min(op.Floor(inside), op.Max(op.Sub(last, 1.0), 0.0))
        weights.append(op.Sub(inside, low))
        firsts.append(to_int64(op, low))
    # a plane of one row or column has no other neighbour
    step_right = op.Min(op.Sub(width, [1]), [1])
    step_below = op.Mul(op.Min(op.Sub(height, [1]), [1]), width)
    return BilinearTaps(
        first=op.Add(op.Mul(firsts[1], width), firsts[0]),
        steps=(step_right, step_below),
        right=weights[0],
        below=weights[1],
    )


def gather_bilinear(
    op: Op, elements: ir.Value, taps: BilinearTaps, *, stride: int = 1, start: int | ir.Value = 0
) -> ir.Value:
    """Values [B, P] float32 at `taps`, read from flat rows.

    On a CPU this is an order of magnitude faster than GridSample over a large plane, and pixels may
    be interleaved (`stride` 3 for BGR frames).

    Args:
        elements: [B, F] float32 or uint8, flat frames.
        stride: elements from one pixel to the next.
        start: offset of the plane's (or channel's) first element, an int or int64 [1].
    """
    first, (right, below) = taps.first, taps.steps
    if stride != 1:
        first, right, below = (op.Mul(value, [stride]) for value in (first, right, below))
    if isinstance(start, ir.Value) or start != 0:
        first = op.Add(first, start if isinstance(start, ir.Value) else [start])
    indices = [first, *(op.Add(first, step) for step in (right, below, op.Add(right, below)))]
    values = [to_float(op, op.GatherElements(elements, index, axis=1)) for index in indices]
    above = lerp(op, values[0], values[1], taps.right)
    below = lerp(op, values[2], values[3], taps.right)
    return lerp(op, above, below, taps.below)
