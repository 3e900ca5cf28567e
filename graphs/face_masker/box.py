"""FaceFusion's box mask, with the blur and the padding that each request asks for.

A border of the crop is zeroed, half as wide as the amount of blur or as wide as the padding, and
ones and zeros are blurred by a Gaussian of a quarter of that amount over mirrored edges. Both steps
are separable: a mask is the product of a column and a row.

Source: facefusion@33cc6b40, face_masker.py, `create_box_mask`; OpenCV's GaussianBlur for a kernel
size that follows from sigma (float32: 4 sigma on either side).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.arithmetic import any_of
from graphs.authoring import GraphAuthor
from graphs.contract import DEFAULT_BOX_BLUR, PADDING_BASE, Option
from graphs.pixels import option
from graphs.shapes import Op, constant, dimension, to_float

_LEAST_SIGMA: Final = 0.25
"""Where nothing is blurred, so that nothing divides by 0."""


def box_mask_profile(size: int) -> npt.NDArray[np.float32]:
    """One side of the default mask, (S,) float32 in [0, 1]: the mask is its product with itself."""
    amount = int(size * 0.5 * DEFAULT_BOX_BLUR)
    border = max(amount // 2, 1)
    profile = np.ones((1, size), np.float32)
    profile[:, :border] = 0.0
    profile[:, -border:] = 0.0
    if amount > 0:
        # a single row: the vertical blur sees its own mirror image and changes nothing
        profile = cv2.GaussianBlur(profile, (0, 0), amount * 0.25).astype(np.float32)
    side: npt.NDArray[np.float32] = profile[0]
    return side


def box_masks(author: GraphAuthor, options: ir.Value, size: int) -> ir.Value:
    """Masks [B, 1, 1, S, S] float32 in [0, 1], one a row of valid options [B, 16].

    Where blur and padding are the default, `box_mask_profile` to the last bit; where no row of a
    batch asks for anything else, nothing is computed.
    """
    op: Op = author.op
    asked = op.Greater(
        op.Add(option(op, options, Option.BOX_BLUR), option(op, options, Option.BOX_PADDING)), 0.0
    )
    usual = constant(op, np.tile(box_mask_profile(size), (1, 2, 1)))

    def make(op: Op) -> list[ir.Value]:
        return [op.Where(op.Unsqueeze(asked, [2]), _profiles(op, options, size), usual)]

    def take(op: Op) -> list[ir.Value]:
        return [op.Expand(usual, op.Concat(dimension(op, options, 0), [2, size], axis=0))]

    # [B, 2, S]: down the rows and along the columns
    found = GraphAuthor.either(
        op, any_of(op, asked), ("asked_box", make), ("usual_box", take), "B", 2, size,
        label="sides",
    )  # fmt: skip
    down, along = (op.Slice(found, [part], [part + 1], [1]) for part in (0, 1))
    return op.Mul(op.Unsqueeze(down, [1, 4]), op.Unsqueeze(along, [1, 2]))


def _profiles(op: Op, options: ir.Value, size: int) -> ir.Value:
    """Sides of the masks that options ask for: [B, 2, S], down the rows and along the columns."""
    given = option(op, options, Option.BOX_BLUR)
    blur = op.Where(op.Greater(given, 0.0), given, DEFAULT_BOX_BLUR)
    amount = op.Floor(op.Mul(blur, 0.5 * size))
    border = op.Max(op.Floor(op.Mul(amount, 0.5)), 1.0)
    top, right, bottom, left = (
        op.Max(border, op.Floor(op.Div(op.Mul(percent, float(size)), 100.0)))
        for percent in _digits(op, option(op, options, Option.BOX_PADDING))
    )
    first = op.Unsqueeze(op.Concat(top, left, axis=1), [2, 3])
    last = op.Sub(float(size), op.Unsqueeze(op.Concat(bottom, right, axis=1), [2, 3]))
    # [B, 2, S, O]: what lies `offset` pixels from each pixel, edges mirrored without repeating them
    offset = np.arange(-(size // 2), size // 2 + 1)
    place = np.abs(np.arange(size)[:, None] + offset)
    place = np.minimum(place, 2 * (size - 1) - place).astype(np.float32)
    places = constant(op, place)
    inside = op.And(op.GreaterOrEqual(places, first), op.Less(places, last))
    return op.Squeeze(op.MatMul(to_float(op, inside), _kernel(op, amount, offset)), [3])


def _kernel(op: Op, amount: ir.Value, offset: npt.NDArray[np.int64]) -> ir.Value:
    """Weights [B, 1, O, 1] that sum to 1, of a Gaussian cut off where OpenCV cuts it."""
    amount = op.Unsqueeze(amount, [2, 3])
    distance = constant(op, np.abs(offset).astype(np.float32)[None, None, :, None])
    scaled = op.Div(distance, op.Max(op.Mul(amount, 0.25), _LEAST_SIGMA))
    weights = op.Exp(op.Mul(op.Mul(scaled, scaled), -0.5))
    weights = op.Where(op.LessOrEqual(distance, amount), weights, 0.0)
    return op.Div(weights, op.ReduceSum(weights, [2], keepdims=1))


def _digits(op: Op, packed: ir.Value) -> list[ir.Value]:
    """Four numbers from 0 to 63 each, lowest first, of [B, 1] whole numbers."""
    found = []
    for _ in range(4):
        rest = op.Floor(op.Mul(packed, 1.0 / PADDING_BASE))
        found.append(op.Sub(packed, op.Mul(rest, float(PADDING_BASE))))
        packed = rest
    return found
