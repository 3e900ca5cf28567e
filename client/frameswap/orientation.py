"""The eight orientations of a stored picture, and turning I420 frames between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.planes import split_planes

__all__ = ["UPRIGHT", "Orientation", "orient_planes", "read_matrix"]


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes an upright one: transpose, then mirror.

    transposed: rows become columns first.
    mirrored_x, mirrored_y: columns, rows are then reversed.
    """

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @classmethod
    def from_matrix(cls, matrix: Sequence[int] | None) -> Orientation:
        """Read FFmpeg's display matrix; one that is not of right angles counts as upright.

        The first two columns of the rows 0 and 1, (a, b) and (c, d), map a stored pixel to a
        shown one: x' = a x + c y, y' = b x + d y. Source: libavutil/display.h.
        """
        if matrix is None:
            return UPRIGHT
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        if b == 0 and c == 0 and a and d:
            return cls(mirrored_x=a < 0, mirrored_y=d < 0)
        if a == 0 and d == 0 and b and c:
            return cls(transposed=True, mirrored_x=c < 0, mirrored_y=b < 0)
        return UPRIGHT

    def inverse(self) -> Orientation:
        """From upright back to stored: mirroring after a transposition swaps its axes."""
        if self.transposed:
            return Orientation(True, self.mirrored_y, self.mirrored_x)
        return self


UPRIGHT: Final = Orientation()


def read_matrix(frame: Any) -> tuple[int, ...] | None:
    """FFmpeg's 3x3 display matrix of a decoded frame, 9 integers, when the file has one."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else tuple(np.frombuffer(side_data, np.int32).tolist())


def orient_planes(
    frame: NDArray[np.uint8], out: NDArray[np.uint8], orientation: Orientation
) -> None:
    """Turn an I420 frame, plane by plane.

    Args:
        frame: (H*3/2, W) uint8. out: the same, or (W*3/2, H) when transposed; written.
    """
    for source, target in zip(split_planes(frame), split_planes(out), strict=True):
        turned: NDArray[np.uint8] = source
        if orientation.transposed:
            turned = np.asarray(cv2.transpose(turned), np.uint8)
        if orientation.mirrored_x or orientation.mirrored_y:
            # OpenCV: 1 mirrors columns, 0 rows, -1 both.
            code = 1 if not orientation.mirrored_y else 0 if not orientation.mirrored_x else -1
            turned = np.asarray(cv2.flip(turned, code), np.uint8)
        target[...] = turned
