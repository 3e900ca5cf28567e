"""Reading a crop at many points on a CPU: shared int32 taps, and tables that save operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.shapes import Op, constant, split, to_float

_END = np.iinfo(np.int64).max

_BORDER = 1
"""Pixels that a crop is widened by: its edge repeated, the mask 0. What lies farther out reads
this border."""


@dataclass(frozen=True)
class Box:
    """Left, top, right, bottom (the last two excluded) in luma pixels: int64 [1], even."""

    left: ir.Value
    top: ir.Value
    right: ir.Value
    bottom: ir.Value


@dataclass(frozen=True)
class LookupTable:
    """One plane of a crop, widened by its border, as flat lookup tables, float32 [1, L].

    value: of every pixel, row by row.
    rise: from there to the value of the neighbour to the right.
    """

    value: ir.Value
    rise: ir.Value


def lookup_tables(op: Op, crop: ir.Value, mask: ir.Value, side: int) -> list[LookupTable]:
    """Tables of a crop's three colours [3, S, S] and of its mask [1, S, S]."""
    pads = [0, _BORDER, _BORDER] * 2
    planes = op.Concat(op.Pad(crop, pads, mode="edge"), op.Pad(mask, pads, 0.0), axis=0)
    flat = op.Reshape(planes, [4, (side + 2 * _BORDER) ** 2])
    # the last pixel has no right neighbour, and no index reaches it
    value = op.Slice(flat, [0], [-1], [1])
    rise = op.Sub(op.Slice(flat, [1], [_END], [1]), value)
    cut = (split(op, table, 4, 0) for table in (value, rise))
    return [LookupTable(*found) for found in zip(*cut, strict=True)]


@dataclass(frozen=True)
class CropTaps:
    """Where the pixels of a box read the tables.

    above, below: int32 [1, P], indices of the upper and the lower left neighbour.
    right, down: float32 [1, P] in [0, 1], weights of the right and the lower neighbours.
    """

    above: ir.Value
    below: ir.Value
    right: ir.Value
    down: ir.Value


def crop_taps(
    op: Op, warp: ir.Value, box: Box, step: int, offset: ir.Value | None, side: int
) -> CropTaps:
    """Taps of a box's pixels, `step` luma pixels apart.

    Args:
        warp: [2, 3]. offset: [2], luma position of chroma sample (0, 0).
    """
    axes = []
    for axis, (start, end) in enumerate(((box.left, box.right), (box.top, box.bottom))):
        first, last = (op.Squeeze(op.Div(edge, [step]), [0]) for edge in (start, end))
        numbers = to_float(op, op.Range(first, last, 1))
        if step != 1 and offset is not None:
            numbers = op.Add(op.Mul(numbers, float(step)), op.Slice(offset, [axis], [axis + 1]))
        axes.append(op.Unsqueeze(numbers, [axis]))
    # The largest number below the border's own index: cut off, it leaves a neighbour to the right.
    most = float(np.nextafter(np.float32(side + 1), np.float32(0.0)))
    wholes, rests = [], []
    for line in split(op, warp, 2, 0):
        by_x, by_y, shift = split(op, line, 3, 1)
        # everything but the last sum is of one row's or one column's size
        rows = op.Add(op.Mul(axes[1], by_y), op.Add(shift, float(_BORDER)))
        position = op.Clip(op.Add(op.Mul(axes[0], by_x), rows), 0.0, most)
        whole = op.Cast(position, to=ir.DataType.INT32)
        wholes.append(whole)
        rests.append(op.Sub(position, to_float(op, whole)))
    width = constant(op, np.array(side + 2 * _BORDER, np.int32))
    above = op.Add(op.Mul(wholes[1], width), wholes[0])
    taps = (above, op.Add(above, width), *rests)
    return CropTaps(*(op.Reshape(value, [1, -1]) for value in taps))


def look_up(op: Op, table: LookupTable, taps: CropTaps) -> ir.Value:
    """Bilinear values [1, P] float32."""

    def mix(index: ir.Value) -> ir.Value:
        value, rise = (
            op.GatherElements(values, index, axis=1) for values in (table.value, table.rise)
        )
        return op.Add(value, op.Mul(rise, taps.right))

    above, below = mix(taps.above), mix(taps.below)
    return op.Add(above, op.Mul(op.Sub(below, above), taps.down))
