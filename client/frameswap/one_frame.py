"""One frame of a video as a picture: the quick look before a job."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from frameswap.errors import UnreadableFile
from frameswap.frame_picture import i420_to_bgr
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting
from frameswap.persons.one_picture import swap_one
from frameswap.persons.search import Search
from frameswap.photo import write_photo
from frameswap.provenance import Edit
from frameswap.report import Tally
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoFrame, VideoReader

__all__ = ["read_frame_at", "swap_frame_at"]

_MICROSECONDS: Final = 1_000_000


def swap_frame_at(
    swapper: FaceSwapper,
    reader: VideoReader,
    at_s: Fraction,
    casting: Casting,
    options: SwapOptions,
    output: Path,
    *,
    search: Search = Search.OFF,
    force: bool,
) -> Tally:
    """Swap the frame that is shown at a moment, and write it as a photo.

    As a job would, but by itself: what a job knows of the frames around it is not in it.

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
    swapped = swap_one(swapper, read_frame_at(reader, at_s), casting, options, search=search)
    image = i420_to_bgr(swapped.frame, options)
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
