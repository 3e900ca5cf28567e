"""Faces that are shown in part: the swapped frame mixed with the original, around each."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SCORE_COLUMN
from frameswap.frames import Frame
from frameswap.planes import split_planes

__all__ = ["mix_faces"]

_MARGIN: Final = 0.6
"""How much farther than a face's box its swap may reach, of the box's longer side: the crop, and a
soft edge."""
_CLOSEST: Final = 1e-3


def mix_faces(
    swapped: NDArray[np.uint8],
    original: Frame,
    faces: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Show some faces in part.

    Between two faces a pixel follows the nearer one, with a soft change, so that a face that fades
    does not take its neighbour along.

    Args:
        swapped: uint8, I420 or BGR.
        faces: (R, 15) float32, pixels; rows of zeros are left out.
        weights: (S,) float32 of the first S rows, 0 the original, 1 the swap.

    Returns:
        `swapped` itself where every weight is 1, else a copy.
    """
    shown = [row for row in range(len(weights)) if faces[row, SCORE_COLUMN] > 0.0]
    partly = [row for row in shown if weights[row] < 1.0]
    if not partly:
        return swapped
    if isinstance(original, np.ndarray):
        before = original
    else:
        before = np.empty(original.shape, np.uint8)
        original.copy_to(before)
    mixed = swapped.copy()
    planes = list(zip(*(_planes(each) for each in (mixed, before, swapped)), strict=True))
    height, width = planes[0][0].shape[:2]
    boxes = faces[shown, :SCORE_COLUMN]
    for row in partly:
        left, top, right, bottom = _around(faces[row, :SCORE_COLUMN], width, height)
        if left >= right or top >= bottom:
            continue
        share = _shares(boxes, np.clip(weights[shown], 0.0, 1.0), (left, top, right, bottom))
        for target, was, now in planes:
            step = height // len(target)
            region = np.s_[top // step : bottom // step, left // step : right // step]
            part = share[::step, ::step]
            part = part if target.ndim == 2 else part[..., None]
            first, second = was[region].astype(np.float32), now[region].astype(np.float32)
            target[region] = np.rint(first + part * (second - first))
    return mixed


def _around(box: NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what a face's swap may reach; even where the frame is, so that
    chroma samples belong to one side of the edge."""
    x1, y1, x2, y2 = (float(side) for side in box)
    margin = _MARGIN * max(x2 - x1, y2 - y1)
    left, top = max(0, int(x1 - margin)) // 2 * 2, max(0, int(y1 - margin)) // 2 * 2
    right, bottom = int(x2 + margin) // 2 * 2 + 2, int(y2 + margin) // 2 * 2 + 2
    return left, top, min(width, right), min(height, bottom)


def _shares(
    boxes: NDArray[np.float32],
    weights: NDArray[np.float32],
    region: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """(rows, columns) float32 of a region: how much of the swap each pixel shows."""
    left, top, right, bottom = region
    if len(boxes) == 1:
        return np.full((bottom - top, right - left), weights[0], np.float32)
    x = np.arange(left, right, dtype=np.float32)[None, None, :]
    y = np.arange(top, bottom, dtype=np.float32)[None, :, None]
    x1, y1, x2, y2 = (boxes[:, side, None, None] for side in range(4))
    away = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2
    pull = (away + np.float32(_CLOSEST)) ** -3
    share = (pull * weights[:, None, None]).sum(axis=0) / pull.sum(axis=0)
    return np.asarray(share, np.float32)


def _planes(frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The planes of an I420 frame, or a BGR frame itself; views."""
    return [frame] if frame.ndim == 3 else list(split_planes(frame))
