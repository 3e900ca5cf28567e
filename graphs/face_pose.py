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
_SERIES: Final = tuple((-1) ** power / (2 * power + 1) for power in range(8))
"""Of atan(t) / t in t^2. A quarter of a right angle has t = 0.41: what is left out is 2e-8."""


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
    flat = op.Sqrt(op.Add(op.Mul(right[0], right[0]), op.Mul(down[0], down[0])))
    # All three angles at once: a GPU pays for each operator, whatever it works on.
    sines = op.Concat(away[0], op.Neg(away[1]), down[0], axis=2)
    cosines = op.Concat(flat, away[2], right[0], axis=2)
    return op.Mul(_angles(op, sines, cosines), _DEGREES)


def measure_facing(op: Op, landmarks: ir.Value, points: Sequence[PosePoint]) -> ir.Value:
    """The cosine [B, F, 1] of the angle between where a face looks and the camera.

    It is cos(yaw) cos(pitch), the last entry of the axis that points into the head. Points that are
    all one point look at the camera.
    """
    _, _, away = _axes(op, landmarks, points)
    length = op.Add(op.Add(op.Abs(away[0]), op.Abs(away[1])), op.Abs(away[2]))
    return op.Where(op.Greater(length, 0.0), away[2], 1.0)


def _axes(
    op: Op, landmarks: ir.Value, points: Sequence[PosePoint]
) -> tuple[list[ir.Value], list[ir.Value], list[ir.Value]]:
    """The head's axes to its right in the image, down, and away: three entries [B, F, 1] each."""
    index = np.array([point.index for point in points], np.int64)
    gains = constant(op, fit_matrix(points).astype(np.float32))
    picked = op.Gather(landmarks, constant(op, index), axis=2)
    picked = op.Sub(picked, op.ReduceMean(picked, [2], keepdims=1))
    rows = []
    for axis in range(2):
        along = op.Slice(picked, [axis], [axis + 1], [3])
        # [B, F, 3]
        rows.append(_unit(op, op.ReduceSum(op.Mul(along, gains), [2], keepdims=0)))
    # Sum and difference of unit vectors are orthogonal: the nearest pair of orthogonal axes.
    total = _unit(op, op.Add(rows[0], rows[1]))
    difference = _unit(op, op.Sub(rows[0], rows[1]))
    half = math.sqrt(0.5)
    right = split(op, op.Mul(op.Add(total, difference), half), 3, 2)
    down = split(op, op.Mul(op.Sub(total, difference), half), 3, 2)
    away = [
        op.Sub(op.Mul(right[i], down[j]), op.Mul(right[j], down[i]))
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return right, down, away


def _unit(op: Op, vectors: ir.Value) -> ir.Value:
    squares = op.ReduceSum(op.Mul(vectors, vectors), [2], keepdims=1)
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
    series = constant(op, np.float32(_SERIES[-1]))
    for factor in _SERIES[-2::-1]:
        series = op.Add(op.Mul(series, square), factor)
    angle = op.Mul(op.Mul(quarter, series), 4.0)
    behind = op.Sub(op.Where(op.Less(y, 0.0), -math.pi, math.pi), angle)
    return op.Where(op.Less(x, 0.0), behind, angle)
