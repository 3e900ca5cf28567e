"""Views: the squares around detected faces that a landmark network looks at.

A view is framed as the network wants to see a face (`networks.landmarkers.Framing`): a square
around the detected box, turned so that the face stands upright in it. For coordinates and warps see
`graphs.geometry`.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from graphs.alignment import TEMPLATES, crop_bgr, crop_i420, fit_similarity
from graphs.arithmetic import are_numbers
from graphs.contract import FACE_COLUMNS, LANDMARK_COLUMN, SCORE_COLUMN, FrameFormat
from graphs.shapes import Op, dimension, split
from networks.landmarkers import Framing, Landmarker

_LEAST_BOX_PX: Final = 1.0
"""A box that is smaller is no face: its view would be one pixel, many times over."""

_UPRIGHT: Final = TEMPLATES["ffhq_512"]
"""How the five landmarks of an upright face lie to each other; only the turn to them is used."""


def sample_views(
    op: Op,
    frames: ir.Value,
    frame_format: FrameFormat,
    options: ir.Value,
    detections: ir.Value,
    slots: ir.Value,
    landmarker: Landmarker,
    *,
    sampled: bool = False,
) -> tuple[ir.Value, ir.Value]:
    """Views of the first F faces, and the warps that take the frame to them.

    Read as by `graphs.alignment.crop_bgr` and `crop_i420`. Rows without a face are 0.

    Args:
        frames: shaped as sent, float32 in 0..255 or uint8 (float32 where `sampled`).
        options: [B, 8] float32, every row valid; a BGR frame has no need of them.
        detections: [B, M, 15] float32, as `faces` in the contract.
        slots: int64 [1], F.
        landmarker: one that looks at a view.
        sampled: read I420 frames by GridSample (`graphs.frame_sampling`).

    Returns:
        views [B, F, 3, V, V] float32 RGB in [0, 1] and view_warps [B, F, 2, 3] float32.

    Raises:
        ValueError: the landmarker looks at no view.
    """
    size = landmarker.view_size
    if landmarker.framing is None or size is None:
        raise ValueError(f"{landmarker.name} takes landmarks, not a view: there is none to sample")
    warps = frame_views(op, detections, slots, landmarker.framing, size)
    if frame_format == "bgr":
        return crop_bgr(op, frames, warps, size), warps
    return crop_i420(op, frames, options, warps, size, sampled=sampled), warps


def frame_views(
    op: Op, detections: ir.Value, slots: ir.Value, framing: Framing, size: int
) -> ir.Value:
    """Warps [B, F, 2, 3] float32, frame to view, of the first F faces; rows without one are 0.

    With the unit vector (c, s) of the turn, the box's centre p0 and k = V / side, a view's pixel
    is k (c (x - x0) - s (y - y0)) + V / 2 and k (s (x - x0) + c (y - y0)) + V / 2 - shift V.

    Args:
        detections: [B, M, 15] float32; NaN and infinity are no face.
        slots: int64 [1], F.
        size: V, pixels.
    """
    chosen = op.Slice(detections, [0], slots, [1])
    numbers = are_numbers(op, chosen, [2])
    score = op.Slice(chosen, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    safe = op.Where(numbers, chosen, 0.0)
    left, top, right, bottom = split(op, op.Slice(safe, [0], [SCORE_COLUMN], [2]), 4, 2)
    longer = op.Max(op.Sub(right, left), op.Sub(bottom, top))
    usable = op.And(
        op.And(numbers, op.Greater(score, 0.0)), op.Greater(longer, _LEAST_BOX_PX)
    )
    scale = op.Div(size / framing.scale, op.Where(usable, longer, 1.0))
    cosine, sine = scale, op.Mul(scale, 0.0)
    if framing.turned:
        direction_x, direction_y = _upright(op, safe)
        cosine, sine = op.Mul(scale, direction_x), op.Mul(scale, direction_y)
    x = op.Mul(op.Add(left, right), 0.5)
    y = op.Mul(op.Add(top, bottom), 0.5)
    shift_x = op.Sub(size / 2, op.Sub(op.Mul(cosine, x), op.Mul(sine, y)))
    shift_y = op.Sub(size * (0.5 - framing.shift), op.Add(op.Mul(sine, x), op.Mul(cosine, y)))
    rows = [op.Concat(cosine, op.Neg(sine), shift_x, axis=2),
            op.Concat(sine, cosine, shift_y, axis=2)]  # fmt: skip
    warps = op.Concat(*(op.Unsqueeze(row, [2]) for row in rows), axis=2)
    return op.Where(op.Unsqueeze(usable, [3]), warps, 0.0)


def _upright(op: Op, rows: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine [B, F, 1] of the turn that puts each face upright; 1 and 0 where none does.

    All five landmarks are asked, not the eyes alone: in a profile those are too near each other.
    """
    columns = op.Slice(rows, [LANDMARK_COLUMN], [FACE_COLUMNS], [2])
    shape = op.Concat(dimension(op, rows, 0), dimension(op, rows, 1), [5, 2], axis=0)
    fitted = fit_similarity(op, op.Reshape(columns, shape), _UPRIGHT)
    a = op.Squeeze(op.Slice(fitted, [0, 0], [1, 1], [2, 3]), [3])
    b = op.Squeeze(op.Slice(fitted, [1, 0], [2, 1], [2, 3]), [3])
    length = op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))
    known = op.Greater(length, 0.0)
    divisor = op.Where(known, length, 1.0)
    return op.Where(known, op.Div(a, divisor), 1.0), op.Where(known, op.Div(b, divisor), 0.0)
