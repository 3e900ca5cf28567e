"""Which way a face looks, from its landmarks in the image plane, in closed form.

A face seen by a far camera is its 3D points, turned, scaled and without their depth. The two rows
of that map are fitted to the image by weighted least squares against MediaPipe's canonical face (a
constant matrix: the points of the canonical face do not change), made unit length and orthogonal,
and read as three angles. The network's own depth is not asked: it is the least certain of what it
says.

Source: D. DeMenthon and L. Davis, "Model-Based Object Pose in 25 Lines of Code", IJCV 15, 1995 (the
scaled orthographic step); MediaPipe's canonical face model, see `networks.face_points`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.shapes import Op, constant, split
from networks.face_points import PosePoint

_DEGREES: Final = 180.0 / math.pi
_TINY: Final = 1e-12
_QUARTER: Final = math.tan(math.pi / 8)
_ARCTANGENT: Final = tuple(
    np.polynomial.Chebyshev.interpolate(
        lambda square: np.arctan(np.sqrt(square)) / np.sqrt(square), 4, [0.0, _QUARTER**2]
    ).convert(kind=np.polynomial.Polynomial).coef
)
"""atan(t) / t in powers of t^2 for angles up to a quarter of a right one; off by 5e-8 at most."""


def fit_matrix(points: Sequence[PosePoint]) -> npt.NDArray[np.float64]:
    """G (n, 3): for image positions u (n,), u @ G is the row that takes canonical axes to u.

    Axes as in the image: x to the right, y down, z away from the viewer.
    """
    places = np.array([point.place for point in points]) * [1.0, -1.0, -1.0]
    weights = np.array([point.weight for point in points])[:, None]
    centred = places - (weights * places).sum(axis=0) / weights.sum()
    covariance = (weights * centred).T @ centred
    gains: npt.NDArray[np.float64] = (weights * centred) @ np.linalg.inv(covariance)
    return gains


def measure_pose(op: Op, landmarks: ir.Value, points: Sequence[PosePoint]) -> ir.Value:
    """Yaw, pitch and roll [B, F, 3] float32, degrees, of landmarks [B, F, P, 2 or 3] (finite).

    As seen in the image: yaw is positive where the face looks to the right, pitch where it looks
    up, roll where it leans to the right (clockwise). Roll turns first, then yaw, then pitch: the
    face's axes are Rz(roll) Ry(-yaw) Rx(-pitch) of an upright face that looks at the camera, with
    x to the right, y down, z away. Points that are all one point give 0.
    """
    right, down, away = _axes(op, landmarks, points)
    right_x, down_x = (op.Slice(axis, [0], [1], [2]) for axis in (right, down))
    away_x, away_y, away_z = split(op, away, 3, 2)
    flat = op.Sqrt(op.Add(op.Mul(right_x, right_x), op.Mul(down_x, down_x)))
    # All three angles at once: a GPU pays for each operator, whatever it works on.
    sines = op.Concat(away_x, op.Neg(away_y), down_x, axis=2)
    cosines = op.Concat(flat, away_z, right_x, axis=2)
    return op.Mul(_angles(op, sines, cosines), _DEGREES)


def measure_facing(op: Op, landmarks: ir.Value, points: Sequence[PosePoint]) -> ir.Value:
    """The cosine [B, F, 1] of the angle between where a face looks and the camera.

    It is cos(yaw) cos(pitch), the last entry of the axis that points into the head. Points that are
    all one point look at the camera.
    """
    _, _, away = _axes(op, landmarks, points)
    known = op.Greater(op.ReduceSum(op.Abs(away), [2], keepdims=1), 0.0)
    return op.Where(known, op.Slice(away, [2], [3], [2]), 1.0)


def _axes(
    op: Op, landmarks: ir.Value, points: Sequence[PosePoint]
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Unit vectors [B, F, 3] along the head's axes: to its right in the image, down, away."""
    index = np.array([point.index for point in points], np.int64)
    gains = constant(op, fit_matrix(points).astype(np.float32)[:, None])
    picked = op.Gather(landmarks, constant(op, index), axis=2)
    picked = op.Sub(picked, op.ReduceMean(picked, [2], keepdims=1))
    in_plane = op.Unsqueeze(op.Slice(picked, [0], [2], [3]), [4])
    # [B, F, 2, 3]: the rows of x and of y
    rows = _unit(op, op.ReduceSum(op.Mul(in_plane, gains), [2], keepdims=0))
    first, second = split(op, rows, 2, 2)
    # Sum and difference of unit vectors are orthogonal: the nearest pair of orthogonal axes.
    pair = op.Concat(op.Add(first, second), op.Sub(first, second), axis=2)
    total, difference = (op.Squeeze(part, [2]) for part in split(op, _unit(op, pair), 2, 2))
    half = math.sqrt(0.5)
    right = op.Mul(op.Add(total, difference), half)
    down = op.Mul(op.Sub(total, difference), half)
    following, last = (constant(op, np.array(order)) for order in ((1, 2, 0), (2, 0, 1)))
    away = op.Sub(
        op.Mul(op.Gather(right, following, axis=2), op.Gather(down, last, axis=2)),
        op.Mul(op.Gather(right, last, axis=2), op.Gather(down, following, axis=2)),
    )
    return right, down, away


def _unit(op: Op, vectors: ir.Value) -> ir.Value:
    squares = op.ReduceSum(op.Mul(vectors, vectors), [-1], keepdims=1)
    return op.Div(vectors, op.Max(op.Sqrt(squares), _TINY))


def _angles(op: Op, y: ir.Value, x: ir.Value) -> ir.Value:
    """atan2(y, x), which ONNX lacks, by the tangents of a half and a quarter of it; 0 for (0, 0).

    Not by Atan either, which ONNX Runtime has on the CPU alone: a GPU would wait for it.
    """
    length = op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))
    # Of the angle to the nearer end of the x axis, -pi/2 to pi/2; its half's tangent is 1 at most.
    half = op.Div(y, op.Max(op.Add(length, op.Abs(x)), _TINY))
    quarter = op.Div(half, op.Add(1.0, op.Sqrt(op.Add(op.Mul(half, half), 1.0))))
    square = op.Mul(quarter, quarter)
    series = op.Mul(square, float(_ARCTANGENT[-1]))
    for factor in _ARCTANGENT[-2:0:-1]:
        series = op.Mul(op.Add(series, float(factor)), square)
    series = op.Add(series, float(_ARCTANGENT[0]))
    angle = op.Mul(op.Mul(quarter, series), 4.0)
    behind = op.Sub(op.Where(op.Less(y, 0.0), -math.pi, math.pi), angle)
    return op.Where(op.Less(x, 0.0), behind, angle)
