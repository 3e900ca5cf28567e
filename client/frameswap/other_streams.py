"""An input's sound and subtitles beside the new pictures: copied, transcoded or left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import av

from frameswap.errors import UnwritableFile

__all__ = ["AUDIO_MODES", "AudioMode", "OtherStreams"]

AudioMode = Literal["auto", "copy", "transcode", "drop"]
AUDIO_MODES: Final[tuple[AudioMode, ...]] = ("auto", "copy", "transcode", "drop")

_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


@dataclass(frozen=True)
class _Sound:
    """What sound a container is given where it is made anew.

    encoder: FFmpeg's. rates: Hz that it takes. most_channels: of them. codecs: those that the
    container holds as they are; None asks FFmpeg, which knows of all but `refused`.
    """

    encoder: str
    rates: tuple[int, ...]
    bit_rate: int
    most_channels: int = 8
    codecs: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()


_AAC: Final = _Sound(
    "aac",
    (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000),
    192_000,
)
_SOUNDS: Final[Mapping[str, _Sound | None]] = {
    ".mp4": _AAC,
    ".m4v": _AAC,
    # FFmpeg has them in MP4 alone, and says so only when it writes the header.
    ".mov": replace(_AAC, refused=frozenset(["opus", "vorbis", "flac", "truehd"])),
    ".mkv": _AAC,
    ".webm": _Sound("libopus", (48000,), 160_000, codecs=frozenset(["opus", "vorbis"])),
    # FFmpeg puts any sound into these, and players then find none of it.
    ".ts": _Sound(
        "aac", _AAC.rates, 192_000,
        codecs=frozenset(["aac", "mp2", "mp3", "ac3", "eac3", "dts", "opus"]),
    ),
    ".avi": _Sound(
        "libmp3lame", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000), 192_000, 2,
        frozenset(["mp3", "mp2", "ac3", "pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le"]),
    ),
}  # fmt: skip
"""By suffix; the other files hold no sound."""
_SUBTITLE_SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".mkv", ".webm")


class OtherStreams:
    """The sound and subtitle streams of an output.

    Args:
        container: the output, of PyAV, not started yet.
        inputs: the input's streams.
        suffix: the output's, for what it holds.
        mode: of the sound. "auto" copies what the container holds and transcodes the rest, "copy"
            raises where it cannot be copied, "transcode" makes all of it anew.

    Attributes:
        notes: sentences about what changed.

    Raises:
        UnwritableFile: "copy", and the container cannot hold it.
    """

    def __init__(self, container: Any, inputs: Any, *, suffix: str, mode: AudioMode) -> None:
        self.notes: list[str] = []
        self._container = container
        self._suffix = suffix
        self._copies: dict[int, Any] = {}
        self._transcodes: dict[int, Any] = {}
        if mode != "drop":
            self._add_audio(inputs.audio, mode)
        self._add_subtitles(inputs.subtitles)

    def write(self, packet: Any) -> None:
        """Copy, or transcode, a packet of the input; one that is left out is dropped."""
        index = packet.stream.index
        if index in self._copies:
            packet.stream = self._copies[index]
            self._container.mux(packet)
        elif index in self._transcodes:
            try:
                pieces = packet.decode()
            except av.error.FFmpegError:
                # A damaged piece of sound is silence; the times of what follows stay.
                return
            for samples in pieces:
                self._container.mux(self._transcodes[index].encode(samples))

    def finish(self) -> None:
        """Write what the encoders hold back."""
        for stream in self._transcodes.values():
            self._container.mux(stream.encode(None))

    def _add_audio(self, streams: Any, mode: AudioMode) -> None:
        sound = _SOUNDS.get(self._suffix)
        if sound is None:
            if streams:
                self.notes.append(f"{self._suffix} holds no sound: it is left out")
            return
        for stream in streams:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if mode != "transcode" and self._copy(stream, codec, sound):
                continue
            if mode == "copy" or stream.codec_context is None:
                raise UnwritableFile(
                    f"{self._suffix} cannot hold the input's {codec} audio as it is: write to "
                    f".mkv, leave --audio copy out to have it made anew, or leave the audio out "
                    f"with --audio drop"
                )
            if mode == "auto":
                made = sound.encoder.removeprefix("lib").removesuffix("lame").upper()
                self.notes.append(
                    f"{self._suffix} cannot hold the input's {codec} audio: it is made {made}"
                )
            self._transcodes[stream.index] = self._add_transcode(stream, sound)

    def _copy(self, stream: Any, codec: str, sound: _Sound) -> bool:
        unheld = sound.codecs is not None and codec not in sound.codecs
        if unheld or codec.removeprefix("lib") in sound.refused:
            return False
        try:
            copy = self._container.add_stream_from_template(stream)
        except ValueError:
            return False
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._copies[stream.index] = copy
        return True

    def _add_transcode(self, source: Any, sound: _Sound) -> Any:
        rate = min(sound.rates, key=lambda known: abs(known - source.rate))
        stream = self._container.add_stream(sound.encoder, rate=rate, bit_rate=sound.bit_rate)
        # By number: the input may not say which channel is which, and the encoder must know.
        channels = min(source.codec_context.channels, sound.most_channels)
        stream.codec_context.layout = _LAYOUTS.get(channels, "stereo")
        stream.metadata.update(source.metadata)
        stream.disposition = source.disposition
        return stream

    def _add_subtitles(self, streams: Any) -> None:
        for stream in streams:
            try:
                if self._suffix not in _SUBTITLE_SUFFIXES:
                    raise ValueError("a container without subtitles")
                copy = self._container.add_stream_from_template(stream)
            except ValueError:
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                self.notes.append(
                    f"{self._suffix} cannot hold the input's {codec} subtitles: they are left "
                    f"out; .mkv can hold them"
                )
                continue
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            self._copies[stream.index] = copy
