"""Views of faces, landmarks in frames and poses in NumPy, double precision."""

from __future__ import annotations

import numpy as np

from tests.reference.geometry import fit_least_squares, invert

# The five landmarks of an upright face, as FaceFusion's ffhq_512 template has them.
UPRIGHT = np.array(
    [
        (0.37691676, 0.46864664),
        (0.62285697, 0.46912813),
        (0.50123859, 0.61331904),
        (0.39308822, 0.72541100),
        (0.61150205, 0.72490465),
    ]
)


def view_warp(row: np.ndarray, *, scale: float, shift: float, turned: bool, size: int):
    """(2, 3) frame to view for one row of `faces` (15,); zeros where it is no face.

    As MediaPipe does it (its RectTransformationCalculator, then ImageToTensorCalculator's corners):
    a rotated square around the box's centre whose corners are the view's.
    """
    row = row.astype(np.float64)
    if not (np.isfinite(row).all() and np.abs(row).max() < 1e6 and row[4] > 0):
        return np.zeros((2, 3))
    longer = max(row[2] - row[0], row[3] - row[1])
    if longer <= 1:
        return np.zeros((2, 3))
    angle = 0.0
    points = row[5:].reshape(5, 2)
    if turned and ((points - points.mean(axis=0)) ** 2).sum() > 1e-3:
        fitted = fit_least_squares(points, UPRIGHT)
        angle = -np.arctan2(fitted[1, 0], fitted[0, 0])
    side = scale * longer
    right = np.array([np.cos(angle), np.sin(angle)])
    down = np.array([-np.sin(angle), np.cos(angle)])
    centre = np.array([(row[0] + row[2]) / 2, (row[1] + row[3]) / 2]) + shift * side * down
    corner = centre - side / 2 * (right + down)
    to_frame = np.stack([right * side / size, down * side / size, corner], axis=1)
    return invert(to_frame)


def to_frame(points: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """View points (n, 3) in frame pixels: z grows as x and y do."""
    inverse = invert(warp.astype(np.float64))
    scale = np.hypot(inverse[0, 0], inverse[1, 0])
    moved = points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
    return np.concatenate([moved, points[:, 2:] * scale], axis=1)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) of a face that looks `yaw` degrees to the image's right, `pitch` up, and leans `roll`
    clockwise; x to the right, y down, z away from the viewer."""
    theta, phi, psi = np.deg2rad([-yaw, -pitch, roll])
    about_x = [[1, 0, 0], [0, np.cos(phi), -np.sin(phi)], [0, np.sin(phi), np.cos(phi)]]
    about_y = [[np.cos(theta), 0, np.sin(theta)], [0, 1, 0], [-np.sin(theta), 0, np.cos(theta)]]
    about_z = [[np.cos(psi), -np.sin(psi), 0], [np.sin(psi), np.cos(psi), 0], [0, 0, 1]]
    return np.array(about_z) @ np.array(about_y) @ np.array(about_x)


def pose(points: np.ndarray, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees of image points (n, 2), by least squares and an SVD.

    places: (n, 3) of a frontal face, x right, y down, z away. The two fitted rows are made unit
    length, then orthogonal in the nearest way (polar decomposition).
    """
    root = np.sqrt(weights)[:, None]
    design = root * np.concatenate([places, np.ones((len(places), 1))], axis=1)
    solution = np.linalg.lstsq(design, root * points, rcond=None)[0]
    rows = solution[:3].T
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    right, down = u @ vt
    away = np.cross(right, down)
    yaw = np.arctan2(away[0], np.hypot(right[0], down[0]))
    pitch = np.arctan2(-away[1], away[2])
    roll = np.arctan2(down[0], right[0])
    return np.rad2deg([yaw, pitch, roll])
