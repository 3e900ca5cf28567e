"""Where one shot ends and the next begins."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.frames import Frame
from frameswap.video_frame import VideoFrame

__all__ = ["CutFinder", "thumbnail"]

_SIZE: Final = (16, 9)
"""Width and height of what is compared: noise, and most motion, is gone at this size."""
_STEP: Final = 4
"""Rows and columns that are read before shrinking, every so many: a cut is no matter of detail."""
_LEAST: Final = 16.0
"""Mean change of a luma thumbnail, of 255, below which nothing is a cut."""
_ABOVE_USUAL: Final = 4.0
"""A cut changes so many times more than the frames before it did."""
_REMEMBERED: Final = 8


def thumbnail(frame: Frame) -> NDArray[np.float32]:
    """A frame's luma, or green, at 16 x 9: (9, 16) float32, 0 to 255."""
    if isinstance(frame, VideoFrame):
        plane = frame.luma
    else:
        array = frame if isinstance(frame, np.ndarray) else _copy(frame)
        rows = len(array) if array.ndim == 3 else len(array) * 2 // 3
        plane = array[..., 1] if array.ndim == 3 else array[:rows]
    if min(plane.shape) >= _STEP * max(_SIZE):
        plane = plane[::_STEP, ::_STEP]
    small = cv2.resize(np.ascontiguousarray(plane), _SIZE, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


class CutFinder:
    """Tells a cut from motion: a change that is large, and large for this shot."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._changes: deque[float] = deque(maxlen=_REMEMBERED)

    def is_cut(self, small: NDArray[np.float32]) -> bool:
        """Whether a shot begins with the next frame, given its thumbnail; the first begins one."""
        last, self._last = self._last, small
        if last is None:
            return True
        change = float(np.abs(small - last).mean())
        usual = median(self._changes) if self._changes else 0.0
        if change > max(_LEAST, _ABOVE_USUAL * usual):
            self._changes.clear()
            return True
        self._changes.append(change)
        return False


def _copy(frame: Frame) -> NDArray[np.uint8]:
    array = np.empty(frame.shape, np.uint8)
    frame.copy_to(array)  # type: ignore[union-attr]
    return array
