"""Animated WebP, which FFmpeg does not read: its pictures put together, as a lossless video.

Source: Google, WebP Container Specification, "Animation".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnreadableFile

__all__ = ["write_as_video"]

_MOST_PIXELS: Final = 1 << 26
_MILLISECOND: Final = Fraction(1, 1000)


@dataclass(frozen=True)
class _Part:
    """One ANMF chunk: where its picture lies on the canvas, pixels, and how it is put there."""

    x: int
    y: int
    duration_ms: int
    blend: bool
    dispose: bool
    data: bytes


def write_as_video(path: Path, output: Path) -> None:
    """Write the pictures of an animated WebP as FFV1 with alpha in Matroska, in milliseconds.

    Raises:
        UnreadableFile: a damaged file.
    """
    try:
        content = path.read_bytes()
        width, height = _canvas_size(content)
        if width * height > _MOST_PIXELS:
            raise ValueError(f"of {width} x {height} pixels")
        with av.open(str(output), "w", format="matroska") as container:
            stream = container.add_stream("ffv1", rate=1000)
            stream.width, stream.height, stream.pix_fmt = width, height, "bgra"
            stream.codec_context.time_base = _MILLISECOND
            time_ms = 0
            for picture, duration_ms in _compose(content, width, height):
                frame = av.VideoFrame.from_ndarray(picture, format="bgra")
                frame.pts, frame.time_base = time_ms, _MILLISECOND
                for packet in stream.encode(frame):
                    packet.duration = duration_ms
                    container.mux(packet)
                time_ms += duration_ms
            container.mux(stream.encode(None))
    except (ValueError, struct.error, cv2.error) as error:
        raise UnreadableFile(f"{path} is damaged or cut off: an animated WebP ({error})") from error


def _canvas_size(content: bytes) -> tuple[int, int]:
    width = int.from_bytes(content[24:27], "little") + 1
    return width, int.from_bytes(content[27:30], "little") + 1


def _compose(content: bytes, width: int, height: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield (H, W, 4) uint8 BGRA of each picture and how long it is shown, milliseconds."""
    canvas = np.zeros((height, width, 4), np.uint8)
    for part in _parts(content):
        decoded = cv2.imdecode(np.frombuffer(_as_file(part.data), np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise ValueError("a picture of it cannot be decoded")
        pixels = np.asarray(decoded, np.uint8)
        if pixels.shape[2] == 3:
            pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        rows = slice(part.y, part.y + pixels.shape[0])
        columns = slice(part.x, part.x + pixels.shape[1])
        place = canvas[rows, columns]
        if place.shape != pixels.shape:
            raise ValueError("a picture of it lies outside of the canvas")
        place[...] = _blend(place, pixels) if part.blend else pixels
        yield canvas.copy(), max(1, part.duration_ms)
        if part.dispose:
            place[...] = 0


def _blend(below: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay pixels with alpha, (H, W, 4), over others (the specification's formula)."""
    alpha = above[..., 3:].astype(np.float32) / 255.0
    under = below[..., 3:].astype(np.float32) / 255.0 * (1.0 - alpha)
    total = alpha + under
    weighed = above[..., :3] * alpha + below[..., :3] * under
    color = weighed / np.where(total > 0, total, 1.0)
    blended = np.rint(np.concatenate([color, total * 255.0], axis=-1))
    return np.asarray(blended, np.uint8)


def _parts(content: bytes) -> Iterator[_Part]:
    place = 12
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        body = content[place + 8 : place + 8 + length]
        if len(body) < length:
            raise ValueError("it ends in mid-picture")
        if kind == b"ANMF":
            numbers = [int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3)]
            flags = body[15]
            yield _Part(
                numbers[0] * 2, numbers[1] * 2, numbers[4], not flags & 2, bool(flags & 1),
                body[16:],
            )  # fmt: skip
        place += 8 + length + length % 2


def _as_file(chunks: bytes) -> bytes:
    """A WebP file of one picture's chunks; with an ALPH chunk it wants a head of its own."""
    if chunks[:4] == b"ALPH":
        place = 8 + int(struct.unpack_from("<I", chunks, 4)[0])
        place += place % 2
        width, height = struct.unpack_from("<HH", chunks, place + 14)
        head = bytes([0x10, 0, 0, 0]) + ((width & 0x3FFF) - 1).to_bytes(3, "little")
        head += ((height & 0x3FFF) - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<I", len(head)) + head + chunks
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
