"""The first face of a BGR photo, aligned: what the recogniser and the source encoder look at."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.contract import LANDMARK_COLUMN, SCORE_COLUMN
from graphs.geometry import (
    TEMPLATES,
    apply_warps,
    bilinear_taps,
    fit_similarity,
    gather_bilinear,
    invert_warps,
)
from graphs.pixels import frame_size
from graphs.shapes import Op, constant, to_float

_FARTHEST_PX = 1e6
"""No landmark of any frame is farther out; NaN and infinity are not nearer either."""


def has_first_face(op: Op, faces: ir.Value) -> ir.Value:
    """Whether row 0 of `faces` [B, M, 15] is a face with usable landmarks: bool [B, 1]."""
    first = op.Squeeze(op.Slice(faces, [0], [1], [1]), [1])
    score = op.Slice(first, [SCORE_COLUMN], [SCORE_COLUMN + 1], [1])
    landmarks = op.Slice(first, [LANDMARK_COLUMN], [LANDMARK_COLUMN + 10], [1])
    # Comparisons with NaN are false, and a maximum may drop a NaN: count what is near instead.
    near = to_float(op, op.Less(op.Abs(landmarks), _FARTHEST_PX))
    return op.And(op.Greater(score, 0.0), op.Greater(op.ReduceMin(near, [1], keepdims=1), 0.5))


def crop_first_face(
    op: Op, frame: ir.Value, faces: ir.Value, present: ir.Value, *, template: str, size: int
) -> ir.Value:
    """The first face of each frame, warped so that its landmarks lie on a template.

    Bilinear, edge pixels repeated outside the frame. Rows without a face hold some colour of the
    frame; the caller masks what it makes of them.

    Args:
        frame: [B, H, W, 3] uint8 BGR.
        faces: [B, M, 15] float32, as in the contract.
        present: [B, 1] bool from `has_first_face`.
        template: key in `graphs.geometry.TEMPLATES`.
        size: side of the crop, pixels.

    Returns:
        [B, 3, size, size] float32 RGB in [0, 1].
    """
    pixels = to_float(op, frame)
    height, width = frame_size(op, frame, "bgr")
    first = op.Squeeze(op.Slice(faces, [0], [1], [1]), [1])
    landmarks = op.Slice(first, [LANDMARK_COLUMN], [LANDMARK_COLUMN + 10], [1])
    # Coordinates become indices further down: what is not a face must not get that far.
    points = op.Reshape(op.Where(present, landmarks, 0.0), [-1, 5, 2])
    warps = fit_similarity(op, points, TEMPLATES[template] * size)
    column = np.arange(size, dtype=np.float32)
    x, y = apply_warps(
        op, invert_warps(op, warps), constant(op, column[None, :]), constant(op, column[:, None])
    )
    flat = [-1, size * size]
    taps = bilinear_taps(op, op.Reshape(x, flat), op.Reshape(y, flat), height, width)
    elements = op.Flatten(pixels, axis=1)
    channels = [
        op.Unsqueeze(gather_bilinear(op, elements, taps, stride=3, start=start), [1])
        # BGR to RGB.
        for start in (2, 1, 0)
    ]
    rgb = op.Div(op.Concat(*channels, axis=1), 255.0)
    return op.Reshape(rgb, [-1, 3, size, size])


def unit_length(op: Op, vectors: ir.Value) -> ir.Value:
    """Each row of `vectors` [N, D] divided by its Euclidean length; a row of zeros stays zeros."""
    squares = op.ReduceSum(op.Mul(vectors, vectors), [1], keepdims=1)
    return op.Div(vectors, op.Max(op.Sqrt(squares), 1e-12))
