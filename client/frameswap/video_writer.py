"""Writing a video: H.264 beside the copied audio and subtitles of the input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import av
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnwritableFile
from frameswap.output_file import explain_failure
from frameswap.planes import even, split_planes
from frameswap.provenance import Edit, mark_video_metadata
from frameswap.segments import clone_encoder
from frameswap.video import VideoReader

__all__ = ["AUDIO_MODES", "VIDEO_SUFFIXES", "AudioMode", "VideoWriter", "check_video_output"]

VIDEO_SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".mkv")
"""Containers that hold H.264 with any frame times."""

AudioMode = Literal["copy", "transcode", "drop"]
AUDIO_MODES: Final[tuple[AudioMode, ...]] = ("copy", "transcode", "drop")

_AUDIO_ENCODER: Final = "aac"
_AUDIO_BIT_RATE: Final = 192_000
_AUDIO_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
_AUDIO_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def check_video_output(path: Path) -> None:
    """Raise UnwritableFile unless the suffix is a container that we write."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UnwritableFile(
            f"a video is written as {', '.join(VIDEO_SUFFIXES)}, not {path.suffix or path.name!r}"
        )


class VideoWriter:
    """Encode frames with x264 and put the input's other streams beside them.

    Timestamps, time base, display matrix, colour tags, pixel aspect, chapters and metadata are
    the input's. Odd sizes are padded by one row or column, because H.264 has 4:2:0 in even sizes
    only.

    Args:
        path: where to write, mostly a temporary name; the suffix chooses the container.
        reader: the input; its audio and subtitle packets are taken over.
        shown: the name for error texts.
        edit: what is done to the pictures, for the metadata.
        crf: x264's quality, 0 (lossless) to 51.
        preset: x264's speed.
        audio: "copy" keeps the packets as they are, "transcode" makes AAC of them, "drop" leaves
            them out.

    Raises:
        UnwritableFile: a container that cannot hold the audio, a full disk.
    """

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        *,
        shown: Path,
        edit: Edit,
        crf: int = 18,
        preset: str = "veryfast",
        audio: AudioMode = "copy",
    ) -> None:
        self._shown = shown
        self._reader = reader
        self._copies: dict[int, Any] = {}
        self._transcodes: dict[int, Any] = {}
        self.notes: list[str] = []
        with self._explained():
            self._container = av.open(str(path), "w")
        try:
            with self._explained():
                self._stream = self._add_video(crf, preset)
                # An encoder that is open does not tell its options any more.
                self._options = dict(self._stream.codec_context.options)
                self._add_audio(audio)
                self._add_subtitles()
                self._note_what_is_left_out()
                self._container.metadata.update(
                    mark_video_metadata(reader.container.metadata, edit)
                )
                self._container.set_chapters(reader.container.chapters())
                # Writes the header, so that a container that refuses does it now.
                self._container.start_encoding()
        except BaseException:
            self.abort()
            raise
        reader.send_packets(self.write_packet)

    def write_frame(self, frame: NDArray[np.uint8], pts: int) -> None:
        """Encode one stored frame and write it.

        Args:
            frame: (He*3/2, We) uint8 I420, sizes rounded up to even numbers.
            pts: in units of the reader's time base, growing.
        """
        self.write_encoded(self.encode_frame(frame, pts, self._stream))

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
            "size": [context.width, context.height],
            "time_base": str(context.time_base),
            "header": hashlib.sha256(bytes(context.extradata or b"")).hexdigest(),
        }

    def encode_frame(self, frame: NDArray[np.uint8], pts: int, encoder: Any) -> list[Any]:
        """Encode one stored frame, as `write_frame`, with an encoder; returns its packets."""
        picture = av.VideoFrame(frame.shape[1], frame.shape[0] * 2 // 3, "yuv420p")
        for plane, values in zip(picture.planes, split_planes(frame), strict=True):
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            lines[: values.shape[0], : values.shape[1]] = values
        picture.pts = pts
        picture.time_base = self._reader.time_base
        with self._explained():
            return list(encoder.encode(picture))

    def flush(self, encoder: Any) -> list[Any]:
        """The packets that an encoder of `new_encoder` still holds back; it is done then."""
        with self._explained():
            return list(encoder.encode(None))

    @property
    def time_base(self) -> Fraction:
        """Seconds a tick of the encoded frames' times."""
        base = self._stream.codec_context.time_base
        return Fraction(base.numerator, base.denominator)

    def write_encoded(self, packets: Iterable[Any]) -> None:
        """Write packets that an encoder of `new_encoder` made, in the order of decoding."""
        with self._explained():
            for packet in packets:
                packet.stream = self._stream
                self._container.mux(packet)

    def write_packet(self, packet: Any) -> None:
        """Copy, or transcode, a packet of another stream; one that is left out is dropped."""
        index = packet.stream.index
        with self._explained():
            if index in self._copies:
                packet.stream = self._copies[index]
                self._container.mux(packet)
            elif index in self._transcodes:
                for samples in packet.decode():
                    self._container.mux(self._transcodes[index].encode(samples))

    def finish(self) -> None:
        """Write what encoders hold back, and the file's end."""
        try:
            with self._explained():
                for stream in self._transcodes.values():
                    self._container.mux(stream.encode(None))
                self._container.mux(self._stream.encode(None))
                self._container.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Close the file without caring for its end: it is about to be removed."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    def _add_video(self, crf: int, preset: str) -> Any:
        reader = self._reader
        stream = self._container.add_stream("libx264", rate=reader.frame_rate)
        context = stream.codec_context
        context.width, context.height = even(reader.width), even(reader.height)
        context.pix_fmt = "yuv420p"
        context.time_base = reader.time_base
        context.options = {"crf": str(crf), "preset": preset}
        tags = reader.tags
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
            {key: text for key, text in reader.stream.metadata.items() if key != "rotate"}
        )
        if (even(reader.width), even(reader.height)) != (reader.width, reader.height):
            self.notes.append(
                f"{reader.width} x {reader.height} is written as {even(reader.width)} x "
                f"{even(reader.height)}: H.264 wants even sizes"
            )
        return stream

    def _add_audio(self, mode: AudioMode) -> None:
        if mode == "drop":
            return
        for stream in self._reader.container.streams.audio:
            if mode == "transcode":
                self._transcodes[stream.index] = self._add_transcode(stream)
                continue
            try:
                copy = self._container.add_stream_from_template(stream)
            except ValueError as error:
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                raise UnwritableFile(
                    f"{self._shown.suffix} cannot hold the input's {codec} audio as it is: write "
                    f"to .mkv, make AAC of it with --audio transcode, or leave it out with "
                    f"--audio drop"
                ) from error
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            self._copies[stream.index] = copy

    def _add_transcode(self, stream: Any) -> Any:
        rate = stream.rate if stream.rate in _AUDIO_RATES else 48_000
        encoder = self._container.add_stream(_AUDIO_ENCODER, rate=rate, bit_rate=_AUDIO_BIT_RATE)
        # By number: the input may not say which channel is which, and the encoder must know.
        layout = _AUDIO_LAYOUTS.get(stream.codec_context.channels, "stereo")
        encoder.codec_context.layout = layout
        encoder.metadata.update(stream.metadata)
        return encoder

    def _add_subtitles(self) -> None:
        for stream in self._reader.container.streams.subtitles:
            try:
                copy = self._container.add_stream_from_template(stream)
            except ValueError:
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                self.notes.append(
                    f"{self._shown.suffix} cannot hold the input's {codec} subtitles: they are "
                    f"left out; .mkv can hold them"
                )
                continue
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            self._copies[stream.index] = copy

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
