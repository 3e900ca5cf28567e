"""Single pictures: from a frame of a video to a JPEG."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from frameswap import ReadOptions, SwapOptions
from frameswap.frame_picture import i420_to_bgr
from frameswap.one_frame import read_frame_at
from frameswap.video import VideoReader
from numpy.typing import NDArray

__all__ = ["picture_at", "to_jpeg"]

_JPEG_QUALITY: Final = 85


def picture_at(path: Path, at_s: float) -> NDArray[np.uint8]:
    """The frame of a video that is shown at `at_s` seconds, (H, W, 3) uint8 BGR, upright."""
    with VideoReader(path, ReadOptions(hdr="tonemap")) as reader:
        frame = read_frame_at(reader, Fraction(at_s))
        planes = np.empty(frame.shape, np.uint8)
        frame.copy_to(planes)
        options = replace(
            SwapOptions(),
            color_matrix=reader.tags.color_matrix,
            color_range=reader.tags.color_range,
        )
        height, width = reader.height, reader.width
        if reader.orientation.transposed:
            height, width = width, height
        # Odd sizes were made even for the server.
        return i420_to_bgr(planes, options)[:height, :width]


def to_jpeg(image: NDArray[np.uint8], *, longest: int | None = None) -> bytes:
    """A JPEG of (H, W, 3) uint8 BGR, no side longer than `longest` pixels."""
    picture: NDArray[Any] = image
    factor = 1.0 if longest is None else longest / max(image.shape[:2])
    if factor < 1.0:
        picture = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done  # an array of such a shape can be encoded
    return bytes(data)
