"""Parts of the target's own face that stay as they are: mouth, lips, eyes, brows.

A part lies between an upper and a lower curve through landmarks (`networks.face_regions`). In an
aligned crop those run from left to right, so a curve is a function of x, and a pixel's depth in the
part is the least of its distances to the curves, straight up and down, and to the part's ends. A
part is kept whole, and the swap returns over FEATHER around it.

Depths are made on a grid of GRID points a side: between them they are all but linear.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.contract import KeepFlag
from graphs.face_masker.ramps import grid_positions, smoothstep, to_crop_size
from graphs.shapes import Op, constant
from networks.face_regions import Band, FaceRegions

GRID: Final = 128
FEATHER: Final = 0.02
"""In sides of the crop: how far around a part its edge reaches."""
_LEAST_STEP: Final = 1e-3
"""Pixels. Points of a curve that do not go to the right make a step, never a division by 0."""
_FAR: Final = -1e4
"""Depth in a part that is not kept."""


def keep_masks(
    op: Op, x: ir.Value, y: ir.Value, flags: ir.Value, regions: FaceRegions, size: int
) -> ir.Value:
    """How much of the swap is shown, [N, 1, S, S] float32 in [0, 1]: 0 in every part kept.

    Args:
        x, y: landmarks [N, P] float32, pixels of the crop, finite.
        flags: [N, 1] whole numbers, sums of `KeepFlag`.
    """
    bands = [(flag, band) for flag, parts in regions.parts.items() for band in parts]
    wanted = [_has_flag(op, flags, flag) for flag, _ in bands]
    kept = op.Unsqueeze(op.Concat(*wanted, axis=1), [2, 3])
    depth = op.Where(kept, _depths(op, x, y, [band for _, band in bands], size), _FAR)
    depth = to_crop_size(op, op.ReduceMax(depth, [1], keepdims=1), GRID, size)
    return op.Sub(1.0, smoothstep(op, op.Add(op.Mul(depth, 1.0 / (FEATHER * size)), 1.0)))


def _has_flag(op: Op, flags: ir.Value, flag: KeepFlag) -> ir.Value:
    """Whether whole numbers have a bit: bool, shaped like `flags`."""
    lower = op.Floor(op.Mul(flags, 1.0 / flag.value))
    odd = op.Sub(lower, op.Mul(op.Floor(op.Mul(lower, 0.5)), 2.0))
    return op.Greater(odd, 0.5)


def _depths(op: Op, x: ir.Value, y: ir.Value, bands: list[Band], size: int) -> ir.Value:
    """Depth of each grid point in each of R bands: [N, R, GRID, GRID] float32, pixels."""
    place = grid_positions(size, GRID)
    upper, lower = (
        _Curve(op, x, y, [band.upper for band in bands]),
        _Curve(op, x, y, [band.lower for band in bands]),
    )
    left = op.Min(upper.first_x, lower.first_x)
    right = op.Max(upper.last_x, lower.last_x)
    columns = constant(op, place)
    rows = constant(op, place[:, None])
    # [N, R, GRID]: what depends on the column alone
    inside = op.Unsqueeze(op.Min(op.Sub(columns, left), op.Sub(right, columns)), [2])
    above = op.Sub(rows, op.Unsqueeze(upper.heights(op, columns), [2]))
    below = op.Sub(op.Unsqueeze(lower.heights(op, columns), [2]), rows)
    return op.Min(above, below, inside)


class _Curve:
    """R polylines through landmarks, made of as many points each by repeating the last one."""

    def __init__(self, op: Op, x: ir.Value, y: ir.Value, points: list[tuple[int, ...]]) -> None:
        longest = max(map(len, points))
        index = np.array([(*row, *[row[-1]] * (longest - len(row))) for row in points], np.int64)
        # [N, R, points]
        self._x, self._y = (op.Gather(axis, constant(op, index), axis=1) for axis in (x, y))
        self.first_x = op.Slice(self._x, [0], [1], [2])
        self.last_x = op.Slice(self._x, [longest - 1], [longest], [2])
        self._count = longest

    def heights(self, op: Op, columns: ir.Value) -> ir.Value:
        """y of each polyline at each column: [N, R, GRID]; level beyond its ends."""

        def ends(values: ir.Value) -> tuple[ir.Value, ir.Value]:
            first = op.Slice(values, [0], [self._count - 1], [2])
            return first, op.Slice(values, [1], [self._count], [2])

        (x_from, x_to), (y_from, y_to) = ends(self._x), ends(self._y)
        step = op.Max(op.Sub(x_to, x_from), _LEAST_STEP)
        # [N, R, segments, GRID]
        run = op.Sub(columns, op.Unsqueeze(x_from, [3]))
        share = op.Clip(op.Div(run, op.Unsqueeze(step, [3])), 0.0, 1.0)
        risen = op.Mul(share, op.Unsqueeze(op.Sub(y_to, y_from), [3]))
        return op.Add(op.Slice(self._y, [0], [1], [2]), op.ReduceSum(risen, [2], keepdims=0))
