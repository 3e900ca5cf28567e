"""Reading crops at many points: shared int32 taps, and tables that save operators.

Axis letters: N crops, L entries of a table, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.face_blender.crop_sampling import BORDER, with_border
from graphs.shapes import Op, constant, dimension, split, to_float

_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LookupTable:
    """One plane of each crop, widened by its border, as flat lookup tables, float32 [N, L].

    value: of every pixel, row by row.
    rise: from there to the value of the neighbour to the right.
    """

    value: ir.Value
    rise: ir.Value


def lookup_tables(op: Op, crops: ir.Value, masks: ir.Value, side: int) -> list[LookupTable]:
    """Tables of the crops' three colours [N, 3, S, S] and of their masks [N, 1, S, S]."""
    planes = with_border(op, crops, masks, leading=2)
    flat = op.Reshape(planes, [0, 4, (side + 2 * BORDER) ** 2])
    # the last pixel has no right neighbour, and no index reaches it
    value = op.Slice(flat, [0], [-1], [2])
    rise = op.Sub(op.Slice(flat, [1], [_END], [2]), value)
    cut = ([op.Squeeze(part, [1]) for part in split(op, table, 4, 1)] for table in (value, rise))
    return [LookupTable(*found) for found in zip(*cut, strict=True)]


@dataclass(frozen=True)
class CropTaps:
    """Where points read the tables.

    above, below: int32 [N, P], indices of the upper and the lower left neighbour.
    right, down: float32 [N, P] in [0, 1], weights of the right and the lower neighbours.
    """

    above: ir.Value
    below: ir.Value
    right: ir.Value
    down: ir.Value


def crop_taps(op: Op, warps: ir.Value, x: ir.Value, y: ir.Value, side: int) -> CropTaps:
    """Taps of the points of a grid.

    Args:
        warps: [N, 2, 3] float32, frame to crop.
        x, y: luma positions, float32 [N, 1, w] and [N, h, 1]; P = h * w.
        side: S.
    """
    # The largest number below the border's own index: cut off, it leaves a neighbour to the right.
    most = float(np.nextafter(np.float32(side + 1), np.float32(0.0)))
    wholes, rests = [], []
    for line in split(op, warps, 2, 1):
        by_x, by_y, shift = split(op, line, 3, 2)
        # everything but the last sum is of one row's or one column's size
        rows = op.Add(op.Mul(y, by_y), op.Add(shift, float(BORDER)))
        position = op.Clip(op.Add(op.Mul(x, by_x), rows), 0.0, most)
        whole = op.Cast(position, to=ir.DataType.INT32)
        wholes.append(whole)
        rests.append(op.Sub(position, to_float(op, whole)))
    width = constant(op, np.array(side + 2 * BORDER, np.int32))
    above = op.Add(op.Mul(wholes[1], width), wholes[0])
    taps = (above, op.Add(above, width), *rests)
    rows_and_rest = op.Concat(dimension(op, warps, 0), [-1], axis=0)
    return CropTaps(*(op.Reshape(value, rows_and_rest) for value in taps))


def look_up(op: Op, table: LookupTable, taps: CropTaps) -> ir.Value:
    """Bilinear values [N, P] float32."""

    def mix(index: ir.Value) -> ir.Value:
        value, rise = (
            op.GatherElements(values, index, axis=1) for values in (table.value, table.rise)
        )
        return op.Add(value, op.Mul(rise, taps.right))

    above, below = mix(taps.above), mix(taps.below)
    return op.Add(above, op.Mul(op.Sub(below, above), taps.down))
