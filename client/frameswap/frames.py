"""What the client accepts as a frame, and what it makes of one."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FrameFormat
from frameswap.errors import BadFrame

__all__ = ["Frame", "FrameSource", "frame_format", "frame_size"]


@runtime_checkable
class FrameSource(Protocol):
    """A frame that is written where it is needed, instead of being an array first.

    A decoder's frame can so be copied straight into shared memory: one copy, not two.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(H*3/2, W) for I420, (H, W, 3) for BGR."""

    def copy_to(self, out: NDArray[np.uint8]) -> None:
        """Write the frame into `out`: uint8, C-contiguous, of this `shape`."""


Frame = NDArray[np.uint8] | FrameSource
"""(H*3/2, W) uint8 I420 (all of Y, then U, then V; H and W even) or (H, W, 3) uint8 BGR."""


class FrameSize(NamedTuple):
    """Height and width of a picture, in pixels."""

    height: int
    width: int


def frame_format(frame: Frame) -> FrameFormat:
    """Tell I420 from BGR by shape.

    Raises:
        BadFrame: not uint8, or a shape that is neither.
    """
    if isinstance(frame, np.ndarray) and frame.dtype != np.uint8:
        raise BadFrame(f"a frame must be uint8, 0 to 255, not {frame.dtype}")
    shape = getattr(frame, "shape", None)
    if shape is None:
        raise BadFrame(f"a frame must be a NumPy array of uint8, not {type(frame).__name__}")
    if len(shape) == 3 and shape[2] == 3 and min(shape) > 0:
        return "bgr"
    if len(shape) == 2 and min(shape) > 0:
        rows, width = shape
        if rows % 3 or width % 2:
            raise BadFrame(
                f"an I420 frame is (H*3/2, W) with H and W even, not {shape}: pad odd sizes by one "
                f"row or column"
            )
        return "i420"
    raise BadFrame(
        f"a frame is (H, W, 3) for BGR or (H*3/2, W) for I420, neither of them empty, not {shape}"
    )


def frame_size(frame: Frame) -> FrameSize:
    """Picture size of a frame that `frame_format` accepts."""
    if frame_format(frame) == "bgr":
        return FrameSize(frame.shape[0], frame.shape[1])
    return FrameSize(frame.shape[0] * 2 // 3, frame.shape[1])
