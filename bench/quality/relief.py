"""A painted head turned to the side: the picture as a relief, with the truth of where it goes.

The landmark network's depths of a face that looks ahead make a surface that passes by them; from
the face's edge on it falls away as the side of a head does. Whatever that is worth as anatomy, the
picture that is drawn and the points that are true are turned alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from bench.quality.scenes import GREY, Head, Image, Points

_SIDE: Final = 320
"""Of the picture that is made, pixels."""
_FINE: Final = 2
_FINER: Final = 3
"""The source is drawn at three times that size into one of twice: a stretched side has no holes."""
_COARSE: Final = 80
_SMOOTH: Final = 0.12
"""Width of the kernel that makes a surface of points, of the eyes' distance."""
_CREASE: Final = 0.02
"""The same of what that kernel takes away, above all the nose: 0.15 of the eyes' distance."""
_FADES: Final = 0.2
"""How fast that is lost behind the face's edge, of the eyes' distance."""
_FALLS: Final = 0.8
_FALLS_FOR: Final = 0.8
"""How steeply the surface falls behind the face's edge, and for how long, of the eyes' distance."""


@dataclass(frozen=True, eq=False)
class Relief:
    """A head with a depth for each pixel.

    image: (S, S, 3) uint8 BGR. depth: (S, S), pixels, away from the viewer. five: (5, 2), pixels.
    axis: x and depth of the upright axis that it turns about.
    yaw_deg: which way the face looks in the picture, as the landmark network says.
    """

    name: str
    image: Image
    depth: Points
    five: Points
    axis: tuple[float, float]
    yaw_deg: float

    def turned(self, yaw_deg: float) -> Head:
        """The head looking that way."""
        small = self.image.shape[0]
        size = _FINE * small
        source = cv2.resize(self.image, (_FINER * small,) * 2, interpolation=cv2.INTER_LINEAR)
        depth = cv2.resize(self.depth, (_FINER * small,) * 2, interpolation=cv2.INTER_LINEAR)
        down, across = (np.mgrid[: len(source), : len(source)] + 0.5) / _FINER - 0.5
        x, z = self._turn(across, np.asarray(depth, np.float64), self.yaw_deg - yaw_deg)
        column = np.rint((x + 0.5) * _FINE - 0.5).astype(np.intp)
        row = np.rint((down + 0.5) * _FINE - 0.5).astype(np.intp)
        # What is nearer is drawn later.
        order = np.argsort(-z, axis=None, kind="stable")
        inside = order[((column >= 0) & (column < size)).reshape(-1)[order]]
        drawn = np.full((size, size, 3), GREY, np.uint8)
        is_empty = np.full((size, size), 255, np.uint8)
        places = row.reshape(-1)[inside], column.reshape(-1)[inside]
        drawn[places], is_empty[places] = source.reshape(-1, 3)[inside], 0
        # What no picture shows stays grey; single pixels between others are filled.
        unseen = cv2.morphologyEx(is_empty, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        drawn = cv2.inpaint(drawn, is_empty - unseen, 3, cv2.INPAINT_TELEA)
        image = cv2.resize(drawn, (small, small), interpolation=cv2.INTER_AREA)
        five_z = _at(self.depth, self.five)
        five_x, _ = self._turn(self.five[:, 0], five_z, self.yaw_deg - yaw_deg)
        five = np.column_stack([five_x, self.five[:, 1]])
        return Head(self.name, np.asarray(image, np.uint8), five)

    def _turn(self, x: Points, z: Points, by_deg: float) -> tuple[Points, Points]:
        middle_x, middle_z = self.axis
        cos, sin = np.cos(np.radians(by_deg)), np.sin(np.radians(by_deg))
        right, behind = x - middle_x, z - middle_z
        return middle_x + right * cos + behind * sin, middle_z - right * sin + behind * cos


def make_relief(head: Head, mesh: NDArray[np.float32], yaw_deg: float) -> Relief:
    """A head as a relief.

    Args:
        mesh: (P, 3), its landmarks: x, y and depth in pixels of its image.
        yaw_deg: which way it looks there.
    """
    scale = _SIDE / head.image.shape[0]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(head.image, (_SIDE, _SIDE), interpolation=way), np.uint8)
    five = (head.five + 0.5) * scale - 0.5
    points = mesh.astype(np.float64) * scale
    eyes = float(np.linalg.norm(five[1] - five[0]))
    hull = cv2.convexHull(np.rint(points[:, :2]).astype(np.int32))
    face = np.zeros((_SIDE, _SIDE), np.uint8)
    cv2.fillConvexPoly(face, hull, 255)
    away = np.asarray(cv2.distanceTransform(255 - face, cv2.DIST_L2, 5), np.float64) / eyes
    depth = _surface(points, eyes, away) + _FALLS * eyes * np.minimum(away, _FALLS_FOR)
    axis = float(points[:, 0].mean()), float(points[:, 2].max())
    return Relief(head.name, image, np.asarray(depth, np.float64), five, axis, yaw_deg)


def _surface(points: Points, eyes: float, away: Points) -> Points:
    """Depths (S, S) that pass by the points': a wide kernel's, and between the points what it
    leaves of their depths, which is lost beyond the face's edge.

    Args:
        away: (S, S), how far behind that edge a pixel lies, of the eyes' distance.
    """
    coarse = _wide(points, eyes)
    wide: Points = np.asarray(
        cv2.resize(coarse, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.float64
    )
    on_picture: Points = np.asarray(np.clip(points[:, :2], 0, _SIDE - 1), np.float64)
    left = points[:, 2] - _at(wide, on_picture)
    down, across = np.mgrid[:_SIDE, :_SIDE].astype(np.float64)
    inside = LinearNDInterpolator(on_picture, left)(across, down)
    beyond = NearestNDInterpolator(on_picture, left)(across, down)
    beyond = beyond * np.exp(-((away / _FADES) ** 2))
    fine = np.where(np.isnan(inside), beyond, inside)
    return np.asarray(wide + cv2.GaussianBlur(fine, (0, 0), _CREASE * eyes), np.float64)


def _wide(points: Points, eyes: float) -> Points:
    """Depths on a coarse grid: means of the points around; far from all, the nearest one's."""
    down, across = (np.mgrid[:_COARSE, :_COARSE] + 0.5) * (_SIDE / _COARSE) - 0.5
    squared = (across[..., None] - points[:, 0]) ** 2 + (down[..., None] - points[:, 1]) ** 2
    squared -= squared.min(axis=2, keepdims=True)
    weights = np.exp(-squared / (2 * (_SMOOTH * eyes) ** 2))
    return np.asarray((weights @ points[:, 2]) / weights.sum(axis=2), np.float64)


def _at(values: Points, places: Points) -> Points:
    """Values (S, S) at places (N, 2), by the nearest pixel."""
    x, y = np.rint(places).astype(np.intp).T
    return np.asarray(values[y, x], np.float64)
