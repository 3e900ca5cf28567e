"""Crops made ready for lookups, and looked up: by tables that save operators, or by GridSample.

Crops get one more pixel all around, their edge repeated and the mask 0: whatever lies farther out
reads this border.

Axis letters: N crops, L entries of a table, P points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.arithmetic import lerp
from graphs.shapes import Op, constant, dimension, split, to_float

BORDER: Final = 1
"""Pixels on each side."""

_END: Final = np.iinfo(np.int64).max


def with_border(op: Op, colors: ir.Value, masks: ir.Value, *, leading: int) -> ir.Value:
    """Colours [..., 3, S, S] and masks [..., 1, S, S] as layers [..., 4, S + 2, S + 2].

    Args:
        leading: number of axes in front of the last two.
    """
    pads = [*[0] * leading, BORDER, BORDER] * 2
    bordered = op.Pad(colors, pads, mode="edge"), op.Pad(masks, pads, 0.0)
    return op.Concat(*bordered, axis=leading - 1)


def sampling_grid(
    op: Op, warp: ir.Value, x: ir.Value, y: ir.Value, origin: ir.Value | None, side: int
) -> ir.Value:
    """GridSample's grid [B, H, W, 2] for a plane, as one addition of a row and a column.

    The warp, the shift by the extra border, GridSample's scale and, for chroma, the plane's own
    scale and origin are folded into one 2x3 matrix a row first.

    Args:
        warp: [B, 2, 3], luma pixels to crop pixels.
        x, y: the plane's columns and rows, float32 [B or 1, 1, W, 1] and [B or 1, H, 1, 1].
        origin: [B, 2], luma position of chroma sample (0, 0); None for full-size planes.
        side: S + 2.
    """
    linear = op.Slice(warp, [0], [2], [2])
    shift = op.Slice(warp, [2], [3], [2])
    if origin is not None:
        shift = op.Add(
            shift, op.ReduceSum(op.Mul(linear, op.Unsqueeze(origin, [1])), [2], keepdims=1)
        )
        linear = op.Mul(linear, 2.0)
    # pixel centres at integers; -1 and 1 are the outer edges of the outermost pixels
    linear = op.Mul(linear, 2.0 / side)
    shift = op.Sub(op.Mul(op.Add(shift, BORDER + 0.5), 2.0 / side), 1.0)
    by_column = op.Reshape(op.Slice(linear, [0], [1], [2]), [-1, 1, 1, 2])
    by_row = op.Reshape(op.Slice(linear, [1], [2], [2]), [-1, 1, 1, 2])
    rows = op.Add(op.Mul(y, by_row), op.Reshape(shift, [-1, 1, 1, 2]))
    return op.Add(op.Mul(x, by_column), rows)


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
    return lerp(op, above, below, taps.down)
