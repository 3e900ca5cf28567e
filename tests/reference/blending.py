"""Laying swapped crops back, in NumPy and double precision, pixel by pixel from the contract.

The mask is FaceFusion's box mask in two dimensions, as its source has it (zeroed borders, then one
Gaussian over the picture), not the separable form that the graph is authored with.
"""

from __future__ import annotations

import cv2
import numpy as np

from tests.reference import pixels


def box_mask(size: int, blur: float = 0.3) -> np.ndarray:
    """(S, S) float64: facefusion@33cc6b40 face_masker.py, padding 0."""
    amount = int(size * 0.5 * blur)
    area = max(amount // 2, 1)
    mask = np.ones((size, size), np.float32)
    mask[:area, :] = 0
    mask[-area:, :] = 0
    mask[:, :area] = 0
    mask[:, -area:] = 0
    if amount > 0:
        mask = cv2.GaussianBlur(mask, (0, 0), amount * 0.25)
    return mask.astype(np.float64)


def sample_zeros(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Plane (S, S) read bilinearly at x, y; everything outside it is 0."""
    return pixels.sample_bilinear(np.pad(plane, 1), x + 1.0, y + 1.0)


def warped(warp: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    warp = warp.astype(np.float64)
    return (
        warp[0, 0] * x + warp[0, 1] * y + warp[0, 2],
        warp[1, 0] * x + warp[1, 1] * y + warp[1, 2],
    )


def lay_plane(
    under: np.ndarray,
    colors: np.ndarray,
    mask: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    truncate: bool,
) -> np.ndarray:
    """One plane (h, w) with one crop channel (S, S) laid on; x, y are crop positions (h, w)."""
    side = len(colors)
    near = (x > -1) & (x < side) & (y > -1) & (y < side)
    weight = sample_zeros(mask, x[near], y[near])
    color = pixels.sample_bilinear(colors, x[near], y[near])
    laid = under.copy()
    mixed = under[near] * (1.0 - weight) + color * weight
    laid[near] = np.clip(np.floor(mixed) if truncate else np.rint(mixed), 0, 255)
    return laid


def plane_positions(
    planes: list[np.ndarray], frame_format: str, options: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Luma position x, y (h, w) of every sample of every plane."""
    positions = []
    for index, plane in enumerate(planes):
        step, origin = 1.0, (0.0, 0.0)
        if frame_format == "i420" and index > 0:
            assert options is not None
            step, origin = 2.0, pixels.CHROMA_XY[int(options[3])]
        height, width = plane.shape
        x, y = np.meshgrid(np.arange(width) * step, np.arange(height) * step)
        positions.append((x + origin[0], y + origin[1]))
    return positions


def split(frame: np.ndarray, frame_format: str) -> list[np.ndarray]:
    if frame_format == "bgr":
        return [frame[..., c].astype(np.float64) for c in range(3)]
    return [plane.astype(np.float64) for plane in pixels.split_i420(frame)]


def join(planes: list[np.ndarray], frame: np.ndarray, frame_format: str) -> np.ndarray:
    if frame_format == "bgr":
        return np.stack(planes, axis=-1)
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(frame.shape)


def covered(
    frame: np.ndarray, frame_format: str, warps: np.ndarray, size: int, options: np.ndarray | None
) -> np.ndarray:
    """Which values of one frame lie under the mask of one of its warps (K, 2, 3): bool, like it."""
    planes = split(frame, frame_format)
    touched = []
    for x, y in plane_positions(planes, frame_format, options):
        weights = [sample_zeros(box_mask(size), *warped(warp, x, y)) for warp in warps]
        touched.append(np.max(weights, axis=0) > 0)
    return join(touched, frame, frame_format)


def blend(
    frame: np.ndarray,
    frame_format: str,
    crops: np.ndarray,
    masks: np.ndarray,
    warps: np.ndarray,
    scores: np.ndarray,
    options: np.ndarray | None,
    *,
    truncate: bool = False,
) -> np.ndarray:
    """One frame with its crops (K, 3, S, S) RGB laid on under masks (K, 1, S, S), slot 0 first;
    score 0 leaves a slot out.

    truncate: cut fractions off, as FaceFusion's `astype(uint8)` does.
    """
    planes = split(frame, frame_format)
    positions = plane_positions(planes, frame_format, options)
    for crop, (mask,), warp, score in zip(crops, masks, warps, scores, strict=False):
        if score <= 0:
            continue
        rgb = np.clip(crop.astype(np.float64), 0.0, 1.0).transpose(1, 2, 0)
        if frame_format == "bgr":
            colors = rgb[..., ::-1] * 255.0
        else:
            assert options is not None
            matrix = pixels.resolve_matrix(int(options[1]), planes[0].shape[0])
            colors = pixels.rgb_to_yuv(rgb, matrix, bool(options[2]))
        for index, (x, y) in enumerate(positions):
            planes[index] = lay_plane(
                planes[index], colors[..., index], mask.astype(np.float64), *warped(warp, x, y),
                truncate=truncate,
            )
    return join(planes, frame, frame_format).astype(np.uint8)
