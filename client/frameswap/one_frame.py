"""One frame of a video as a picture: the quick look before a job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange as FFmpegRange
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from frameswap.contract import ColorMatrix, ColorRange
from frameswap.errors import UnreadableFile
from frameswap.options import SwapOptions
from frameswap.photo import write_photo
from frameswap.provenance import Edit
from frameswap.report import Tally
from frameswap.sources import Source
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoFrame, VideoReader

__all__ = ["read_frame_at", "swap_frame_at"]

_MICROSECONDS: Final = 1_000_000
_MATRICES: Final = {
    ColorMatrix.BT601: Colorspace.ITU601,
    ColorMatrix.BT709: Colorspace.ITU709,
    ColorMatrix.BT2020: Colorspace.BT2020,
}
_HD_ROWS: Final = 720
"""From so many rows on, a video that does not say its matrix has BT.709's."""


def swap_frame_at(
    swapper: FaceSwapper,
    reader: VideoReader,
    at_s: Fraction,
    sources: Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
) -> Tally:
    """Swap the frame that is shown at a moment, exactly as a job would, and write it as a photo.

    Raises:
        UnreadableFile: past the end of the video.
        FrameswapError: what went wrong; nothing is written then.
    """
    options = replace(
        options,
        color_matrix=reader.tags.color_matrix,
        color_range=reader.tags.color_range,
        chroma_location=reader.chroma_location,
    )
    swapped = swapper.swap(read_frame_at(reader, at_s), sources, options)
    image = _to_bgr(swapped.frame, options)
    height, width = reader.height, reader.width
    if reader.orientation.transposed:
        height, width = width, height
    # Odd sizes were made even for the server.
    image = np.ascontiguousarray(image[:height, :width])
    write_photo(output, image, edit=Edit(swapper.swapper, swapper.provenance), force=force)
    tally = Tally()
    tally.add(len(swapped.faces), swapped.verdicts)
    return tally


def read_frame_at(reader: VideoReader, at_s: Fraction) -> VideoFrame:
    """Return the frame that is shown at `at_s` seconds; of a reader that was not read yet.

    Raises:
        UnreadableFile: past the end of the video, or damage before it.
    """
    # What cannot be searched is decoded from its beginning.
    with suppress(av.error.FFmpegError):
        start = max(0, reader.container.start_time or 0)
        reader.container.seek(start + int(at_s * _MICROSECONDS))
    shown: VideoFrame | None = None
    for frame in reader.frames():
        if shown is not None and frame.pts * reader.time_base > at_s:
            return shown
        shown = frame
    assert shown is not None  # a reader has a first frame
    end_s = shown.pts * reader.time_base + 1 / reader.frame_rate
    if at_s >= end_s:
        raise UnreadableFile(
            f"{reader.path} ends at {float(end_s):.2f} s, and {float(at_s):.2f} s is past it: "
            f"choose an earlier moment"
        )
    return shown


def _to_bgr(frame: NDArray[np.uint8], options: SwapOptions) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of an I420 frame with those colours."""
    matrix = options.color_matrix
    if matrix == ColorMatrix.AUTO:
        is_hd = frame.shape[0] * 2 // 3 >= _HD_ROWS
        matrix = ColorMatrix.BT709 if is_hd else ColorMatrix.BT601
    is_full = options.color_range == ColorRange.FULL
    picture = av.VideoFrame.from_ndarray(frame, format="yuv420p").reformat(
        format="bgr24",
        src_colorspace=_MATRICES[matrix],
        src_color_range=FFmpegRange.JPEG if is_full else FFmpegRange.MPEG,
    )
    return np.asarray(picture.to_ndarray(), np.uint8)
