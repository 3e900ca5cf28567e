"""One file in, one file out: the work behind `frameswap swap`, without flags or printing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FaceOrder
from frameswap.encoders import Encoding
from frameswap.errors import NoFaceFound, SeveralFacesFound
from frameswap.options import SwapOptions
from frameswap.output_file import ready_output
from frameswap.photo import Photo, write_photo
from frameswap.provenance import Edit
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoFrame, VideoReader
from frameswap.video_writer import AudioMode, VideoWriter

__all__ = ["Tally", "encode_sources", "swap_photo", "swap_video"]

OnFrame = Callable[[int], None]
OnNotes = Callable[[Sequence[str]], None]


@dataclass
class Tally:
    """What a job did; faces are those found, swapped or not."""

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0

    def add(self, faces: NDArray[np.float32]) -> None:
        self.frames += 1
        self.faces += len(faces)
        self.frames_without_face += len(faces) == 0


def encode_sources(
    swapper: FaceSwapper,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
    *,
    face: FaceOrder | None,
    score_threshold: float | None,
) -> Source:
    """Encode the photos of one person and average them.

    Args:
        photos: file and (H, W, 3) uint8 BGR.

    Raises:
        BadSource: no face, several faces, or several photos for an image swapper.
    """
    sources = []
    for path, image in photos:
        try:
            sources.append(swapper.encode_source(image, face=face, score_threshold=score_threshold))
        except (NoFaceFound, SeveralFacesFound) as error:
            raise type(error)(f"{path}: {error}") from error
    return average_sources(sources)


def swap_photo(
    swapper: FaceSwapper,
    photo: Photo,
    sources: Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
    quality: int | None = None,
) -> Tally:
    """Swap the faces of a photo, and write it with what belonged to it.

    Args:
        quality: as `write_photo` takes it.

    Raises:
        FrameswapError: what went wrong; nothing is written then.
    """
    swapped = swapper.swap(photo.image, sources, options)
    write_photo(
        output,
        swapped.frame,
        edit=Edit(swapper.swapper, swapper.provenance),
        force=force,
        alpha=photo.alpha,
        metadata=photo.metadata,
        quality=quality,
    )
    tally = Tally()
    tally.add(swapped.faces)
    return tally


def swap_video(
    swapper: FaceSwapper,
    reader: VideoReader,
    sources: Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
    encoding: Encoding,
    audio: AudioMode,
    on_notes: OnNotes,
    on_frame: OnFrame,
) -> Tally:
    """Swap the faces of a video; decoding, swapping and encoding overlap.

    Args:
        on_notes: gets what could not be kept as it was, before the work begins, and at its end
            what was damaged.
        encoding, audio: as `VideoWriter` takes them.
        on_frame: gets the number of finished frames after each.

    Raises:
        FrameswapError: what went wrong; nothing is written then.
    """
    tally = Tally()
    with ready_output(output, force=force) as temporary:
        writer = VideoWriter(
            temporary,
            reader,
            shown=output,
            edit=Edit(swapper.swapper, swapper.provenance),
            encoding=encoding,
            audio=audio,
        )
        on_notes([*reader.notes, *writer.notes])
        try:
            stream = swapper.stream(reader.frames(), sources, options, reuse_buffers=True)
            for swapped in stream:
                frame = swapped.original
                assert isinstance(frame, VideoFrame)  # what reader.frames() yields
                writer.write_frame(
                    frame.restore(swapped.frame),
                    frame.pts,
                    duration=frame.duration,
                    alpha=frame.alpha,
                )
                tally.add(swapped.faces)
                on_frame(tally.frames)
            writer.finish()
            on_notes(reader.damage)
        except BaseException:
            writer.abort()
            raise
    return tally
