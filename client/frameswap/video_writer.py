"""Writing a video: the new pictures, beside the sound and subtitles of the input."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from frameswap.encoders import (
    VIDEO_SUFFIXES,
    Encoding,
    check_video_output,
    choose_encoder,
    encoder_options,
    file_suffix,
)
from frameswap.errors import UnwritableFile
from frameswap.file_kinds import is_sequence, is_standard
from frameswap.other_streams import AUDIO_MODES, AudioMode, OtherStreams
from frameswap.output_file import explain_failure
from frameswap.picture_graph import PictureGraph, conversion
from frameswap.planes import even, split_planes
from frameswap.provenance import Edit, mark_video_metadata
from frameswap.segments import clone_encoder
from frameswap.video import VideoReader

__all__ = ["AUDIO_MODES", "VIDEO_SUFFIXES", "AudioMode", "VideoWriter", "check_video_output"]

_RGB_FORMATS: Final = ("pal8", "bgra", "rgb24", "rgba")
_MPEG_4: Final = (".mp4", ".m4v", ".mov")
_STEADY_SUFFIXES: Final = (".avi", ".y4m")
"""What has one rate for all frames."""
_USUAL: Final = Encoding()


class VideoWriter:
    """Encode frames and put the input's other streams beside them.

    Timestamps, time base, display matrix, colour tags, pixel aspect, chapters and metadata are
    the input's. Odd sizes are padded by one row or column where the encoder takes even ones only.

    Args:
        path: where to write, mostly a temporary name; the suffix chooses the container. "-" is
            standard output.
        reader: the input; its audio and subtitle packets are taken over.
        shown: the name for error texts.
        edit: what is done to the pictures, for the metadata.
        encoding: which encoder, how good and how fast.
        audio: "auto" copies what the container can hold and transcodes the rest, "copy" insists
            on copying, "transcode" makes all of it anew, "drop" leaves it out.

    Raises:
        UnwritableFile: a container that cannot hold what is to go into it, a full disk.
        BadOptions: an encoder, quality or preset that there is not.
    """

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        *,
        shown: Path,
        edit: Edit,
        encoding: Encoding = _USUAL,
        audio: AudioMode = "auto",
    ) -> None:
        self._shown = shown
        self._reader = reader
        self.notes: list[str] = []
        self._durations: dict[int, int] = {}
        self._name, self._encoder = choose_encoder(shown, encoding)
        self._suffix = ".y4m" if self._name == "y4m" else file_suffix(shown)
        self._steady = self._suffix in _STEADY_SUFFIXES
        self._base = 1 / reader.frame_rate if self._steady else reader.time_base
        self._last: int | None = None
        self._waiting: Any = None
        self._lead = self._end = 0
        with self._explained():
            self._container = _open(path, self._suffix)
        try:
            with self._explained():
                self._stream = self._add_video(encoding)
                # An encoder that is open does not tell its options any more.
                self._options = dict(self._stream.codec_context.options)
                self._graph = self._choose_graph()
                self._others = OtherStreams(
                    self._container, reader.container.streams, suffix=self._suffix, mode=audio
                )
                self.notes += self._others.notes
                self._note_what_is_left_out()
                self._container.metadata.update(
                    mark_video_metadata(reader.container.metadata, edit)
                )
                self._container.set_chapters(self._chapters())
                # Writes the header, so that a container that refuses does it now.
                self._container.start_encoding()
        except BaseException:
            self.abort()
            raise
        reader.send_packets(self.write_packet)

    def write_frame(
        self,
        frame: NDArray[np.uint8],
        pts: int,
        *,
        duration: int | None = None,
        alpha: NDArray[np.uint8] | None = None,
    ) -> None:
        """Encode one stored frame.

        Args:
            frame: (He*3/2, We) uint8 I420, sizes rounded up to even numbers.
            pts: in units of the reader's time base, growing.
            duration: how long it is shown, in the same; None up to the next one.
            alpha: (H, W) uint8, where the output can hold it.
        """
        self.write_encoded(
            self.encode_frame(frame, pts, self._stream, duration=duration, alpha=alpha)
        )

    def encode_frame(
        self,
        frame: NDArray[np.uint8],
        pts: int,
        encoder: Any,
        *,
        duration: int | None = None,
        alpha: NDArray[np.uint8] | None = None,
    ) -> list[Any]:
        """Encode one stored frame, as `write_frame`, with an encoder; returns its packets."""
        if self._alpha and alpha is None:
            alpha = np.full((self._reader.height, self._reader.width), 255, np.uint8)
        picture = self._picture(frame, alpha if self._alpha else None)
        picture.pts, duration = self._place(pts, duration)
        picture.time_base = self._base
        if duration is not None:
            self._durations[picture.pts] = duration
        with self._explained():
            if self._graph is not None:
                picture = self._graph.convert(picture)
            return self._timed(encoder.encode(picture))

    def new_encoder(self, *, threads: int) -> Any:
        """An encoder with the settings of this output's, for `encode_frame`; it depends on none."""
        return clone_encoder(self._stream.codec_context, self._options, threads=threads)

    def describe_encoder(self) -> dict[str, Any]:
        """What decides how an encoder's frames look; JSON."""
        context = self._stream.codec_context
        return {
            "codec": context.codec.name,
            "format": context.pix_fmt,
            "options": self._options,
            "threads": str(context.thread_type),
            "size": [context.width, context.height],
            "time_base": str(self._base),
            "alpha": self._alpha,
            "header": hashlib.sha256(bytes(context.extradata or b"")).hexdigest(),
        }

    @property
    def time_base(self) -> Fraction:
        """Seconds a tick of the encoded frames' times."""
        return self._base

    def flush(self, encoder: Any) -> list[Any]:
        """The packets that an encoder still holds back; it is done then."""
        with self._explained():
            return self._timed(encoder.encode(None))

    def write_encoded(self, packets: Iterable[Any]) -> None:
        """Write packets of encoded frames, in the order of decoding."""
        with self._explained():
            for packet in packets:
                packet.stream = self._stream
                if self._waiting is not None:
                    self._container.mux(self._waiting)
                elif packet.dts is not None and packet.pts is not None:
                    self._lead = packet.pts - packet.dts
                if packet.pts is not None:
                    self._end = max(self._end, packet.pts + (packet.duration or 0))
                self._waiting = packet

    def write_packet(self, packet: Any) -> None:
        """Copy, or transcode, a packet of another stream; one that is left out is dropped."""
        with self._explained():
            self._others.write(packet)

    def finish(self) -> None:
        """Write what encoders hold back, and the file's end."""
        try:
            with self._explained():
                self._others.finish()
                self.write_encoded(self.flush(self._stream))
                self._mux_last()
                self._container.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Close the file without caring for its end: it is about to be removed."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    @property
    def _size(self) -> tuple[int, int]:
        """(height, width) as it is written."""
        height, width = self._reader.height, self._reader.width
        return (height, width) if self._encoder.odd_sizes else (even(height), even(width))

    @property
    def _alpha(self) -> bool:
        return self._reader.shows_alpha and self._encoder.alpha_format is not None

    def _picture(self, frame: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> Any:
        """A frame of PyAV's, of yuv420p or yuva420p: the array's memory where it has that form."""
        height, width = self._size
        # PyAV 18 takes an array of 105 rows for a picture of 68 lines.
        if alpha is None and frame.shape == (height * 3 // 2, width) and height % 4 == 0:
            return av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), "yuv420p")
        picture = av.VideoFrame(width, height, "yuv420p" if alpha is None else "yuva420p")
        planes = split_planes(frame) if alpha is None else [*split_planes(frame), alpha]
        for plane, values in zip(picture.planes, planes, strict=True):
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            kept = values[: plane.height, : plane.width]
            lines[: kept.shape[0], : kept.shape[1]] = kept
        return picture

    def _place(self, pts: int, duration: int | None) -> tuple[int, int | None]:
        """Time and duration in the output's time base."""
        if not self._steady:
            return pts, duration
        place = round(pts * self._reader.time_base / self._base)
        if self._last is not None and place <= self._last:
            place = self._last + 1
        self._last = place
        return place, 1

    def _timed(self, packets: Any) -> list[Any]:
        """Encoders know when a frame begins; how long the last one lasts is said here."""
        timed = list(packets)
        for packet in timed:
            duration = self._durations.pop(packet.pts, None)
            if duration is not None:
                packet.duration = duration
        return timed

    def _mux_last(self) -> None:
        """Write the last packet, which says how long an MP4 is.

        MP4 counts from the first decoding time to the last one's end, and the packet that is
        decoded last is seldom the one that is shown last.
        """
        last = self._waiting
        if last is None:
            return
        if self._suffix in _MPEG_4 and last.dts is not None:
            duration = self._end - self._lead - last.dts
            if duration > 0 and last.pts + duration <= self._end:
                last.duration = duration
        self._container.mux(last)

    def _add_video(self, encoding: Encoding) -> Any:
        reader, encoder = self._reader, self._encoder
        stream = self._container.add_stream(encoder.library, rate=reader.frame_rate)
        context = stream.codec_context
        context.height, context.width = self._size
        context.pix_fmt = (encoder.alpha_format if self._alpha else None) or encoder.pixel_format
        context.time_base = self._base
        options = encoder_options(encoder, encoding, alpha=self._alpha)
        if self._suffix == ".avi" and self._name == "x264":
            # AVI has no place for the times of frames that are stored out of order.
            options["bf"] = "0"
        context.options = options
        if encoder.library == "libx264":
            # PyAV's way, slices of a frame side by side, made files of up to 13 % more.
            context.thread_type = "FRAME"
        if self._name in ("x265", "hevc_nvenc") and self._suffix in (".mp4", ".m4v", ".mov"):
            # Apple's players want the parameter sets in the header.
            context.codec_tag = "hvc1"
        tags = reader.tags
        if encoder.pixel_format not in _RGB_FORMATS:
            context.colorspace = tags.matrix
            context.color_range = tags.range
        context.color_primaries = tags.primaries
        context.color_trc = tags.transfer
        aspect = reader.stream.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = Fraction(aspect.numerator, aspect.denominator)
        if reader.display_matrix is not None:
            stream.set_display_matrix(reader.display_matrix)
        stream.metadata.update(
            {
                key: text
                for key, text in reader.stream.metadata.items()
                # The display matrix says the one, what is encoded the other.
                if key.lower() not in ("rotate", "alpha_mode")
            }
        )
        self._note_changes()
        return stream

    def _choose_graph(self) -> PictureGraph | None:
        """What brings YUV to the colours of an encoder that wants RGB, or JPEG's range."""
        target, tags = self._stream.codec_context.pix_fmt, self._reader.tags
        full = tags.range == 2
        if target == "pal8":
            return PictureGraph([*conversion(tags.matrix, full, "bgra"), ("palette", "")])
        if target in _RGB_FORMATS:
            return PictureGraph(conversion(tags.matrix, full, target))
        if target == "yuvj420p" and not full:
            scale = "in_range=limited:out_range=full"
            return PictureGraph([("scale", scale), ("format", "pix_fmts=yuvj420p")])
        return None

    def _note_changes(self) -> None:
        reader = self._reader
        height, width = self._size
        if (height, width) != (reader.height, reader.width):
            self.notes.append(
                f"{reader.width} x {reader.height} is written as {width} x {height}: "
                f"{self._name} wants even sizes"
            )
        if reader.shows_alpha and not self._alpha:
            self.notes.append(
                f"{reader.path.name} has transparency: {self._name} cannot hold it; .webm, .webp, "
                f".gif, and ffv1 or prores can"
            )
        if reader.display_matrix is not None and self._suffix not in (
            *_MPEG_4, ".mkv", ".webm",
        ):  # fmt: skip
            self.notes.append(f"{self._suffix} cannot say that a video is turned: it is stored so")

    def _chapters(self) -> Any:
        chapters = self._reader.container.chapters()
        if self._reader.options.start_s is None and self._reader.options.end_s is None:
            return chapters
        if chapters:
            self.notes.append("the chapters of the input are left out of a part of it")
        return []

    def _note_what_is_left_out(self) -> None:
        streams = self._reader.container.streams
        kinds = {
            "data": [stream for stream in streams if stream.type == "data"],
            "attached": [stream for stream in streams if stream.type == "attachment"],
            "further video": [
                stream for stream in streams.video if stream.index != self._reader.stream.index
            ],
        }
        found = [
            f"{len(streams)} {kind} stream{'s' if len(streams) > 1 else ''}"
            for kind, streams in kinds.items()
            if streams
        ]
        if found:
            self.notes.append(f"left out of the input: {', '.join(found)}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise UnwritableFile(
                explain_failure(error.errno, error.strerror, self._shown)
            ) from error


def _open(path: Path, suffix: str) -> Any:
    if is_standard(path):
        name = "yuv4mpegpipe" if suffix == ".y4m" else "matroska"
        return av.open(sys.stdout.buffer, "w", format=name)
    if is_sequence(path):
        return av.open(str(path), "w", format="image2")
    # Pictures that move are shown over and over, as browsers' users expect.
    options = {"loop": "0"} if suffix in (".gif", ".webp") else {}
    if suffix == ".avi":
        # AVI has no times: made to begin at zero with its sound's lead-in, it would gain a frame.
        options["avoid_negative_ts"] = "disabled"
    names = {".webp": "webp", ".ts": "mpegts", ".y4m": "yuv4mpegpipe"}
    return av.open(str(path), "w", format=names.get(suffix), options=options)
