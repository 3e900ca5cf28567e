"""Shape statistics of many landmarks: pose taken away, expression told from identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from training.face_mesh import mirror_points

EXPRESSIONS: Final = 16
IDENTITIES: Final = 48
_ROUNDS: Final = 3

Array = npt.NDArray[Any]


class Pose(NamedTuple):
    """points = scale * shape @ rotation.T + shift: (3, 3), a number, (3,)."""

    rotation: Array
    scale: float
    shift: Array


@dataclass(frozen=True)
class Shapes:
    """mean: (478, 3), symmetrical. expression: (16, 1434). identity: (48, 1434); orthonormal rows.

    poses: one a face. expressions, identities: (N, 16) and (N, 48) coordinates.
    """

    mean: Array
    expression: Array
    identity: Array
    poses: list[Pose]
    expressions: Array
    identities: Array


def fit_pose(points: Array, shape: Array) -> Pose:
    """The similarity in space that takes a (478, 3) shape nearest to (478, 3) points.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991.
    """
    points_mean, shape_mean = points.mean(0), shape.mean(0)
    u, stretch, v = np.linalg.svd((points - points_mean).T @ (shape - shape_mean))
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
    rotation = u @ np.diag(sign) @ v
    scale = float((stretch * sign).sum() / ((shape - shape_mean) ** 2).sum())
    return Pose(rotation, scale, points_mean - scale * shape_mean @ rotation.T)


def fit_shapes(landmarks: Array, person: Array) -> Shapes:
    """Statistics of (N, 478, 3) landmarks, px, of the people (N,).

    What differs between photos of one person is expression; what is then left is identity.

    Raises:
        ValueError: fewer than 17 photos are of people with another photo.
    """
    mean, poses, upright = landmarks.mean(0), [], landmarks
    mean = mean - mean.mean(0)
    for _ in range(_ROUNDS):
        poses = [fit_pose(points, mean) for points in landmarks]
        upright = np.stack([
            (points - pose.shift) @ pose.rotation / pose.scale
            for points, pose in zip(landmarks, poses, strict=True)
        ])  # fmt: skip
        mean = _symmetrical(upright.mean(0))
    rest = (upright - mean).reshape(len(landmarks), -1)
    within = _within_people(rest, person)
    if len(within) <= EXPRESSIONS:
        raise ValueError(f"{len(within)} photos of people with several; expression needs 17")
    expression = np.linalg.svd(within, full_matrices=False)[2][:EXPRESSIONS]
    expressions = rest @ expression.T
    unexpressed = rest - expressions @ expression
    identity = np.linalg.svd(unexpressed, full_matrices=False)[2][:IDENTITIES]
    return Shapes(mean, expression, identity, poses, expressions, unexpressed @ identity.T)


def _symmetrical(mean: Array) -> Array:
    centred = mean - [mean[:, 0].mean(), 0, 0]
    mirror = mirror_points(centred.astype(np.float32))
    return (centred + centred[mirror] * [-1, 1, 1]) / 2


def _within_people(rest: Array, person: Array) -> Array:
    groups = [np.flatnonzero(person == who) for who in np.unique(person)]
    several = [rest[rows] - rest[rows].mean(0) for rows in groups if len(rows) > 1]
    return np.concatenate(several) if several else rest[:0]
