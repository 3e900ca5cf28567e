"""Encoded frames in closed segments: each is made by an encoder of its own and kept in a file.

A segment begins with a key frame and depends on nothing before it, so whoever has the whole ones
goes on behind them, and what comes out does not tell that a job was interrupted. Its file holds
packets only; the container around them is written once, at the end (`join_segments`).
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from frameswap.errors import UnreadableFile

__all__ = ["Packet", "clone_encoder", "read_segment", "timed_packets", "write_segment"]

SEGMENT_FRAMES: Final = 250
"""x264's own longest distance between key frames: so segments cost next to nothing in size."""

_MAGIC: Final = b"frameswap segment 1\n"
_PACKET: Final = struct.Struct("<qqIB")

_COPIED: Final = (
    "width", "height", "pix_fmt", "time_base", "framerate", "colorspace", "color_range",
    "color_primaries", "color_trc", "sample_aspect_ratio", "bit_rate", "codec_tag", "flags",
)  # fmt: skip


@dataclass(frozen=True)
class Packet:
    """One encoded frame.

    pts, duration: in ticks of the encoder's time base; a duration of 0 is not known.
    """

    pts: int
    duration: int
    is_key: bool
    data: bytes


def clone_encoder(context: Any, options: dict[str, str], *, threads: int) -> Any:
    """A new encoder with the settings of another, which does not remember its options."""
    clone = av.CodecContext.create(context.codec.name, "w")
    for name in _COPIED:
        value = getattr(context, name)
        if value is not None:
            setattr(clone, name, value)
    clone.options = dict(options)
    clone.thread_type = context.thread_type
    clone.thread_count = threads
    return clone


def write_segment(path: Path, packets: Iterable[Packet]) -> tuple[int, int]:
    """Write a segment so that it is there after a power cut; returns its bytes and CRC-32.

    Raises:
        OSError: a full disk.
    """
    size = crc = 0
    with path.open("wb") as file:
        for chunk in _chunks(packets):
            file.write(chunk)
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
        file.flush()
        os.fsync(file.fileno())
    return size, crc


def read_segment(path: Path) -> list[Packet]:
    """The packets of a segment, in the order of decoding.

    Raises:
        UnreadableFile: it is not whole.
    """
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    if file.read(len(_MAGIC)) != _MAGIC:
        raise UnreadableFile(f"{path} is no segment of a job")
    packets = []
    while head := file.read(_PACKET.size):
        if len(head) < _PACKET.size:
            raise UnreadableFile(f"{path} is cut off")
        pts, duration, size, is_key = _PACKET.unpack(head)
        data = file.read(size)
        if len(data) < size:
            raise UnreadableFile(f"{path} is cut off")
        packets.append(Packet(pts, duration, bool(is_key), data))
    return packets


def reorder_depth(packets: list[Packet]) -> int:
    """How many frames, at most, are decoded before one that is shown earlier than they are."""
    times = sorted(packet.pts for packet in packets)
    place = {pts: index for index, pts in enumerate(times)}
    return max((index - place[packet.pts] for index, packet in enumerate(packets)), default=0)


def timed_packets(
    segments: Iterable[list[Packet]], *, depth: int, time_base: Fraction
) -> Iterator[Any]:
    """The packets of all segments as FFmpeg's, with decoding times that grow without a break.

    Encoders that know nothing of each other state times of decoding that may overlap. These are
    the times of presentation in their order, `depth` frames late, as one encoder states them.

    Args:
        segments: in order, each in the order of decoding.
        depth: the largest `reorder_depth` of all.
        time_base: seconds a tick.
    """
    late: list[int] = []
    for packets in segments:
        times = sorted(packet.pts for packet in packets)
        if not late and times:
            # Before the first frame there is no time to take: the distances behind it.
            ahead = times[: depth + 1]
            late = [time - (ahead[-1] - ahead[0]) for time in ahead[:-1]]
            while len(late) < depth:
                late.insert(0, (late or times)[0] - 1)
        late += times
        for packet in packets:
            dts = late.pop(0)
            yield _packet(packet, dts, time_base)


def _packet(packet: Packet, dts: int, time_base: Fraction) -> Any:
    made = av.Packet(packet.data)
    made.pts, made.dts = packet.pts, dts
    if packet.duration:
        made.duration = packet.duration
    made.time_base = time_base
    made.is_keyframe = packet.is_key
    return made


def _chunks(packets: Iterable[Packet]) -> Iterator[bytes]:
    yield _MAGIC
    for packet in packets:
        yield _PACKET.pack(packet.pts, packet.duration, len(packet.data), packet.is_key)
        yield packet.data
