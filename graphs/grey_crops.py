"""Grey stays grey: a swap on a black-and-white target has no colour either.

A trained swapper paints skin as it knows it, and the project's own takes chroma along with detail;
on a film without colour a face would blush. How far the channels of the target's crop lie apart, on
average, says whether it has any colour: below GREY the swap gets none, above COLORED it keeps its
own, and between the two it keeps a share, so that no frame of a fading picture jumps. A picture in
one tint (sepia) has colour by this rule.

With R = G = B in a crop, an I420 frame's chroma is 128 under every matrix and range, and the three
channels of a BGR frame are blended alike: what was grey in the frame is grey in the result.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.arithmetic import is_number
from graphs.shapes import Op, constant, split

GREY: Final = 4.0 / 255.0
COLORED: Final = 10.0 / 255.0
"""Mean of max(R, G, B) - min(R, G, B), in [0, 1]. Where compression has moved both chroma planes of
a grey frame by one level, against each other, it is 3.9 levels; skin in daylight has some 60."""
_STEP: Final = 4
"""Every fourth pixel of every fourth row is looked at: a mean needs no more."""

LUMA: Final = (0.2126, 0.7152, 0.0722)
"""Weights of R, G, B in the grey that is left (ITU-R BT.709)."""


def color_share(op: Op, crops: ir.Value) -> ir.Value:
    """How much of its colour a swap keeps: [B, K, 1, 1, 1] float32 in [0, 1].

    Args:
        crops: of the target, [B, K, 3, S, S] float32 RGB in [0, 1]. What is no number is left out.
    """
    end = np.iinfo(np.int64).max
    seen = op.Slice(crops, [0, 0], [end, end], [3, 4], [_STEP, _STEP])
    seen = op.Where(is_number(op, seen), seen, 0.0)
    red, green, blue = split(op, seen, 3, 2)
    apart = op.Sub(op.Max(red, green, blue), op.Min(red, green, blue))
    mean = op.ReduceMean(apart, [2, 3, 4], keepdims=1)
    return op.Clip(op.Mul(op.Sub(mean, GREY), 1.0 / (COLORED - GREY)), 0.0, 1.0)


def keep_grey(op: Op, crops: ir.Value, swapped: ir.Value) -> ir.Value:
    """`swapped` [B, K, 3, S, S] with the share of its colour that its target's crop allows.

    With all of it, `swapped` comes back bit for bit; with none, its three channels are equal.
    """
    lost = op.Sub(1.0, color_share(op, crops))
    weights = constant(op, np.array(LUMA, np.float32).reshape(3, 1, 1))
    grey = op.ReduceSum(op.Mul(swapped, weights), [2], keepdims=1)
    mixed = op.Sub(swapped, op.Mul(op.Sub(swapped, grey), lost))
    return op.Where(op.GreaterOrEqual(lost, 1.0), grey, mixed)
