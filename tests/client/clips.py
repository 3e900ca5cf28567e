"""Video files made for tests, and what can be read back from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


@dataclass(frozen=True)
class Clip:
    """What a test video should be; sizes in pixels, times in the stream's time base."""

    frames: int = 12
    width: int = 64
    height: int = 48
    rate: int = 30
    time_base: Fraction = Fraction(1, 30000)
    pts: tuple[int, ...] | None = None
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "0", "preset": "ultrafast"})
    audio: str | None = "aac"
    audio_streams: int = 1
    subtitles: bool = False
    rotation: int = 0
    mirrored: bool = False
    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2
    aspect: Fraction | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)

    def times(self) -> list[int]:
        if self.pts is not None:
            return list(self.pts)
        step = round(1 / (self.rate * self.time_base))
        return [index * step for index in range(self.frames)]


def picture(index: int, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a gradient that moves with the frame's index."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = (columns * 3 + index * 7) % 256
    green = (rows * 5 + index * 3) % 256
    blue = np.full_like(rows, (index * 11) % 256)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def write_clip(path: Path, clip: Clip) -> Path:
    with av.open(str(path), "w", options=clip.container_options) as container:
        container.metadata.update(clip.metadata)
        video = _add_video(container, clip)
        sounds = [
            container.add_stream(clip.audio, rate=48000, bit_rate=64000)
            for _ in range(clip.audio_streams if clip.audio else 0)
        ]
        for index, pts in enumerate(clip.times()):
            _encode_sound(container, sounds, index, clip)
            rgb = picture(index, clip.width, clip.height)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format=clip.pixel_format)
            frame.pts = pts
            frame.time_base = clip.time_base
            container.mux(video.encode(frame))
        for stream in (video, *sounds):
            container.mux(stream.encode(None))
    return path


def _add_video(container: Any, clip: Clip) -> Any:
    stream = container.add_stream(clip.codec, rate=clip.rate)
    stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, clip.pixel_format
    context = stream.codec_context
    context.time_base = clip.time_base
    context.options = clip.options if clip.codec == "libx264" else {}
    context.colorspace, context.color_range = clip.matrix, clip.range
    context.color_primaries, context.color_trc = clip.primaries, clip.transfer
    if clip.aspect is not None:
        context.sample_aspect_ratio = clip.aspect
    if clip.rotation or clip.mirrored:
        stream.set_display_rotation(clip.rotation, hflip=clip.mirrored)
    return stream


def _encode_sound(container: Any, sounds: list[Any], index: int, clip: Clip) -> None:
    per_frame = 48000 // clip.rate
    for number, stream in enumerate(sounds):
        layout = stream.codec_context.layout.name
        channels = len(stream.codec_context.layout.channels)
        times = (np.arange(per_frame) + index * per_frame) / 48000
        tone = np.sin(2 * np.pi * 440 * (number + 1) * times) * 8000
        samples = np.repeat(tone.astype(np.int16)[None], channels, axis=1)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(tone.astype(np.int16), channels)[None], format="s16", layout=layout
        )
        assert samples.shape[1] == per_frame * channels
        frame.sample_rate = 48000
        frame.pts = index * per_frame
        frame.time_base = Fraction(1, 48000)
        container.mux(stream.encode(frame))


@dataclass(frozen=True)
class Contents:
    """What a file holds, as PyAV reads it."""

    times_s: list[Fraction]
    frames: list[np.ndarray]
    sounds: list[list[tuple[Fraction, bytes]]]
    rotation: int
    tags: tuple[int, int, int, int]
    aspect: Fraction | None
    size: tuple[int, int]
    metadata: dict[str, str]
    languages: list[str | None]


def read_contents(path: Path) -> Contents:
    times, frames = [], []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        base = Fraction(video.time_base.numerator, video.time_base.denominator)
        first = None
        for frame in container.decode(video):
            first = first or frame
            times.append(frame.pts * base)
            frames.append(frame.to_ndarray(format=frame.format.name))
        assert first is not None
        metadata = dict(container.metadata)
        languages = [stream.language for stream in container.streams.audio]
        count = len(container.streams.audio)
        tags = (
            int(first.colorspace),
            int(first.color_range),
            int(first.color_primaries),
            int(first.color_trc),
        )
        aspect = video.sample_aspect_ratio
        rotation, size = first.rotation, (first.width, first.height)
    return Contents(
        times,
        frames,
        [read_sound(path, index) for index in range(count)],
        rotation,
        tags,
        aspect,
        size,
        metadata,
        languages,
    )


def read_sound(path: Path, index: int) -> list[tuple[Fraction, bytes]]:
    """Time in seconds and bytes of each packet of one audio stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[index]
        base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        return [
            (packet.pts * base, bytes(packet)) for packet in container.demux(stream) if packet.size
        ]
