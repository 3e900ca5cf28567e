"""Masks of a crop in NumPy and OpenCV, double precision, one face at a time."""

from __future__ import annotations

import cv2
import numpy as np

Outline = tuple[tuple[int, ...], tuple[int, ...]]


def box(size: int, blur: float = 0.3, padding: tuple[float, ...] = (0, 0, 0, 0)) -> np.ndarray:
    """(S, S) float32. padding: top, right, bottom, left, percent of the side.

    FaceFusion 3.8.1, face_masker.py, `create_box_mask`, written from its description.
    """
    amount = int(size * 0.5 * blur)
    least = max(amount // 2, 1)
    top, right, bottom, left = (max(least, int(size * share / 100)) for share in padding)
    mask = np.ones((size, size), np.float32)
    mask[:top] = mask[-bottom:] = 0
    mask[:, :left] = mask[:, -right:] = 0
    if amount > 0:
        mask = cv2.GaussianBlur(mask, (0, 0), amount * 0.25)
    return mask


AREAS = {
    "upper-face": (0, 1, 2, 31, 32, 33, 34, 35, 14, 15, 16, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17),
    "lower-face": (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 35, 34, 33, 32, 31),
    "mouth": tuple(range(48, 68)),
}


def area(points: np.ndarray, names: list[str], size: int) -> np.ndarray:
    """(S, S) float32 of the 68 points (68, 2) of 300-W in a crop.

    FaceFusion 3.8.1, face_masker.py, `create_area_mask`, written from its description.
    """
    chosen = points[[point for name in names for point in AREAS[name]]].astype(np.int32)
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(chosen), 1.0)
    return (np.clip(cv2.GaussianBlur(mask, (0, 0), 5), 0.5, 1) - 0.5) * 2


def smoothstep(values: np.ndarray) -> np.ndarray:
    ramp = np.clip(values, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def with_forehead(
    points: np.ndarray, top: tuple[int, ...], axis: tuple[int, int], length: float
) -> np.ndarray:
    """Points (P, 2), and those of `top` moved by `length` of the way from axis[1] to axis[0]."""
    up = length * (points[axis[0]] - points[axis[1]])
    return np.concatenate([points, points[list(top)] + up])


def hull(points: np.ndarray, size: int, *, inset: float, feather: float) -> np.ndarray:
    """(S, S): a soft edge inside the convex hull of points (P, 2), crop pixels.

    How deep a pixel lies in the hull is its least distance to the lines through the hull's edges.
    """
    corners = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    ahead = np.roll(corners, -1, axis=0) - corners
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    lengths = np.linalg.norm(inward, axis=1)
    corners, inward = corners[lengths > 0], inward[lengths > 0] / lengths[lengths > 0, None]
    if (inward * (corners.mean(axis=0) - corners)).sum() < 0:
        inward = -inward
    y, x = np.mgrid[:size, :size]
    depth = np.min(
        [a * (x - p[0]) + b * (y - p[1]) for p, (a, b) in zip(corners, inward, strict=True)], axis=0
    )
    return smoothstep((depth - inset * size) / (feather * size))


def kept(points: np.ndarray, bands: list[Outline], size: int, *, feather: float) -> np.ndarray:
    """(S, S): 0 between the two curves of each band, 1 farther than the feather from all."""
    x = np.arange(size, dtype=np.float64)
    y = x[:, None]
    depth = np.full((size, size), -np.inf)
    for upper, lower in bands:
        above, below = points[list(upper)], points[list(lower)]
        high = np.interp(x, above[:, 0], above[:, 1])
        low = np.interp(x, below[:, 0], below[:, 1])
        left = min(above[0, 0], below[0, 0])
        right = max(above[-1, 0], below[-1, 0])
        ends = np.minimum(x - left, right - x)
        depth = np.maximum(depth, np.minimum(np.minimum(y - high, low - y), ends))
    return 1 - smoothstep(1 + depth / (feather * size))
