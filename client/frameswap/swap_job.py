"""One file in, one file out: the work behind `frameswap swap`, without flags or printing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FaceOrder
from frameswap.errors import NoFaceFound, SeveralFacesFound
from frameswap.job_control import JobControl, JobStopped
from frameswap.journal import Journal, describe_file, is_unfinished
from frameswap.options import SwapOptions
from frameswap.output_file import output_file
from frameswap.photo import write_photo
from frameswap.preview import Preview
from frameswap.provenance import Edit
from frameswap.report import Tally, report_lines
from frameswap.segmented_job import Journaling, SegmentedJob
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoReader
from frameswap.video_writer import AudioMode, VideoWriter

__all__ = ["Tally", "encode_sources", "swap_photo", "swap_video"]

OnFrame = Callable[[int], None]
OnNotes = Callable[[Sequence[str]], None]
_USUAL: Final = Journaling()


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
    image: NDArray[np.uint8],
    sources: Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
) -> Tally:
    """Swap the faces of a photo, (H, W, 3) uint8 BGR, and write it.

    Raises:
        FrameswapError: what went wrong; nothing is written then.
    """
    swapped = swapper.swap(image, sources, options)
    write_photo(output, swapped.frame, edit=Edit(swapper.swapper, swapper.provenance), force=force)
    tally = Tally()
    tally.add(len(swapped.faces), swapped.verdicts)
    return tally


def swap_video(
    swapper: FaceSwapper,
    reader: VideoReader,
    sources: Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
    crf: int,
    preset: str,
    audio: AudioMode,
    on_notes: OnNotes,
    on_frame: OnFrame,
    journaling: Journaling = _USUAL,
    control: JobControl | None = None,
    report: Path | None = None,
    preview: Preview | None = None,
) -> Tally:
    """Swap the faces of a video; decoding, swapping and encoding overlap.

    It is encoded in closed segments, each of which a journal beside the output knows as soon as
    it is whole. A job that was cut short goes on behind the last of them.

    Args:
        on_notes: gets what could not be kept as it was, before the work begins.
        on_frame: gets the number of finished frames after each.
        journaling: how long segments are, and whether an earlier run is gone on with.
        control: asked for each frame whether to go on.
        report: gets a line for each frame (`frameswap.report`).
        preview: is shown the frames.

    Raises:
        FrameswapError: what went wrong; whole segments are kept then, and nothing else is written.
        JobStopped: `control` said so.
    """
    control = control or JobControl()
    force = force or is_unfinished(output)
    with Journal(output) as journal:
        with output_file(output, force=force) as temporary:
            write = partial(
                VideoWriter, temporary, shown=output, crf=crf, preset=preset, audio=audio,
                edit=Edit(swapper.swapper, swapper.provenance),
            )  # fmt: skip
            # Refuses now what the container cannot hold, and lends its encoder's settings.
            form = write(reader)
            try:
                # The other streams are written at the end, from the beginning.
                reader.send_packets(lambda packet: None)
                sources = _begin(journal, form, reader, swapper, sources, options, journaling)
                on_notes([*reader.notes, *form.notes])
                if journal.rows:
                    on_notes([f"going on behind frame {journal.frames} of an earlier run"])
                job = SegmentedJob(
                    reader, form, journal, segment_frames=journaling.segment_frames,
                    slots=len(sources), threads=journaling.encoder_threads, on_frame=on_frame,
                )  # fmt: skip
                frames = control.watch(islice(reader.frames(), journal.frames, None))
                for swapped in swapper.stream(frames, sources, options, reuse_buffers=True):
                    control.check()
                    job.take(swapped)
                    if preview is not None:
                        preview.show(swapped.frame)
            finally:
                form.abort()
            if control.ends_early:
                control.on_drained()
                job.end_early()
            else:
                job.close_segment()
            if not job.tally.frames:
                raise JobStopped
            with reader.reopen() as again:
                job.join(again, write(again))
            if report is not None:
                _write_report(report, job)
        if control.ends_early and journal.rows:
            journal.keep_unfinished()
    return job.tally


def _begin(
    journal: Journal,
    form: VideoWriter,
    reader: VideoReader,
    swapper: FaceSwapper,
    sources: Sequence[Source],
    options: SwapOptions,
    journaling: Journaling,
) -> list[Source]:
    """Begin the journal, or go on with it; returns the sources that its segments were made with."""
    job = {
        "input": describe_file(reader.path),
        "swapper": swapper.swapper,
        "options": options.to_tensor().tolist(),
        "encoder": form.describe_encoder(),
        "segment_frames": journaling.segment_frames,
        "threads": journaling.encoder_threads,
    }
    vectors = np.stack([source.vector for source in sources])
    journal.begin(job, vectors, resume=journaling.resume)
    if np.array_equal(journal.sources, vectors):
        return list(sources)
    return [
        replace(source, vector=vector)
        for source, vector in zip(sources, journal.sources, strict=True)
    ]


def _write_report(path: Path, job: SegmentedJob) -> None:
    with output_file(path, force=True) as temporary:
        text = "".join(report_lines(job.report(), job.tally))
        temporary.write_text(text, encoding="utf-8")
