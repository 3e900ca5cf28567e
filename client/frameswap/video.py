"""Reading a video: its planes as they were decoded, with everything that belongs to them.

An 8-bit 4:2:0 frame goes on without any conversion. Other formats are brought to 8-bit 4:2:0 once.
Frames are handed out upright, because a detector wants upright faces; the file keeps its display
matrix and its stored orientation (see VideoFrame.restore).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from frameswap.color_tags import FULL_RANGE, is_rgb, read_tags
from frameswap.contract import ChromaLocation
from frameswap.errors import UnreadableFile
from frameswap.input_file import check_file
from frameswap.orientation import UPRIGHT, Orientation, orient_planes
from frameswap.planes import even, pack_planes

__all__ = ["VideoFrame", "VideoReader"]

_NATIVE_FORMATS: Final = ("yuv420p", "yuvj420p")
_TRUNCATION_S: Final = 1.0
"""A file that ends this much before its header says is cut off. Below a second, containers and
their streams differ honestly: edit lists, a last frame's unknown duration."""

_FORMATS_WITH_HEADER: Final = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf")
"""Whose duration is written in the file; FFmpeg guesses it for others, from the bit rate even."""

_FORMATS_OF_OTHER_FILES: Final = frozenset({
    "concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp", "vobsub",
    "webm_dash_manifest",
})  # fmt: skip
"""Scripts and playlists, told by their content: under any name they make FFmpeg open other files
and addresses."""

MOST_PIXELS: Final = 1 << 26
"""Of a video's frame: 8192 x 8192, and a few kB can claim any size."""

_OPEN_OPTIONS: Final[dict[str, Any]] = (
    # Up to version 18 a title that is not UTF-8 is an exception unless this is said; since 19
    # PyAV reads it anyway and the argument is gone.
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)

OnPacket = Callable[[Any], None]


class VideoFrame:
    """One decoded frame, a `frameswap.frames.FrameSource`.

    pts: presentation time, in units of the stream's time base.
    height, width: of the stored picture, pixels; may be odd.
    """

    def __init__(
        self, planes: list[NDArray[np.uint8]], *, pts: int, orientation: Orientation
    ) -> None:
        self._planes = planes
        self._orientation = orientation
        self.pts = pts
        self.height, self.width = planes[0].shape

    @property
    def shape(self) -> tuple[int, int]:
        """(H*3/2, W) of the upright frame, H and W rounded up to even numbers."""
        height, width = even(self.height), even(self.width)
        if self._orientation.transposed:
            height, width = width, height
        return height * 3 // 2, width

    def copy_to(self, out: NDArray[np.uint8]) -> None:
        """Write the upright frame as I420 into `out`: (H*3/2, W) uint8, C-contiguous."""
        if self._orientation == UPRIGHT:
            pack_planes(self._planes, out)
        else:
            stored = np.empty((even(self.height) * 3 // 2, even(self.width)), np.uint8)
            pack_planes(self._planes, stored)
            orient_planes(stored, out, self._orientation)

    def restore(self, upright: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn an upright I420 frame back to how the stream is stored."""
        if self._orientation == UPRIGHT:
            return upright
        stored = np.empty((even(self.height) * 3 // 2, even(self.width)), np.uint8)
        orient_planes(upright, stored, self._orientation.inverse())
        return stored


class VideoReader:
    """The first real video stream of a file, and the packets of the others.

    Args:
        path: the file.

    Attributes:
        notes: sentences about what could not be kept as it was.

    Raises:
        UnreadableFile: missing, empty, damaged, without video, HDR.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._on_packet: OnPacket | None = None
        self._early: list[Any] = []
        self._end_s = 0.0
        self._started = False
        self.container = _open(path)
        try:
            self.stream = self._choose_stream()
            self.stream.thread_type = "AUTO"
            self._check_size()
            self.time_base = Fraction(
                self.stream.time_base.numerator, self.stream.time_base.denominator
            )
            self._decoded = self._decode()
            self._first = self._read_first()
            self.tags = read_tags(self._first, self.stream.codec_context.name, path)
            self.display_matrix = _display_matrix(self._first)
            self.orientation = Orientation.from_matrix(self.display_matrix)
            self.height, self.width = self._first.height, self._first.width
            self._target_format = self._choose_format(self._first)
            if self._first.interlaced_frame:
                self.notes.append("interlaced video is swapped and written frame by frame")
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.container.close()

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second, as well as the container knows it."""
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        return Fraction(rate.numerator, rate.denominator)

    @property
    def frame_count(self) -> int | None:
        """How many frames the container promises, for a progress line; None when it does not."""
        if self.stream.frames:
            return int(self.stream.frames)
        duration_s = self._promised_s()
        return round(duration_s * self.frame_rate) if duration_s else None

    @property
    def chroma_location(self) -> ChromaLocation:
        """Where chroma lies in the frames as they are handed out.

        A turned or mirrored frame has it where the contract has no word for it; the centre is
        then the nearest, half a luma pixel off.
        """
        if self.orientation != UPRIGHT:
            return ChromaLocation.CENTER
        return self.tags.chroma_location

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
        return VideoReader(self.path)

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
                self._start_at_zero(packet)
                time = packet.dts if packet.dts is not None else packet.pts
                yield float((time or 0) * (packet.time_base or 0))
                if self._on_packet is not None:
                    self._on_packet(packet)
        except av.error.FFmpegError as error:
            raise UnreadableFile(
                f"{self.path} is damaged or cut off beside its pictures ({error.strerror})"
            ) from error

    def frames(self) -> Iterator[VideoFrame]:
        """Read all frames in presentation order, once.

        Raises:
            UnreadableFile: damage in mid-file, a file that was cut off, a changing frame size.
        """
        last: int | None = None
        self._started = True
        self._early.clear()
        for count, frame in enumerate(self._all_frames()):
            if (frame.height, frame.width) != (self.height, self.width):
                raise UnreadableFile(
                    f"{self.path} changes its size at frame {count} from {self.width} x "
                    f"{self.height} to {frame.width} x {frame.height}: cut it there and swap the "
                    f"parts one by one"
                )
            pts = self._next_pts(frame.pts, last)
            yield VideoFrame(self._planes(frame), pts=pts, orientation=self.orientation)
            last = pts
        self._check_whole()

    def _choose_stream(self) -> Any:
        pictures = [
            stream
            for stream in self.container.streams.video
            # A cover picture is a video stream of one frame.
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not pictures:
            kinds = sorted({stream.type for stream in self.container.streams}) or ["nothing"]
            raise UnreadableFile(f"{self.path} has no video stream (it has {', '.join(kinds)})")
        if pictures[0].codec_context is None:
            raise UnreadableFile(f"{self.path} has video of a codec that FFmpeg does not know")
        return pictures[0]

    def _check_size(self) -> None:
        """Refuse frames that are too large by what the file says, and have the decoder do so."""
        codec = self.stream.codec_context
        if codec.width * codec.height > MOST_PIXELS:
            raise UnreadableFile(
                f"{self.path} says that its frames have {codec.width} x {codec.height} pixels, "
                f"and frames of up to {MOST_PIXELS / 1e6:.0f} million are read: scale it down"
            )
        codec.options = {"max_pixels": str(MOST_PIXELS)}

    def _decode(self) -> Iterator[Any]:
        """Decode the stream; packets of the others go to `on_packet` as they come."""
        try:
            for packet in self.container.demux():
                self._note_end(packet)
                if packet.size:
                    self._start_at_zero(packet)
                if packet.stream.index == self.stream.index:
                    yield from packet.decode()
                elif packet.size and self._on_packet is not None:
                    self._on_packet(packet)
                elif packet.size and not self._started:
                    self._early.append(packet)
        except av.error.FFmpegError as error:
            raise UnreadableFile(
                f"{self.path} is damaged or cut off and cannot be decoded to its end "
                f"({error.strerror}): repair it first, with `ffmpeg -i IN -c copy OUT` for one"
            ) from error

    def _start_at_zero(self, packet: Any) -> None:
        """Take the container's start off all its times: broadcast streams begin at any time."""
        start_s = Fraction(max(0, self.container.start_time or 0), 1_000_000)
        base = packet.time_base
        if not start_s or not base:
            return
        shift = round(start_s / Fraction(base.numerator, base.denominator))
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift

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

    def _choose_format(self, frame: Any) -> str:
        """The pixel format that frames are brought to: their own, when it is 8-bit 4:2:0."""
        name = frame.format.name
        if name in _NATIVE_FORMATS:
            return str(name)
        bits = max(component.bits for component in frame.format.components)
        if bits > 8:
            self.notes.append(f"{bits}-bit video ({name}) is swapped and written with 8 bits")
        elif name not in ("nv12", "nv21"):
            self.notes.append(f"{name} video is swapped and written as 4:2:0")
        # The "j" keeps swscale from squeezing full range to limited.
        return "yuvj420p" if self.tags.range == FULL_RANGE else "yuv420p"

    def _planes(self, frame: Any) -> list[NDArray[np.uint8]]:
        """Y, U and V without the padding at the lines' ends; views of the decoder's buffers."""
        if frame.format.name != self._target_format:
            if frame.format.name in _NATIVE_FORMATS and self._target_format in _NATIVE_FORMATS:
                pass  # The same bytes: only the range tag changed in mid-stream.
            else:
                matrix = "ITU709" if self.tags.matrix == 1 else "ITU601"
                kwargs = {"dst_colorspace": matrix} if is_rgb(frame) else {}
                frame = frame.reformat(format=self._target_format, **kwargs)
        return [
            np.frombuffer(plane, np.uint8, plane.line_size * plane.height).reshape(
                plane.height, plane.line_size
            )[:, : plane.width]
            for plane in frame.planes
        ]

    def _next_pts(self, pts: int | None, last: int | None) -> int:
        """Frames of some formats have no time, or repeat one; encoders want it to grow."""
        step = max(1, round(1 / (self.frame_rate * self.time_base)))
        if pts is None:
            return 0 if last is None else last + step
        return pts if last is None or pts > last else last + 1

    def _promised_s(self) -> float:
        # In microseconds, whatever the streams count in.
        return float(self.container.duration or 0) / 1e6

    def _check_whole(self) -> None:
        """Compare where the packets of all streams ended with what the header says."""
        if self.container.format.name not in _FORMATS_WITH_HEADER or not self._promised_s():
            return
        start_s = float(self.container.start_time or 0) / 1e6
        missing_s = start_s + self._promised_s() - self._end_s
        if missing_s > _TRUNCATION_S:
            raise UnreadableFile(
                f"{self.path} is cut off: the last {missing_s:.1f} of {self._promised_s():.1f} s "
                f"are missing; repair it first, with `ffmpeg -i IN -c copy OUT` for one"
            )


@cache
def _read_formats() -> str:
    """FFmpeg's list of formats that may be read: those that read the file which was named."""
    readable = (name for name in av.formats_available if name not in _FORMATS_OF_OTHER_FILES)
    return ",".join(sorted(readable))


def _open(path: Path) -> Any:
    check_file(path, "video")
    try:
        # The protocol is named: `concat:x.mp4` is a file's name here, and nothing else.
        return av.open(
            f"file:{path}", options={"format_whitelist": _read_formats()}, **_OPEN_OPTIONS
        )
    except PermissionError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    except av.error.ArgumentError as error:
        raise UnreadableFile(
            f"{path} is damaged, or a playlist or script that names other files, which are not "
            f"opened: join them to one file first, with ffmpeg"
        ) from error
    except av.error.FFmpegError as error:
        raise UnreadableFile(
            f"{path} is no video that FFmpeg reads, or is damaged or cut off ({error.strerror})"
        ) from error


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """FFmpeg's 3x3 display matrix, 9 integers, when the file has one."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else tuple(np.frombuffer(side_data, np.int32).tolist())
