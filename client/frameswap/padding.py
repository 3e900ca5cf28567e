"""Frames smaller than the server takes: made larger at their right and bottom, and cut again."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.frames import Frame, frame_format, frame_size
from frameswap.planes import split_planes

__all__ = ["MIN_SIDE", "cut_frame", "pad_frame", "pad_photo"]

MIN_SIDE: Final = 64
"""The smallest side of a frame that the models take, pixels (`MIN_FRAME_SIDE` of the graphs)."""


class _PaddedFrame:
    """A small frame with its last row and column repeated, a `frameswap.frames.FrameSource`."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        size = frame_size(frame)
        height, width = max(MIN_SIDE, size.height), max(MIN_SIDE, size.width)
        bgr = frame_format(frame) == "bgr"
        self.shape: tuple[int, ...] = (height, width, 3) if bgr else (height * 3 // 2, width)

    def copy_to(self, out: NDArray[np.uint8]) -> None:
        """Write the larger frame into `out`: uint8, C-contiguous, of this `shape`."""
        if isinstance(self._frame, np.ndarray):
            small = np.ascontiguousarray(self._frame)
        else:
            small = np.empty(self._frame.shape, np.uint8)
            self._frame.copy_to(small)
        if small.ndim == 3:
            _repeat_edges(small, out)
            return
        for plane, target in zip(split_planes(small), split_planes(out), strict=True):
            _repeat_edges(plane, target)


def pad_frame(frame: Frame) -> Frame:
    """The frame itself, or one that is large enough with the frame in its upper left corner.

    Raises:
        BadFrame: not a frame.
    """
    size = frame_size(frame)
    if min(size.height, size.width) >= MIN_SIDE:
        return frame
    return _PaddedFrame(frame)


def cut_frame(large: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """Cut what `pad_frame` made of a frame back to the frame's size.

    Args:
        large: uint8 of the larger frame's shape.

    Returns:
        uint8 of `frame`'s shape; `large` itself where nothing was added.
    """
    if large.shape == tuple(frame.shape):
        return large
    if large.ndim == 3:
        return np.ascontiguousarray(large[: frame.shape[0], : frame.shape[1]])
    cut = np.empty(frame.shape, np.uint8)
    for plane, target in zip(split_planes(large), split_planes(cut), strict=True):
        target[...] = plane[: target.shape[0], : target.shape[1]]
    return cut


def pad_photo(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a photo, both sides made large enough."""
    height, width = image.shape[:2]
    if min(height, width) >= MIN_SIDE:
        return image
    padded = np.empty((max(MIN_SIDE, height), max(MIN_SIDE, width), 3), np.uint8)
    _repeat_edges(image, padded)
    return padded


def _repeat_edges(small: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    bottom, right = out.shape[0] - small.shape[0], out.shape[1] - small.shape[1]
    out[...] = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
