"""A face as where it is and what it looks like: a frame of its own, and its points in that.

Motion of the head and motion in the face have different speeds, so they are smoothed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FACE_COLUMNS, LANDMARK_COLUMN, SCORE_COLUMN

__all__ = ["FaceShape", "mix_shapes", "read_shape", "write_shape"]

Array = NDArray[np.float32]

_SMALLEST_PX: Final = 1.0
"""Of the distance between a face's points and their middle: less is no face."""


@dataclass(frozen=True, eq=False)
class FaceShape:
    """A face in a frame.

    place: (4,) float32: x and y of the middle of the five points, pixels; the logarithm of their
        mean distance from it, pixels; the angle of the line from eye to eye, radians.
    points: (5 + P, 3) float32: the five points (z is 0) and the mesh in the face's own frame: the
        middle at 0, that distance 1, eyes level.
    box: (4,) float32: x1 y1 x2 y2 as the face's box lies about the middle, unturned, in units of
        that distance.
    score: of the detector.
    has_mesh: whether there are P points; they are 0 otherwise.
    """

    place: Array
    points: Array
    box: Array
    score: float
    has_mesh: bool

    @property
    def size_px(self) -> float:
        """The mean distance of the five points from their middle, pixels."""
        return float(np.exp(self.place[2]))


def read_shape(face: Array, mesh: Array) -> FaceShape:
    """The shape of one row of `faces` (15,) and its landmarks (P, 3), zeros for none; pixels."""
    five = face[LANDMARK_COLUMN:].reshape(5, 2)
    middle = five.mean(axis=0)
    size = max(float(np.sqrt(((five - middle) ** 2).sum(axis=1)).mean()), _SMALLEST_PX)
    across = five[1] - five[0]
    angle = float(np.arctan2(across[1], across[0]))
    points = np.zeros((5 + len(mesh), 3), np.float32)
    points[:5, :2] = five - middle
    has_mesh = bool(mesh.any())
    if has_mesh:
        points[5:] = mesh
        points[5:, :2] -= middle
    points /= size
    points[:, :2] = points[:, :2] @ _turn(angle)
    box = np.asarray((face[:SCORE_COLUMN].reshape(2, 2) - middle).reshape(-1) / size, np.float32)
    place = np.array([middle[0], middle[1], np.log(size), angle], np.float32)
    return FaceShape(place, points, box, float(face[SCORE_COLUMN]), has_mesh)


def write_shape(shape: FaceShape) -> tuple[Array, Array]:
    """The row (15,) and the landmarks (P, 3) of a shape; pixels, float32."""
    size, middle = shape.size_px, shape.place[:2]
    points = shape.points * size
    points[:, :2] = points[:, :2] @ _turn(float(shape.place[3])).T + middle
    face = np.zeros(FACE_COLUMNS, np.float32)
    face[:SCORE_COLUMN] = (shape.box.reshape(2, 2) * size + middle).reshape(-1)
    face[SCORE_COLUMN] = shape.score
    face[LANDMARK_COLUMN:] = points[:5, :2].reshape(-1)
    mesh = points[5:] if shape.has_mesh else np.zeros_like(points[5:])
    return face, np.ascontiguousarray(mesh, np.float32)


def mix_shapes(first: FaceShape, second: FaceShape, share: float) -> FaceShape:
    """The shape between two: `share` 0 is the first, 1 the second. The face turns the short way."""
    step = second.place - first.place
    step[3] = (step[3] + np.pi) % (2.0 * np.pi) - np.pi
    has_mesh = first.has_mesh and second.has_mesh
    points = first.points + np.float32(share) * (second.points - first.points)
    return FaceShape(
        np.asarray(first.place + np.float32(share) * step, np.float32),
        points,
        np.asarray(first.box + np.float32(share) * (second.box - first.box), np.float32),
        min(first.score, second.score),
        has_mesh,
    )


def unwrapped(places: Array) -> Array:
    """(N, 4) places whose angles follow each other without jumps of a whole turn."""
    result = places.copy()
    result[:, 3] = np.unwrap(result[:, 3])
    return result


def stack_places(shapes: Sequence[FaceShape]) -> Array:
    """(N, 4) places of shapes that follow each other in time."""
    return unwrapped(np.stack([shape.place for shape in shapes]))


def _turn(angle: float) -> Array:
    """(2, 2): rows of points times this are turned back by the angle."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]], np.float32)
