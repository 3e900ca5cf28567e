"""Alignment templates, five-point similarity fits, affine sampling and separable resizing.

Coordinates are pixels, x then y, with pixel centres at integers. A warp is a 2x3 matrix that takes
frame coordinates to crop coordinates; all zeros means "no warp". Everything here is float32: half
precision cannot tell neighbouring pixels of a 4K frame apart, and no matrix product is used,
because a GPU may run those with a 10-bit mantissa (TF32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.arithmetic import lerp
from graphs.shapes import Op, constant, split, to_float, to_int64

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
        "mtcnn_512": _template(
            (0.36562865, 0.46733799),
            (0.63305391, 0.46585885),
            (0.50019127, 0.61942959),
            (0.39032951, 0.77598822),
            (0.61178945, 0.77476328),
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

_LEAST_SCALE: Final = 1e-6
"""A fit that shrinks the frame below this (squared: 1e-12) has no inverse worth the name."""


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
    fitted = op.And(enough, op.Greater(scale, _LEAST_SCALE**2))
    return op.Where(fitted, warps, 0.0)


def _entries(op: Op, warps: ir.Value) -> list[ir.Value]:
    """The six entries of warps [..., 2, 3], row by row, each [..., 1, 1]."""
    return [entry for row in split(op, warps, 2, -2) for entry in split(op, row, 3, -1)]


def regular_warps(op: Op, warps: ir.Value) -> ir.Value:
    """Which warps [..., 2, 3] have an inverse: bool [..., 1, 1]."""
    return op.Greater(op.Abs(_determinants(op, _entries(op, warps))), _LEAST_SCALE**2)


def _determinants(op: Op, entries: list[ir.Value]) -> ir.Value:
    a, b, _, d, e, _ = entries
    return op.Sub(op.Mul(a, e), op.Mul(b, d))


def invert_warps(op: Op, warps: ir.Value) -> ir.Value:
    """Crop to frame from frame to crop, [..., 2, 3] float32; zeros stay zeros.

    An affine matrix of determinant 0 gives zeros too: nothing becomes NaN or infinite.
    """
    a, b, c, d, e, f = entries = _entries(op, warps)
    determinant = _determinants(op, entries)
    regular = op.Greater(op.Abs(determinant), _LEAST_SCALE**2)
    factor = op.Div(1.0, op.Where(regular, determinant, 1.0))
    shift_x = op.Sub(op.Mul(b, f), op.Mul(e, c))
    shift_y = op.Sub(op.Mul(d, c), op.Mul(a, f))
    rows = op.Concat(
        op.Concat(e, op.Neg(b), shift_x, axis=-1),
        op.Concat(op.Neg(d), a, shift_y, axis=-1),
        axis=-2,
    )
    return op.Where(regular, op.Mul(rows, factor), 0.0)


def apply_warps(op: Op, warps: ir.Value, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Warped coordinates x' and y' (float32, pixels), each shaped as warps' batch axes x grid.

    Args:
        warps: [..., 2, 3] float32.
        x, y: coordinates that broadcast with [..., 1, 1]: a row [1, w] and a column [h, 1] make a
            grid [..., h, w].
    """
    a, b, c, d, e, f = _entries(op, warps)
    new_x = op.Add(op.Add(op.Mul(a, x), op.Mul(b, y)), c)
    new_y = op.Add(op.Add(op.Mul(d, x), op.Mul(e, y)), f)
    return new_x, new_y


@dataclass(frozen=True)
class BilinearTaps:
    """Four neighbours of each point of a plane stored row by row, and how much each counts.

    first: int64 [B, P], element offset of the upper left neighbour within the plane.
    steps: int64 [1] each, from there to the right and to the lower neighbour.
    right, below: float32 [B, P], weights of the right and the lower neighbours, in [0, 1].
    """

    first: ir.Value
    steps: tuple[ir.Value, ir.Value]
    right: ir.Value
    below: ir.Value


def bilinear_taps(
    op: Op, x: ir.Value, y: ir.Value, height: ir.Value, width: ir.Value
) -> BilinearTaps:
    """Taps of points x, y ([B, P] float32, pixels) in planes [height, width] (int64 [1] each).

    Points outside read the nearest edge pixel (border replicate). Beside the last pixel the first
    neighbour is the last but one, with all the weight on the other, so that the steps between
    neighbours are the same everywhere.
    """
    firsts, weights = [], []
    for position, size in ((x, width), (y, height)):
        last = op.Sub(to_float(op, size), 1.0)
        inside = op.Min(op.Max(position, 0.0), last)
        low = op.Min(op.Floor(inside), op.Max(op.Sub(last, 1.0), 0.0))
        weights.append(op.Sub(inside, low))
        firsts.append(to_int64(op, low))
    # a plane of one row or column has no other neighbour
    step_right = op.Min(op.Sub(width, [1]), [1])
    step_below = op.Mul(op.Min(op.Sub(height, [1]), [1]), width)
    return BilinearTaps(
        first=op.Add(op.Mul(firsts[1], width), firsts[0]),
        steps=(step_right, step_below),
        right=weights[0],
        below=weights[1],
    )


def gather_bilinear(
    op: Op, elements: ir.Value, taps: BilinearTaps, *, stride: int = 1, start: int | ir.Value = 0
) -> ir.Value:
    """Values [B, P] float32 at `taps`, read from flat rows.

    On a CPU this is an order of magnitude faster than GridSample over a large plane, and pixels may
    be interleaved (`stride` 3 for BGR frames).

    Args:
        elements: [B, F] float32 or uint8, flat frames.
        stride: elements from one pixel to the next.
        start: offset of the plane's (or channel's) first element, an int or int64 [1].
    """
    first, (right, below) = taps.first, taps.steps
    if stride != 1:
        first, right, below = (op.Mul(value, [stride]) for value in (first, right, below))
    if isinstance(start, ir.Value) or start != 0:
        first = op.Add(first, start if isinstance(start, ir.Value) else [start])
    indices = [first, *(op.Add(first, step) for step in (right, below, op.Add(right, below)))]
    values = [to_float(op, op.GatherElements(elements, index, axis=1)) for index in indices]
    above = lerp(op, values[0], values[1], taps.right)
    below = lerp(op, values[2], values[3], taps.right)
    return lerp(op, above, below, taps.below)
