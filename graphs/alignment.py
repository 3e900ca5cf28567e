"""Align: where the landmarks of a face belong in a crop, the warp that takes them there, the crop.

The aligner aligns the faces of a request to the swapper's template, the recogniser and the source
encoder the first face of a photo to their own. For coordinates and warps see `graphs.geometry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.arithmetic import are_numbers
from graphs.contract import FACE_COLUMNS, LANDMARK_COLUMN, SCORE_COLUMN, FrameFormat
from graphs.frame_sampling import sample_i420
from graphs.geometry import (
    LEAST_SCALE,
    apply_warps,
    bilinear_taps,
    gather_bilinear,
    invert_warps,
)
from graphs.pixels import chroma_offset, color_index, frame_size, yuv_to_rgb
from graphs.shapes import Op, constant, dimension, split, to_float

Array = npt.NDArray[np.float64]


def _template(*points: tuple[float, float]) -> Array:
    array = np.array(points, dtype=np.float64)
    array.setflags(write=False)
    return array


TEMPLATES: Final[Mapping[str, Array]] = MappingProxyType(
    {
        "arcface_112_v1": _template(
            (0.35473214, 0.45658929),
            (0.64526786, 0.45658929),
            (0.50000000, 0.61154464),
            (0.37913393, 0.77687500),
            (0.62086607, 0.77687500),
        ),
        "arcface_112_v2": _template(
            (0.34191607, 0.46157411),
            (0.65653393, 0.45983393),
            (0.50022500, 0.64050536),
            (0.37097589, 0.82469196),
            (0.63151696, 0.82325089),
        ),
        "arcface_128": _template(
            (0.36167656, 0.40387734),
            (0.63696719, 0.40235469),
            (0.50019687, 0.56044219),
            (0.38710391, 0.72160547),
            (0.61507734, 0.72034453),
        ),
        "ffhq_512": _template(
            (0.37691676, 0.46864664),
            (0.62285697, 0.46912813),
            (0.50123859, 0.61331904),
            (0.39308822, 0.72541100),
            (0.61150205, 0.72490465),
        ),
    }
)
"""Where the five landmarks lie in an aligned crop, in units of its side: left eye, right eye, nose,
left and right mouth corner (as seen in the image). Multiply by the crop's side for pixels.

Source: facefusion/facefusion@33cc6b40, facefusion/face_helper.py (WARP_TEMPLATE_SET); times 112,
arcface_112_v2 is insightface 2.1's `arcface_dst`, and times 128, arcface_128 is the same points
8 pixels to the right (its `estimate_norm` at 128).
"""

_LEAST_SPREAD: Final = 1e-3
"""px^2. Landmarks whose summed squared distance from their mean is below this are one point."""


def fit_similarity(op: Op, points: ir.Value, template: Array) -> ir.Value:
    """The similarity (rotation, scale, shift; no reflection) that best takes points to a template.

    Least squares over five points in closed form: with p, q the centred points and template,
    a = sum(p.q) / sum(p^2) and b = sum(px qy - py qx) / sum(p^2) give [[a, -b], [b, a]] and the
    shift q_mean - R p_mean. Umeyama's fit gives the same matrix except where that one would be a
    reflection, which a face is not.

    Args:
        points: [..., 5, 2] float32, pixels.
        template: (5, 2) in pixels of the crop.

    Returns:
        warps [..., 2, 3] float32; all zeros where the points are (nearly) one point or where the
        fit would shrink everything to one: never NaN or infinite for finite points.

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", TPAMI 13(4), 1991.
    """
    target_mean = template.mean(axis=0)
    centred_template = template - target_mean
    q = constant(op, centred_template.astype(np.float32))
    turned = np.stack([centred_template[:, 1], -centred_template[:, 0]], axis=1)
    q_turned = constant(op, turned.astype(np.float32))
    mean = op.ReduceMean(points, [-2], keepdims=1)
    p = op.Sub(points, mean)
    spread = op.ReduceSum(op.Mul(p, p), [-2, -1], keepdims=1)
    enough = op.Greater(spread, _LEAST_SPREAD)
    divisor = op.Where(enough, spread, 1.0)
    a = op.Div(op.ReduceSum(op.Mul(p, q), [-2, -1], keepdims=1), divisor)
    b = op.Div(op.ReduceSum(op.Mul(p, q_turned), [-2, -1], keepdims=1), divisor)
    mean_x, mean_y = split(op, mean, 2, -1)
    shift_x = op.Sub(float(target_mean[0]), op.Sub(op.Mul(a, mean_x), op.Mul(b, mean_y)))
    shift_y = op.Sub(float(target_mean[1]), op.Add(op.Mul(b, mean_x), op.Mul(a, mean_y)))
    warps = op.Concat(
        op.Concat(a, op.Neg(b), shift_x, axis=-1), op.Concat(b, a, shift_y, axis=-1), axis=-2
    )
    scale = op.Add(op.Mul(a, a), op.Mul(b, b))
    fitted = op.And(enough, op.Greater(scale, LEAST_SCALE**2))
    return op.Where(fitted, warps, 0.0)


def fit_quality(op: Op, warps: ir.Value, points: ir.Value, template: Array) -> ir.Value:
    """How much of a template's spread the fitted points explain: [...] float32 in [0, 1].

    The squared correlation of points and template, (a^2 + b^2) sum(p^2) / sum(q^2): what the least
    squares of `fit_similarity` leave is one minus this. 0 where there is no warp.

    Args:
        warps: [..., 2, 3] of `fit_similarity` for these points [..., 5, 2] and this template.
    """
    q = template - template.mean(axis=0)
    p = op.Sub(points, op.ReduceMean(points, [-2], keepdims=1))
    spread = op.ReduceSum(op.Mul(p, p), [-2, -1], keepdims=0)
    column = op.Slice(warps, [0], [1], [-1])
    scale = op.ReduceSum(op.Mul(column, column), [-2, -1], keepdims=0)
    return op.Mul(op.Mul(scale, spread), float(1.0 / (q * q).sum()))


def landmark_points(op: Op, faces: ir.Value) -> ir.Value:
    """The five landmarks [B, K, 5, 2] of face rows [B, K, 15]."""
    columns = op.Slice(faces, [LANDMARK_COLUMN], [FACE_COLUMNS], [2])
    shape = op.Concat(dimension(op, columns, 0), dimension(op, columns, 1), [5, 2], axis=0)
    return op.Reshape(columns, shape)


def fit_warps(op: Op, faces: ir.Value, template: Array) -> ir.Value:
    """Warps [B, K, 2, 3] float32, frame to crop, one a face; empty slots are 0.

    Args:
        faces: [B, K, 15] float32, finite.
        template: (5, 2), pixels of the crop.
    """
    warps = fit_similarity(op, landmark_points(op, faces), template)
    score = op.Slice(faces, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    return op.Where(op.Greater(op.Unsqueeze(score, [3]), 0.0), warps, 0.0)


@dataclass(frozen=True)
class _Grid:
    """Where the pixels of aligned crops lie in their frames.

    x, y: float32 [B, P], luma pixels, P = K * S * S. flat: int64 [2], their shape as (B, -1).
    height, width: int64 [1], of a frame.
    batch, slots: int64 [1], B and K. side: S.
    """

    x: ir.Value
    y: ir.Value
    flat: ir.Value
    height: ir.Value
    width: ir.Value
    batch: ir.Value
    slots: ir.Value
    side: int

    def as_channel(self, op: Op, values: ir.Value) -> ir.Value:
        """[B, K, 1, S, S] from [B, P]."""
        shape = op.Concat(self.batch, self.slots, [1, self.side, self.side], axis=0)
        return op.Reshape(values, shape)


def _crop_grid(
    op: Op, frames: ir.Value, frame_format: FrameFormat, warps: ir.Value, side: int
) -> _Grid:
    axis = np.arange(side, dtype=np.float32)
    x, y = apply_warps(
        op, invert_warps(op, warps), constant(op, axis[None]), constant(op, axis[:, None])
    )
    batch = dimension(op, warps, 0)
    flat = op.Concat(batch, [-1], axis=0)
    height, width = frame_size(op, frames, frame_format)
    x, y = (op.Reshape(value, flat) for value in (x, y))
    return _Grid(x, y, flat, height, width, batch, dimension(op, warps, 1), side)


def _only_warped(op: Op, crops: ir.Value, warps: ir.Value) -> ir.Value:
    """Crops [B, K, 3, S, S], 0 where there is no warp."""
    there = op.Greater(op.ReduceMax(op.Abs(warps), [2, 3], keepdims=1), 0.0)
    return op.Where(op.Unsqueeze(there, [2]), crops, 0.0)


def crop_bgr(op: Op, frames: ir.Value, warps: ir.Value, side: int) -> ir.Value:
    """Aligned crops [B, K, 3, S, S] float32 RGB in [0, 1]; slots without a warp are 0.

    Bilinear, edge pixels repeated outside the frame.

    Args:
        frames: [B, H, W, 3], float32 in 0..255 or uint8.
        warps: [B, K, 2, 3] float32, frame to crop.
        side: S.
    """
    levels = _read_bgr(op, frames, warps, side)
    return _only_warped(op, op.Mul(levels, 1.0 / 255.0), warps)


def _read_bgr(op: Op, frames: ir.Value, warps: ir.Value, side: int) -> ir.Value:
    """RGB [B, K, 3, S, S] float32 in 0..255, whatever the warp; see `crop_bgr`."""
    grid = _crop_grid(op, frames, "bgr", warps, side)
    elements = op.Reshape(frames, grid.flat)
    taps = bilinear_taps(op, grid.x, grid.y, grid.height, grid.width)
    channels = [
        grid.as_channel(op, gather_bilinear(op, elements, taps, stride=3, start=start))
        # BGR to RGB
        for start in (2, 1, 0)
    ]
    return op.Concat(*channels, axis=2)


def crop_i420(
    op: Op,
    frames: ir.Value,
    options: ir.Value,
    warps: ir.Value,
    side: int,
    *,
    sampled: bool = False,
) -> ir.Value:
    """The same of I420 frames: planes are read each at their own resolution, and only what was
    read is converted.

    Args:
        frames: [B, H*3/2, W], float32 in 0..255 or uint8 (float32 where `sampled`).
        options: [B, 16] float32, every row valid: colour matrix, range and chroma location.
        warps, side: as for `crop_bgr`.
        sampled: read them by GridSample (`graphs.frame_sampling`).
    """
    grid = _crop_grid(op, frames, "i420", warps, side)
    read = _sample_planes if sampled else _gather_planes
    luma, blue, red = (grid.as_channel(op, p) for p in read(op, frames, options, grid))
    crops = yuv_to_rgb(op, luma, blue, red, color_index(op, options, grid.height))
    return _only_warped(op, crops, warps)


def _sample_planes(
    op: Op, frames: ir.Value, options: ir.Value, grid: _Grid
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """As `_gather_planes`, but for one axis more of size 1."""
    x, y = (op.Unsqueeze(position, [1]) for position in (grid.x, grid.y))
    offset = chroma_offset(op, options)
    luma, chroma = sample_i420(op, frames, (grid.height, grid.width), (x, y), offset)
    blue, red = split(op, chroma, 2, 1)
    return luma, blue, red


def _gather_planes(
    op: Op, frames: ir.Value, options: ir.Value, grid: _Grid
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Y, U and V [B, P] at the grid's points, chroma where each row's location puts it."""
    height, width = grid.height, grid.width
    elements = op.Reshape(frames, op.Concat(dimension(op, grid.x, 0), [-1], axis=0))
    luma = gather_bilinear(op, elements, bilinear_taps(op, grid.x, grid.y, height, width))
    offsets = split(op, chroma_offset(op, options), 2, 1)
    x, y = (
        op.Mul(op.Sub(position, offset), 0.5)
        for position, offset in zip((grid.x, grid.y), offsets, strict=True)
    )
    half_height, half_width = op.Div(height, [2]), op.Div(width, [2])
    taps = bilinear_taps(op, x, y, half_height, half_width)
    start_u = op.Mul(height, width)
    start_v = op.Add(start_u, op.Mul(half_height, half_width))
    blue, red = (gather_bilinear(op, elements, taps, start=start) for start in (start_u, start_v))
    return luma, blue, red


def has_first_face(op: Op, faces: ir.Value) -> ir.Value:
    """Whether row 0 of `faces` [B, M, 15] is a face with usable landmarks: bool [B, 1]."""
    first = op.Squeeze(op.Slice(faces, [0], [1], [1]), [1])
    score = op.Slice(first, [SCORE_COLUMN], [SCORE_COLUMN + 1], [1])
    landmarks = op.Slice(first, [LANDMARK_COLUMN], [FACE_COLUMNS], [1])
    return op.And(op.Greater(score, 0.0), are_numbers(op, landmarks, [1]))


def crop_first_face(
    op: Op, frames: ir.Value, faces: ir.Value, present: ir.Value, *, template: str, size: int
) -> ir.Value:
    """The first face of each photo, warped so that its landmarks lie on a template.

    Read as by `crop_bgr`. Rows without a face hold some colour of the frame; the caller masks what
    it makes of them.

    Args:
        frames: [B, H, W, 3] uint8 BGR.
        faces: [B, M, 15] float32, as in the contract.
        present: [B, 1] bool from `has_first_face`.
        template: key in TEMPLATES.
        size: side of the crop, pixels.

    Returns:
        [B, 3, size, size] float32 RGB in [0, 1].
    """
    warps = first_face_warps(op, faces, present, template=template, size=size)
    # TensorRT's parser takes a uint8 frame to a Cast and to nothing else.
    levels = op.Squeeze(_read_bgr(op, to_float(op, frames), warps, size), [1])
    # Divided, as published recognisers are fed, to the last bit: 1/255 is no float32.
    return op.Div(levels, 255.0)


def first_face_warps(
    op: Op, faces: ir.Value, present: ir.Value, *, template: str, size: int
) -> ir.Value:
    """The warps [B, 1, 2, 3] of `crop_first_face`; zeros without a face."""
    first = op.Slice(faces, [0], [1], [1])
    # Coordinates become indices further down: what is not a face must not get that far.
    first = op.Where(op.Unsqueeze(present, [2]), first, 0.0)
    return fit_warps(op, first, TEMPLATES[template] * size)
