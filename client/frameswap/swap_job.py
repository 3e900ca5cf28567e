"""One file in, one file out: the work behind `frameswap swap`, without flags or printing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.answers import SwappedFrame
from frameswap.contract import FaceOrder
from frameswap.encoders import Encoding, file_suffix
from frameswap.errors import BadOptions, NoFaceFound, SeveralFacesFound
from frameswap.file_kinds import is_sequence, is_standard
from frameswap.job_control import JobControl, JobStopped
from frameswap.journal import Journal, describe_file, is_unfinished
from frameswap.options import SwapOptions
from frameswap.output_file import check_output, output_file, ready_output
from frameswap.persons.casting import Casting, Role
from frameswap.persons.eyes import Tape, read_tape, write_tape
from frameswap.persons.following import follow
from frameswap.persons.one_picture import swap_one
from frameswap.persons.search import Search
from frameswap.persons.steadiness import Steadiness
from frameswap.photo import Photo, write_photo
from frameswap.preview import Preview
from frameswap.provenance import Edit
from frameswap.report import Tally, report_lines
from frameswap.segmented_job import Journaling, PlainJob, SegmentedJob
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoReader
from frameswap.video_frame import VideoFrame
from frameswap.video_writer import AudioMode, VideoWriter

__all__ = ["Tally", "encode_sources", "swap_photo", "swap_video"]

OnFrame = Callable[[int], None]
OnNotes = Callable[[Sequence[str]], None]
_USUAL: Final = Journaling()
_WHOLE_SUFFIXES: Final = (".gif", ".webp", ".y4m")
"""Files whose pictures are no independent packets of an encoder, or need no encoder."""


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
    casting: Casting,
    options: SwapOptions,
    output: Path,
    *,
    search: Search = Search.OFF,
    force: bool,
    quality: int | None = None,
) -> Tally:
    """Swap the faces of a photo, and write it with what belonged to it.

    Args:
        quality: as `write_photo` takes it.

    Raises:
        FrameswapError: what went wrong; nothing is written then.
    """
    swapped = swap_one(swapper, photo.image, casting, options, search=search)
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
    tally.add(len(swapped.faces), swapped.verdicts)
    return tally


@dataclass(frozen=True)
class VideoTask:
    """What the runs of one video job have in common; see `swap_video`."""

    swapper: FaceSwapper
    reader: VideoReader
    casting: Casting
    steady: Steadiness | None
    options: SwapOptions
    output: Path
    force: bool
    encoding: Encoding
    audio: AudioMode
    on_notes: OnNotes
    on_frame: OnFrame
    journaling: Journaling
    control: JobControl
    report: Path | None
    preview: Preview | None

    def write(self, temporary: Path, reader: VideoReader) -> VideoWriter:
        return VideoWriter(
            temporary, reader, shown=self.output, encoding=self.encoding, audio=self.audio,
            edit=Edit(self.swapper.swapper, self.swapper.provenance),
        )  # fmt: skip

    def run(
        self,
        job: PlainJob | SegmentedJob,
        casting: Casting,
        *,
        done: int,
        known: Iterable[bytes] = (),
        tape: Tape | None = None,
    ) -> None:
        """Swap the frames behind those that are done, and have the job take each.

        Args:
            known: what was found in the frames that are done.
            tape: gets what is found in the others.
        """
        frames = self.control.watch(islice(self.reader.frames(), done, None))
        for swapped in self._swap(frames, casting, known, tape):
            self.control.check()
            job.take(swapped)
            if self.preview is not None:
                self.preview.show(swapped.frame)
        if self.control.ends_early:
            self.control.on_drained()
        if not job.tally.frames:
            raise JobStopped

    def _swap(
        self,
        frames: Iterable[VideoFrame],
        casting: Casting,
        known: Iterable[bytes],
        tape: Tape | None,
    ) -> Iterator[SwappedFrame]:
        if self.steady is None:
            sources = [role.source for role in casting.roles]
            options = replace(self.options, face_order=casting.order)
            return self.swapper.stream(frames, sources, options, reuse_buffers=True)
        return follow(
            self.swapper, frames, casting, self.options, pixel="i420",
            ahead=self.steady.frames_ahead(self.reader.frame_rate),
            frame_rate=self.reader.frame_rate, search=self.steady.search,
            known=chain.from_iterable(read_tape(data) for data in known), tape=tape,
            reuse_buffers=True,
        )  # fmt: skip

    def write_report(self, job: PlainJob | SegmentedJob) -> None:
        if self.report is None:
            return
        with output_file(self.report, force=True) as temporary, temporary.open("w") as file:
            file.writelines(report_lines(job.report(), job.tally))


def swap_video(
    swapper: FaceSwapper,
    reader: VideoReader,
    casting: Casting | Sequence[Source],
    options: SwapOptions,
    output: Path,
    *,
    force: bool,
    encoding: Encoding,
    audio: AudioMode,
    on_notes: OnNotes,
    on_frame: OnFrame,
    steady: Steadiness | None = None,
    journaling: Journaling = _USUAL,
    control: JobControl | None = None,
    report: Path | None = None,
    preview: Preview | None = None,
) -> Tally:
    """Swap the faces of a video; decoding, swapping and encoding overlap.

    It is encoded in closed segments, each of which a journal beside the output knows as soon as
    it is whole. A job that was cut short goes on behind the last of them. What cannot be read
    twice, or is no file of encoded packets, is written as it comes, without a journal.

    Args:
        casting: who becomes whom; of sources, the k-th face in the options' order is given the
            k-th.
        steady: how faces are followed; None: each frame by itself.
        on_notes: gets what could not be kept as it was, before the work begins, and at its end
            what was damaged.
        encoding, audio: as `VideoWriter` takes them.
        on_frame: gets the number of finished frames after each.
        journaling: how long segments are, and whether an earlier run is gone on with.
        control: asked for each frame whether to go on.
        report: gets a line for each frame (`frameswap.report`).
        preview: is shown the frames.

    Raises:
        FrameswapError: what went wrong; whole segments are kept then, and nothing else is written.
        JobStopped: `control` said so.
    """
    if not isinstance(casting, Casting):
        casting = Casting.by_place(casting, options.face_order)
    if steady is None and casting.knows_persons:
        raise BadOptions("frame by frame nobody is recognised: leave --steady off out")
    task = VideoTask(
        swapper, reader, casting, steady, options, output, force, encoding, audio, on_notes,
        on_frame, journaling, control or JobControl(), report, preview,
    )  # fmt: skip
    if report is not None:
        # Now: it is written when the work is done.
        check_output(report, force=True)
    if _can_be_journaled(reader, output):
        return _swap_in_segments(task)
    if journaling.resume:
        raise BadOptions(f"{output} is written as it comes: there is nothing to --resume")
    return _swap_as_it_comes(task)


def _can_be_journaled(reader: VideoReader, output: Path) -> bool:
    is_plain = not (is_standard(output) or is_sequence(output))
    is_file = isinstance(reader.path, Path) and reader.path.is_file()
    return is_plain and is_file and file_suffix(output) not in _WHOLE_SUFFIXES


def _swap_as_it_comes(task: VideoTask) -> Tally:
    with ready_output(task.output, force=task.force) as temporary:
        writer = task.write(temporary, task.reader)
        task.on_notes([*task.reader.notes, *writer.notes])
        job = PlainJob(
            task.reader, writer, slots=len(task.casting.roles), on_frame=task.on_frame,
            keeps_report=task.report is not None,
        )  # fmt: skip
        try:
            task.run(job, task.casting, done=0)
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        task.on_notes(task.reader.damage)
        task.write_report(job)
    return job.tally


def _swap_in_segments(task: VideoTask) -> Tally:
    force = task.force or is_unfinished(task.output)
    with Journal(task.output) as journal:
        with ready_output(task.output, force=force) as temporary:
            # Refuses now what the container cannot hold, and lends its encoder's settings.
            form = task.write(temporary, task.reader)
            try:
                # The other streams are written at the end, from the beginning.
                task.reader.send_packets(lambda packet: None)
                casting = _begin(task, journal, form)
                task.on_notes([*task.reader.notes, *form.notes])
                if journal.rows:
                    task.on_notes([f"going on behind frame {journal.frames} of an earlier run"])
                tape = None if task.steady is None else Tape()
                job = SegmentedJob(
                    task.reader, form, journal, slots=len(casting.roles), on_frame=task.on_frame,
                    segment_frames=task.journaling.segment_frames,
                    threads=task.journaling.encoder_threads, found=_found_by(tape),
                )  # fmt: skip
                known = [] if tape is None else journal.found()
                task.run(job, casting, done=journal.frames, known=known, tape=tape)
            finally:
                form.abort()
            if task.control.ends_early:
                job.end_early()
            else:
                job.close_segment()
            task.on_notes(task.reader.damage)
            with task.reader.reopen() as again:
                job.join(again, task.write(temporary, again))
            task.write_report(job)
        if task.control.ends_early and journal.rows:
            journal.keep_unfinished()
    return job.tally


def _found_by(tape: Tape | None) -> Callable[[int, int], bytes]:
    if tape is None:
        return lambda start, stop: b""
    return lambda start, stop: write_tape(tape.take(start, stop))


def _begin(task: VideoTask, journal: Journal, form: VideoWriter) -> Casting:
    """Begin the journal, or go on with it; returns the casting that its segments were made with."""
    assert isinstance(task.reader.path, Path)  # what can be journaled
    roles = task.casting.roles
    job = {
        "input": describe_file(task.reader.path),
        "reading": {key: str(value) for key, value in asdict(task.reader.options).items()},
        "swapper": task.swapper.swapper,
        "options": task.options.to_tensor().tolist(),
        "order": task.casting.order,
        "remembers": task.casting.remembers,
        "steady": None if task.steady is None else str(task.steady),
        "encoder": form.describe_encoder(),
        "segment_frames": task.journaling.segment_frames,
        "threads": task.journaling.encoder_threads,
    }
    vectors = np.stack([role.source.vector for role in roles])
    named = [role.reference for role in roles if role.reference is not None]
    references = np.stack(named) if named else np.zeros((0, 0), np.float32)
    journal.begin(job, vectors, references=references, resume=task.journaling.resume)
    return replace(
        task.casting,
        roles=tuple(
            Role(
                _with_vector(role.source, journal.sources[number]),
                journal.references[number] if named else None,
            )
            for number, role in enumerate(roles)
        ),
    )


def _with_vector(source: Source, vector: NDArray[np.float32]) -> Source:
    return source if np.array_equal(source.vector, vector) else replace(source, vector=vector)
