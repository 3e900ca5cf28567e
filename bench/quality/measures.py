"""Figures of a chain's result beside what is true, or beside its target."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Array = NDArray[np.float64]


def five_of(rows: Sequence[NDArray[np.float32]]) -> Array:
    """(frames, 5, 2) of rows (15,) of one face."""
    return np.stack([row[5:].reshape(5, 2) for row in rows]).astype(np.float64)


def tremble(points: Array, true: Array) -> float:
    """Standard deviation of points (frames, 5, 2) around the truth, in % of the eyes' distance.

    Where a network puts an eye is its own affair: each point's mean error is taken off.
    """
    eyes = float(np.linalg.norm(true[:, 1] - true[:, 0], axis=1).mean())
    errors = points - true
    return float((errors - errors.mean(axis=0)).std() / eyes * 100)


def unrest(points: Array, true: Array) -> float:
    """RMS of the second difference of points less the truth's, in % of the eyes' distance."""
    eyes = float(np.linalg.norm(true[:, 1] - true[:, 0], axis=1).mean())
    bent = np.diff(points - true, n=2, axis=0)
    return float(np.sqrt((bent**2).sum(axis=-1).mean()) / eyes * 100)


def lag_frames(signal: Array, reference: Array, *, most: int = 4) -> float:
    """By how many frames a signal comes after another: the shift of the least squared difference,
    to a part of a frame by the parabola through the three nearest."""
    middle = slice(most, len(reference) - most)
    shifts = np.arange(-most, most + 1)
    errors = np.array(
        [((np.roll(signal, -shift) - reference)[middle] ** 2).mean() for shift in shifts]
    )
    best = int(np.clip(errors.argmin(), 1, len(shifts) - 2))
    before, here, after = errors[best - 1 : best + 2]
    bend = before - 2 * here + after
    return float(shifts[best] + (0.5 * (before - after) / bend if bend > 0 else 0.0))


def warp_error(frames: Sequence[Image], targets: Sequence[Image], masks: Sequence[Array]) -> Array:
    """Flicker (Lai et al., ECCV 2018): each frame less the one before, carried by the target's
    flow, where the target itself can be carried; mean squared, of 255, inside the masks.

    Returns:
        (frames - 1,): that of the frames, less that of the targets.
    """
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors = []
    for index in range(1, len(frames)):
        old, new = (cv2.cvtColor(targets[each], cv2.COLOR_BGR2GRAY) for each in (index - 1, index))
        flow = flow_of.calc(new, old, np.zeros((*new.shape, 2), np.float32))
        down, across = np.mgrid[: new.shape[0], : new.shape[1]].astype(np.float32)
        x, y = across + flow[..., 0], down + flow[..., 1]
        both = []
        carried_target = cv2.remap(targets[index - 1], x, y, cv2.INTER_LINEAR).astype(np.float64)
        apart = ((carried_target - targets[index]) ** 2).mean(axis=2) / 255**2
        weight = np.exp(-50 * apart) * masks[index]
        for clip in (frames, targets):
            carried = cv2.remap(clip[index - 1], x, y, cv2.INTER_LINEAR).astype(np.float64)
            squared = ((carried - clip[index]) ** 2).mean(axis=2)
            both.append((squared * weight).sum() / weight.sum())
        errors.append(both[0] - both[1])
    return np.array(errors)


def hull_mask(size: tuple[int, int], points: NDArray[np.float32]) -> Array:
    """(H, W): 1 inside the outline of a face's points (P, 2), which is what a swap covers, else 0.

    What lies around it is the target's own, with all of the camera's noise, in every chain.
    """
    mask = np.zeros(size, np.float64)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    return mask


def shifts_px(frames: Sequence[Image], region: tuple[slice, slice]) -> Array:
    """(frames, 2): by how many pixels what is seen in a region lies elsewhere than in the mean."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[region].astype(np.float64) for frame in frames]
    mean = np.mean(grey, axis=0)
    window = cv2.createHanningWindow(mean.shape[::-1], cv2.CV_64F)
    return np.array([cv2.phaseCorrelate(mean, each, window)[0] for each in grey])
