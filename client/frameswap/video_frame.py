"""One decoded frame of a video, and its planes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from frameswap.orientation import UPRIGHT, Orientation, orient_planes
from frameswap.planes import even, pack_planes

__all__ = ["VideoFrame", "picture_planes"]


class VideoFrame:
    """One decoded frame, a `frameswap.frames.FrameSource`.

    pts, duration: presentation time and how long, in units of the reader's time base.
    height, width: of the stored picture, pixels; may be odd.
    alpha: (H, W) uint8 of the stored picture, where it has transparency.
    corrupt: whether the decoder marked it as damaged.
    """

    def __init__(
        self,
        planes: list[NDArray[np.uint8]],
        *,
        pts: int,
        orientation: Orientation,
        duration: int | None = None,
        corrupt: bool = False,
    ) -> None:
        self._planes = planes[:3]
        self._orientation = orientation
        self.alpha = planes[3] if len(planes) > 3 else None
        self.pts = pts
        self.duration = duration
        self.corrupt = corrupt
        self.height, self.width = planes[0].shape

    @property
    def shape(self) -> tuple[int, int]:
        """(H*3/2, W) of the upright frame, H and W rounded up to even numbers."""
        height, width = even(self.height), even(self.width)
        if self._orientation.transposed:
            height, width = width, height
        return height * 3 // 2, width

    @property
    def luma(self) -> NDArray[np.uint8]:
        """(H, W) uint8 as stored, not turned upright; a view."""
        return self._planes[0]

    def copy_to(self, out: NDArray[np.uint8]) -> None:
        """Write the upright frame as I420 into `out`: (H*3/2, W) uint8, C-contiguous."""
        if self._orientation == UPRIGHT:
            pack_planes(self._planes, out)
        else:
            stored = np.empty((even(self.height) * 3 // 2, even(self.width)), np.uint8)
            pack_planes(self._planes, stored)
            orient_planes(stored, out, self._orientation)

    def as_array(self) -> NDArray[np.uint8]:
        """The upright frame: (H*3/2, W) uint8 I420."""
        out = np.empty(self.shape, np.uint8)
        self.copy_to(out)
        return out

    def restore(self, upright: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn an upright I420 frame back to how the stream is stored."""
        if self._orientation == UPRIGHT:
            return upright
        stored = np.empty((even(self.height) * 3 // 2, even(self.width)), np.uint8)
        orient_planes(upright, stored, self._orientation.inverse())
        return stored


def picture_planes(frame: Any) -> list[NDArray[np.uint8]]:
    """A frame's planes without the padding at the lines' ends; views of the decoder's buffers."""
    return [
        np.frombuffer(plane, np.uint8, plane.line_size * plane.height).reshape(
            plane.height, plane.line_size
        )[:, : plane.width]
        for plane in frame.planes
    ]
