"""Similarity fits and warps in NumPy, double precision, from the papers."""

from __future__ import annotations

import numpy as np


def fit_umeyama(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) similarity taking points (n, 2) to target (n, 2).

    S. Umeyama, TPAMI 13(4), 1991, equations 38-43, with the reflection correction left out.
    """
    count = len(points)
    mean, target_mean = points.mean(axis=0), target.mean(axis=0)
    centred, target_centred = points - mean, target - target_mean
    covariance = target_centred.T @ centred / count
    u, singular, vt = np.linalg.svd(covariance)
    rotation = u @ vt
    scale = singular.sum() / (centred**2).sum() * count
    matrix = scale * rotation
    return np.concatenate([matrix, (target_mean - matrix @ mean)[:, None]], axis=1)


def fit_least_squares(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) least-squares similarity without reflection, by the normal equations."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, target, strict=True):
        rows += [[x, -y, 1.0, 0.0], [y, x, 0.0, 1.0]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def invert(warp: np.ndarray) -> np.ndarray:
    square = np.concatenate([warp, [[0.0, 0.0, 1.0]]])
    return np.linalg.inv(square)[:2]


def crop_positions(warp: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame positions x, y (side, side) of a crop's pixel centres, for a frame-to-crop warp."""
    inverse = invert(warp.astype(np.float64))
    row, column = np.mgrid[:side, :side].astype(np.float64)
    x = inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]
    y = inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]
    return x, y
