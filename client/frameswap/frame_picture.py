"""An I420 frame as a picture to look at."""

from __future__ import annotations

from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange as FFmpegRange
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from frameswap.contract import ColorMatrix, ColorRange
from frameswap.options import SwapOptions

__all__ = ["HD_ROWS", "i420_to_bgr"]

_MATRICES: Final = {
    ColorMatrix.BT601: Colorspace.ITU601,
    ColorMatrix.BT709: Colorspace.ITU709,
    ColorMatrix.BT2020: Colorspace.BT2020,
}
HD_ROWS: Final = 720
"""From so many rows on, a video that does not say its matrix has BT.709's."""


def i420_to_bgr(frame: NDArray[np.uint8], options: SwapOptions) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of an I420 frame with those colours."""
    matrix = options.color_matrix
    if matrix == ColorMatrix.AUTO:
        is_hd = frame.shape[0] * 2 // 3 >= HD_ROWS
        matrix = ColorMatrix.BT709 if is_hd else ColorMatrix.BT601
    is_full = options.color_range == ColorRange.FULL
    picture = av.VideoFrame.from_ndarray(frame, format="yuv420p").reformat(
        format="bgr24",
        src_colorspace=_MATRICES[matrix],
        src_color_range=FFmpegRange.JPEG if is_full else FFmpegRange.MPEG,
    )
    return np.asarray(picture.to_ndarray(), np.uint8)
