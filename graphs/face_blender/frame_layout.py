"""How the pictures of a frame lie in its bytes, and which of them share lookups in a crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.contract import FrameFormat
from graphs.geometry import apply_warps, invert_warps
from graphs.shapes import Op, constant, dimension, split, to_float


@dataclass(frozen=True)
class Layer:
    """Pictures of one size that share their lookups: BGR; or Y; or U and V.

    pictures: positions among the frame's pictures.
    channels: the crop's colours they hold, one a picture, or all three interleaved.
    step: luma pixels from one of their pixels to the next.
    """

    pictures: tuple[int, ...]
    channels: tuple[int, ...]
    step: int

    @property
    def elements(self) -> int:
        """Values of one pixel in a row."""
        return len(self.channels) // len(self.pictures)


LAYERS: dict[FrameFormat, tuple[Layer, ...]] = {
    "i420": (Layer((0,), (0,), 1), Layer((1, 2), (1, 2), 2)),
    "bgr": (Layer((0,), (0, 1, 2), 1),),
}


@dataclass(frozen=True)
class FrameLayout:
    """Where the pictures of a flat frame lie; every value int64 [1].

    height, width: of the frame, pixels.
    starts: first byte of each picture.
    lines: bytes of one row of each picture.
    """

    height: ir.Value
    width: ir.Value
    starts: tuple[ir.Value, ...]
    lines: tuple[ir.Value, ...]


def frame_layout(op: Op, frame: ir.Value, frame_format: FrameFormat) -> FrameLayout:
    """Of frames [B, H*3/2, W] (i420) or [B, H, W, 3] (bgr)."""
    height, width = dimension(op, frame, 1), dimension(op, frame, 2)
    start = constant(op, np.array([0], np.int64))
    if frame_format == "bgr":
        return FrameLayout(height, width, (start,), (op.Mul(width, [3]),))
    height = op.Div(op.Mul(height, [2]), [3])
    luma = op.Mul(height, width)
    half = op.Div(width, [2])
    start_v = op.Add(luma, op.Div(luma, [4]))
    return FrameLayout(height, width, (start, luma, start_v), (width, half, half))


def crop_bounds(
    op: Op, warps: ir.Value, side: int, layout: FrameLayout
) -> tuple[tuple[ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
    """What crops cover of their frame: first and last + 1 column, first and last + 1 row.

    The box of a crop's corners one pixel out, where the mask has faded to 0, widened to whole 2x2
    blocks so that luma and chroma cover the same pixels, and cut off at the frame's edge.

    Args:
        warps: [..., 2, 3] float32, frame to crop. side: S.

    Returns:
        float32 [..., 1, 1] each, luma pixels.
    """
    corners = np.array([[-1, -1], [side, -1], [-1, side], [side, side]], np.float32)
    x, y = (constant(op, corners[None, :, axis]) for axis in (0, 1))
    positions = apply_warps(op, invert_warps(op, warps), x, y)
    found = []
    for position, size in zip(positions, (layout.width, layout.height), strict=True):
        limit = to_float(op, size)
        four = split(op, position, 4, -1)
        low = op.Floor(op.Div(op.Min(*four), 2.0))
        high = op.Ceil(op.Div(op.Add(op.Max(*four), 1.0), 2.0))
        first, last = (op.Min(op.Max(op.Mul(b, 2.0), 0.0), limit) for b in (low, high))
        found.append((first, last))
    return found[0], found[1]
