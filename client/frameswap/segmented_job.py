"""A video job in segments: frames in, whole segments into the journal, one file at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from frameswap.allocation import zero_new_memory
from frameswap.answers import SwappedFrame
from frameswap.journal import Journal
from frameswap.report import Tally, count_faces, frame_line, read_verdicts
from frameswap.segments import SEGMENT_FRAMES, Packet, reorder_depth, timed_packets
from frameswap.video import VideoFrame, VideoReader
from frameswap.video_writer import VideoWriter

__all__ = ["Journaling", "PlainJob", "SegmentedJob"]

_MOST_BYTES: Final = 64 << 20
"""A segment ends when it holds as much, however few its frames are: it is kept in memory."""

_GROWING_FRAMES: Final = 64
"""After so many an encoder has the memory that it works with: look-ahead, references, threads."""


def _encoder_threads() -> int:
    # x264's own rule. Said, because the frames depend on it, and a job may move to another machine.
    return max(1, len(os.sched_getaffinity(0)) * 3 // 2)


@dataclass(frozen=True, kw_only=True)
class Journaling:
    """How a job keeps what it has done.

    segment_frames: a run that was cut short does at most so many again.
    resume: True insists on an earlier run that can be gone on with, False begins anew, None takes
        what there is.
    threads: of the encoder; the same in all runs of a job.
    """

    segment_frames: int = SEGMENT_FRAMES
    resume: bool | None = None
    threads: int = 0

    @property
    def encoder_threads(self) -> int:
        return self.threads or _encoder_threads()


class PlainJob:
    """Has each frame written as it comes; for outputs that have no segments.

    Args:
        keeps_report: whether the line of each frame is to be kept.
    """

    def __init__(
        self,
        reader: VideoReader,
        writer: VideoWriter,
        *,
        slots: int,
        on_frame: Callable[[int], None],
        keeps_report: bool,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._slots = slots
        self._on_frame = on_frame
        self._keeps_report = keeps_report
        self._lines: list[str] = []
        self.tally = Tally()

    def take(self, swapped: SwappedFrame) -> None:
        """Take in the next frame."""
        frame = swapped.original
        assert isinstance(frame, VideoFrame)  # what reader.frames() yields
        self._writer.write_frame(
            frame.restore(swapped.frame), frame.pts, duration=frame.duration, alpha=frame.alpha
        )
        if self._keeps_report:
            self._lines.append(_line(self._reader, swapped, self.tally.frames, self._slots))
        self.tally.add(len(swapped.faces), swapped.verdicts)
        self._on_frame(self.tally.frames)

    def report(self) -> Iterator[str]:
        """The line of each frame."""
        return iter(self._lines)


class SegmentedJob:
    """Encodes what `take` is given, and writes the output in `join`.

    Args:
        form: an output that lends its encoder's settings.
        journal: begun; what it holds is done already.
        slots: how many faces of a frame are swapped, at most.
        threads: of each encoder.
        found: gives what was found in frames from one to another (open), for the journal.
        on_frame: gets the number of finished frames after each.

    Attributes:
        tally: of all frames, those of earlier runs included.
    """

    def __init__(
        self,
        reader: VideoReader,
        form: VideoWriter,
        journal: Journal,
        *,
        segment_frames: int,
        slots: int,
        threads: int,
        on_frame: Callable[[int], None],
        found: Callable[[int, int], bytes] = lambda start, stop: b"",
    ) -> None:
        self._reader = reader
        self._found = found
        self._form = form
        self._time_base = form.time_base
        self._journal = journal
        self._segment_frames = segment_frames
        self._slots = slots
        self._threads = threads
        self._on_frame = on_frame
        self.tally = Tally()
        for line in journal.report():
            self.tally.add(count_faces(line), read_verdicts(line))
        self.tally.resumed_at = journal.frames
        self._encoder: Any = None
        self._packets: list[Packet] = []
        self._lines: list[str] = []
        self._size = 0
        self._end_s = 0.0
        self._ends_early = False

    def take(self, swapped: SwappedFrame) -> None:
        """Take in the next frame.

        Raises:
            UnwritableFile: a full disk.
        """
        frame = swapped.original
        assert isinstance(frame, VideoFrame)  # what reader.frames() yields
        if self._encoder is None:
            self._encoder = self._form.new_encoder(threads=self._threads)
        stored = frame.restore(swapped.frame)
        # Only as long as the encoder's memory grows, and only here: what others allocate meanwhile
        # would be written once more, too.
        zero_new_memory(len(self._lines) < _GROWING_FRAMES)
        try:
            packets = self._form.encode_frame(
                stored, frame.pts, self._encoder, duration=frame.duration, alpha=frame.alpha
            )
        finally:
            zero_new_memory(False)
        self._keep(packets)
        ticks = frame.pts + (frame.duration or 0)
        self._end_s = float(ticks * self._reader.time_base)
        self._lines.append(_line(self._reader, swapped, self.tally.frames, self._slots))
        self.tally.add(len(swapped.faces), swapped.verdicts)
        if len(self._lines) >= self._segment_frames or self._size >= _MOST_BYTES:
            self.close_segment()
        self._on_frame(self.tally.frames)

    def end_early(self) -> None:
        """Take no more: the segment is not whole, so the journal does not get it."""
        self._ends_early = True
        self._flush()

    def close_segment(self) -> None:
        """End the segment: the journal gets it, and the next frame begins another."""
        if not self._lines:
            return
        self._flush()
        counts = [count_faces(line) for line in self._lines]
        self._journal.add(
            self._packets, self._lines, faces=sum(counts), frames_without_face=counts.count(0),
            found=self._found(self.tally.frames - len(counts), self.tally.frames),
        )  # fmt: skip
        self._packets, self._lines, self._size = [], [], 0

    def join(self, again: VideoReader, writer: VideoWriter) -> None:
        """Write the output: all segments, and the other streams of the input beside them.

        Args:
            again: the input from its beginning.
            writer: the output, made of `again`.

        Raises:
            FrameswapError: a full disk, another job that took over, or a segment that was damaged
                meanwhile.
        """
        try:
            self._journal.check()
            depths = [row.depth for row in self._journal.rows]
            packets = timed_packets(
                chain(self._journal.packets(), [self._packets]),
                depth=max([*depths, reorder_depth(self._packets)]),
                time_base=self._time_base,
            )
            waiting = next(packets, None)
            for time_s in again.other_packets():
                while waiting is not None and float(waiting.dts * waiting.time_base) <= time_s:
                    writer.write_encoded([waiting])
                    waiting = next(packets, None)
                if self._ends_early and time_s >= self._end_s:
                    break
            if waiting is not None:
                writer.write_encoded(chain([waiting], packets))
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def report(self) -> Iterator[str]:
        """The line of each frame."""
        return chain(self._journal.report(), self._lines)

    def _flush(self) -> None:
        if self._encoder is not None:
            self._keep(self._form.flush(self._encoder))
            self._encoder = None

    def _keep(self, packets: list[Any]) -> None:
        for packet in packets:
            data = bytes(packet)
            self._packets.append(
                Packet(packet.pts, packet.duration or 0, bool(packet.is_keyframe), data)
            )
            self._size += len(data)


def _line(reader: VideoReader, swapped: SwappedFrame, index: int, slots: int) -> str:
    frame = swapped.original
    assert isinstance(frame, VideoFrame)  # what reader.frames() yields
    time_s = float(frame.pts * reader.time_base)
    return frame_line(
        index, time_s, swapped.faces, swapped.verdicts, slots=slots, corrupt=bool(frame.corrupt)
    )
