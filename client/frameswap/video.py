"""Reading a video: its planes as they were decoded, with everything that belongs to them.

An 8-bit 4:2:0 frame goes on without any conversion. Other formats are brought to 8-bit 4:2:0 once.
Frames are handed out upright, because a detector wants upright faces; the file keeps its display
matrix and its stored orientation (see VideoFrame.restore).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from types import TracebackType
from typing import Any, Final

import av

from frameswap.addresses import Target
from frameswap.contract import ChromaLocation
from frameswap.errors import UnreadableFile
from frameswap.frame_colors import FrameColors
from frameswap.frame_times import FrameClock, with_durations
from frameswap.orientation import UPRIGHT, Orientation, read_matrix
from frameswap.packet_times import PacketTimes
from frameswap.read_options import ReadOptions
from frameswap.video_frame import VideoFrame
from frameswap.video_input import choose_decoder, choose_stream, open_video, stated_rate

__all__ = ["VideoFrame", "VideoReader"]

_TRUNCATION_S: Final = 1.0
"""A file that ends this much before its header says is cut off. Below a second, containers and
their streams differ honestly: edit lists, a last frame's unknown duration."""

_MPEG_4: Final = "mov,mp4,m4a,3gp,3g2,mj2"
_FORMATS_WITH_HEADER: Final = (_MPEG_4, "matroska,webm", "avi", "flv", "asf")
"""Whose duration is written in the file; FFmpeg guesses it for others, from the bit rate even."""

_AS_IT_COMES: Final = ReadOptions()

OnPacket = Callable[[Any], None]


class VideoReader:
    """The first real video stream of a file, and the packets of the others.

    Args:
        path: the file, or an address; "-" is standard input, `frame_%04d.png` are numbered
            pictures.
        options: which part, and what becomes of HDR and of damaged frames.

    Attributes:
        notes: sentences about what could not be kept as it was.
        corrupt_frames: how many frames were damaged, as far as it was read.
        time_base: seconds a tick of the frames' times.

    Raises:
        UnreadableFile: missing, empty, damaged, without video, HDR.
    """

    def __init__(self, path: Target, options: ReadOptions = _AS_IT_COMES) -> None:
        self.path = path
        self.options = options
        self.notes: list[str] = []
        self.corrupt_frames = 0
        self._on_packet: OnPacket | None = None
        self._early: list[Any] = []
        self._end_s = 0.0
        self._video_end_s = Fraction(0)
        self._started = self._ended_early = False
        self._stack = ExitStack()
        try:
            self.container = open_video(path, options, self._stack)
            self.stream = choose_stream(self.container, path)
            self.stream.thread_type = "AUTO"
            self._times = PacketTimes(self.container, options)
            self._decoder = choose_decoder(self.stream)
            self._clock = FrameClock(self._stream_base(), stated_rate(self.container, self.stream))
            self.time_base = self._clock.base
            self._seek()
            self._decoded = self._decode()
            self._first = self._read_first()
            self._colors = FrameColors(
                self._first,
                codec=self.stream.codec_context.name,
                path=path,
                hdr=options.hdr,
                stack=self._stack,
            )
            self.notes += self._colors.notes
            self.tags, self.shows_alpha = self._colors.tags, self._colors.shows_alpha
            self.has_alpha = self._colors.has_alpha
            self.display_matrix = read_matrix(self._first)
            self.orientation = Orientation.from_matrix(self.display_matrix)
            self.height, self.width = self._first.height, self._first.width
            if self._first.interlaced_frame:
                self.notes.append("interlaced video is swapped and written frame by frame")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._stack.close()

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second, as well as the container knows it."""
        return stated_rate(self.container, self.stream) or Fraction(25)

    @property
    def frame_count(self) -> int | None:
        """How many frames the container promises, for a progress line; None when it does not."""
        promised_s = self._promised_s()
        if self.options.start_s is not None or self.options.end_s is not None:
            start_s = float(self.options.start_s or 0)
            end_s = promised_s if self.options.end_s is None else float(self.options.end_s)
            part_s = min(end_s, promised_s or end_s) - start_s
            return round(part_s * self.frame_rate) if part_s > 0 else None
        if self.stream.frames:
            return int(self.stream.frames)
        return round(promised_s * self.frame_rate) if promised_s else None

    @property
    def chroma_location(self) -> ChromaLocation:
        """Where chroma lies in the frames as they are handed out.

        A turned or mirrored frame has it where the contract has no word for it; the centre is
        then the nearest, half a luma pixel off.
        """
        if self.orientation != UPRIGHT:
            return ChromaLocation.CENTER
        return self.tags.chroma_location

    @property
    def damage(self) -> list[str]:
        """Sentences about what was damaged, as far as it was read."""
        if not self.corrupt_frames:
            return []
        frames = f"{self.corrupt_frames} frame{'s' if self.corrupt_frames > 1 else ''}"
        return [
            f"{frames} of {self.path.name} {'are' if self.corrupt_frames > 1 else 'is'} damaged "
            f"and went in as FFmpeg could show them, or were left out and the one before shown "
            f"longer (--corrupt refuse ends the job instead)"
        ]

    def send_packets(self, on_packet: OnPacket) -> None:
        """Have the packets of the other streams handed over, in file order, as frames are read.

        Those that came before the first frame are handed over now. Without this call they are
        dropped.
        """
        self._on_packet = on_packet
        early, self._early = self._early, []
        for packet in early:
            on_packet(packet)

    def reopen(self) -> VideoReader:
        """The same file from its beginning, for its other streams."""
        return VideoReader(self.path, self.options)

    def other_packets(self) -> Iterator[float]:
        """Hand the packets of the other streams over, without decoding pictures.

        Yields:
            The time of each packet, in seconds, before it is handed over.

        Raises:
            UnreadableFile: damage, or a file that was cut off.
        """
        self._started = True
        try:
            for packet in self.container.demux():
                if not packet.size or packet.stream.index == self.stream.index:
                    continue
                self._times.start_at_zero(packet)
                time = packet.dts if packet.dts is not None else packet.pts
                start_s = float(self.options.start_s or 0)
                yield float((time or 0) * (packet.time_base or 0)) - start_s
                self._pass_on(packet)
        except av.error.FFmpegError as error:
            raise UnreadableFile(
                f"{self.path} is damaged or cut off beside its pictures ({error.strerror})"
            ) from error

    def frames(self) -> Iterator[VideoFrame]:
        """Read all frames of the part in presentation order, once.

        Raises:
            UnreadableFile: damage in mid-file, a file that was cut off, a changing frame size.
        """
        self._started = True
        self._early.clear()
        start = round((self.options.start_s or 0) / self.time_base)
        end = None if self.options.end_s is None else round(self.options.end_s / self.time_base)
        found = False
        for frame, time, given in with_durations(self._timed_frames()):
            duration = given if given is not None else self._clock.step
            if time + duration <= start:
                continue
            if end is not None and time >= end:
                self._finish_part()
                break
            shown = max(time, start)
            duration = (time + duration if end is None else min(time + duration, end)) - shown
            found = True
            yield VideoFrame(
                self._colors.planes(frame),
                pts=shown - start,
                orientation=self.orientation,
                duration=duration,
                corrupt=frame.is_corrupt,
            )
        if not found:
            raise UnreadableFile(
                f"{self.path} has no frame from {float(start * self.time_base):g} s on"
            )
        self._check_whole()

    def _timed_frames(self) -> Iterator[tuple[Any, int, int | None]]:
        """Each decoded frame with its time and, for the last one, how long it is shown."""
        for count, frame in enumerate(self._all_frames()):
            if (frame.height, frame.width) != (self.height, self.width):
                raise UnreadableFile(
                    f"{self.path} changes its size at frame {count} from {self.width} x "
                    f"{self.height} to {frame.width} x {frame.height}: cut it there and swap the "
                    f"parts one by one"
                )
            if frame.is_corrupt:
                self._count_damage(frame.pts)
            time = self._clock.place(frame.pts)
            yield frame, time, self._own_duration(frame, time)

    def _own_duration(self, frame: Any, time: int) -> int | None:
        """How long a frame is shown if it is the last one, in `time_base`."""
        stream = self.stream
        if frame.pts is None:
            return self._clock.step
        if stream.duration and self.container.format.name == _MPEG_4:
            # What the packets say is in the order of decoding, which ends with another frame.
            shift = round(self._times.start_s / self._stream_base())
            end = (stream.start_time or 0) + stream.duration - shift
            rest = round(self._clock.exact_s(end) / self.time_base) - time
            if rest > 0:
                return rest
        own = self._clock.length(frame.duration)
        # Frames at the end that could not be decoded leave their time to the last that could.
        rest = round(self._video_end_s / self.time_base) - time
        return rest if self.corrupt_frames and rest > (own or 0) else own

    def _stream_base(self) -> Fraction:
        base = self.stream.time_base
        return Fraction(base.numerator, base.denominator)

    def _seek(self) -> None:
        """Go to the last place before the part's beginning from which it can be decoded."""
        start_s = self.options.start_s
        if not start_s or self.container.format.name == "image2":
            return
        try:
            target = int(start_s * 1_000_000) + max(0, self.container.start_time or 0)
            self.container.seek(target, backward=True)
        except (av.error.FFmpegError, OSError):
            # What cannot be sought in is read from its beginning.
            return

    def _decode(self) -> Iterator[Any]:
        """Decode the stream; packets of the others go to `on_packet` as they come."""
        try:
            for packet in self.container.demux():
                self._note_end(packet)
                if packet.size:
                    self._times.start_at_zero(packet)
                if packet.stream.index == self.stream.index:
                    yield from self._decode_packet(packet)
                else:
                    self._pass_on(packet)
        except av.error.FFmpegError as error:
            raise UnreadableFile(
                f"{self.path} is damaged or cut off and cannot be decoded to its end "
                f"({error.strerror}): repair it first, with `ffmpeg -i IN -c copy OUT` for one"
            ) from error

    def _decode_packet(self, packet: Any) -> Iterator[Any]:
        if packet.pts is not None and packet.size:
            end_s = (packet.pts + (packet.duration or 0)) * self._stream_base()
            self._video_end_s = max(self._video_end_s, end_s)
        try:
            # PyAV's packets without content flush the decoder.
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            if self.options.decoder == "cuda":
                raise UnreadableFile(
                    f"{self.path} cannot be decoded on this GPU ({error.strerror}): leave "
                    f"--decoder cuda out"
                ) from error
            self._count_damage(packet.pts)
            return
        yield from frames

    def _count_damage(self, pts: int | None) -> None:
        self.corrupt_frames += 1
        if self.options.corrupt == "refuse":
            where = "" if pts is None else f" at {float(pts * self._stream_base()):.3f} s"
            raise UnreadableFile(
                f"{self.path} is damaged{where}: a frame there cannot be decoded as it was; "
                f"--corrupt keep goes on all the same"
            )

    def _pass_on(self, packet: Any) -> None:
        if not packet.size or not self._times.take_part(packet):
            return
        if self._on_packet is not None:
            self._on_packet(packet)
        elif not self._started:
            self._early.append(packet)

    def _finish_part(self) -> None:
        """Read on until sound and subtitles have reached the part's end, too."""
        self._ended_early = True
        end_s = self.options.end_s or Fraction(0)
        behind = {stream.index for stream in self.container.streams.audio}
        try:
            for packet in self.container.demux():
                if not behind:
                    return
                if not packet.size or packet.stream.index == self.stream.index:
                    continue
                self._times.start_at_zero(packet)
                if packet.pts is not None and packet.pts * packet.time_base >= end_s:
                    behind.discard(packet.stream.index)
                self._pass_on(packet)
        except av.error.FFmpegError as error:
            raise UnreadableFile(
                f"{self.path} is damaged or cut off beside its pictures ({error.strerror})"
            ) from error

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._end_s = max(self._end_s, float(end))

    def _read_first(self) -> Any:
        try:
            return next(self._decoded)
        except StopIteration:
            raise UnreadableFile(f"{self.path} has a video stream without a frame") from None

    def _all_frames(self) -> Iterator[Any]:
        yield self._first
        yield from self._decoded

    def _promised_s(self) -> float:
        # In microseconds, whatever the streams count in.
        return float(self.container.duration or 0) / 1e6

    def _check_whole(self) -> None:
        """Compare where the packets of all streams ended with what the header says."""
        if self._ended_early or self.container.format.name not in _FORMATS_WITH_HEADER:
            return
        if not self._promised_s():
            return
        start_s = float(self.container.start_time or 0) / 1e6
        missing_s = start_s + self._promised_s() - self._end_s
        if missing_s > _TRUNCATION_S:
            raise UnreadableFile(
                f"{self.path} is cut off: the last {missing_s:.1f} of {self._promised_s():.1f} s "
                f"are missing; repair it first, with `ffmpeg -i IN -c copy OUT` for one"
            )
