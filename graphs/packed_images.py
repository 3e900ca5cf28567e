"""A picture as one float a pixel: three bytes of it, r + 256 g + 65,536 b, are exact in float32.

An image swapper's source crosses the wire, and Triton's own memory, with every request; packed it
is a third of its size, and loses nothing that a photo of 8 bits a channel ever had.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from graphs.shapes import Op, split

LEVELS: Final = 255.0
"""The largest value of a byte."""
_BYTE: Final = 256.0


def pack_rgb(op: Op, image: ir.Value) -> ir.Value:
    """[N, s * s] float32 whole numbers below 2^24, of [N, 3, s, s] RGB in [0, 1].

    Each channel is rounded to the nearest of 256 levels.
    """
    levels = op.Round(op.Mul(op.Clip(image, 0.0, 1.0), LEVELS))
    red, green, blue = split(op, levels, 3, 1)
    packed = op.Add(op.Add(red, op.Mul(green, _BYTE)), op.Mul(blue, _BYTE * _BYTE))
    return op.Reshape(packed, [0, -1])


def unpack_rgb(op: Op, packed: ir.Value, side: int) -> ir.Value:
    """[N, 3, s, s] float32 RGB in [0, 1] of [N, s * s] as `pack_rgb` makes them.

    Dividing by a power of two is exact, and so is every difference here. Numbers that nothing was
    packed to give some colour in [0, 1], NaN gives NaN.
    """
    blue = op.Floor(op.Mul(packed, 1.0 / (_BYTE * _BYTE)))
    rest = op.Sub(packed, op.Mul(blue, _BYTE * _BYTE))
    green = op.Floor(op.Mul(rest, 1.0 / _BYTE))
    red = op.Sub(rest, op.Mul(green, _BYTE))
    channels = (op.Reshape(channel, [-1, 1, side, side]) for channel in (red, green, blue))
    levels = op.Clip(op.Concat(*channels, axis=1), 0.0, LEVELS)
    return op.Div(levels, LEVELS)
