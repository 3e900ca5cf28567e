"""Crops made ready for lookups, and looked up with GridSample: colours and mask alike.

Crops get one more pixel all around, their edge repeated and the mask 0: whatever lies farther out
reads this border.
"""

from __future__ import annotations

import onnx_ir as ir

from graphs.shapes import Op

BORDER = 1


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
