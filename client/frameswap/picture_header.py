"""How large a picture says that it is, from the first bytes of its file: nothing is decoded.

Every format that OpenCV reads. Source: PNG (W3C, 11.2.2 IHDR); JPEG (ITU-T T.81, B.2.2 frame
header); WebP (RFC 9649, 2.5 to 2.7); BMP (BITMAPCOREHEADER, BITMAPINFOHEADER); TIFF 6.0 (section 2,
ImageWidth and ImageLength) and BigTIFF; GIF89a (18, logical screen); AVIF (ISO/IEC 23008-12,
6.5.3, `ispe`); JPEG 2000 (ITU-T T.800, A.5.1, SIZ); Netpbm (the manual pages of its formats);
Radiance (Reference Manual, "File Formats"); Sun raster (rasterfile(5)).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["picture_size"]

Content = bytes | memoryview
Size = tuple[int, int]

_HEAD: Final = 65536
"""Bytes; headers of words and lines are looked for in so many."""


def picture_size(content: Content) -> Size | None:
    """Width and height, pixels, as the header says; None for other formats and damaged headers."""
    head = bytes(content[:16])
    try:
        for magic, read in _READERS.items():
            if head.startswith(magic):
                return read(content)
        if head[4:8] == b"ftyp":
            return _avif(content)
        if _PNM.match(head):
            return _netpbm(content)
    except (struct.error, LookupError, ValueError):
        return None
    return None


def _unpack(form: str, content: Content, at: int) -> Size:
    first, second = struct.unpack_from(form, content, at)
    return int(first), int(second)


def _png(content: Content) -> Size:
    return _unpack(">II", content, 16)


def _gif(content: Content) -> Size:
    return _unpack("<HH", content, 6)


def _sun(content: Content) -> Size:
    return _unpack(">II", content, 4)


def _bmp(content: Content) -> Size:
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = _unpack("<HH" if size == 12 else "<ii", content, 18)
    return width, abs(height)


def _jpeg(content: Content) -> Size | None:
    at = 2
    while True:
        # Padding, and what is out of place, is passed over, as decoders do it.
        found = _MARKER.search(content, at)
        if found is None or content[found.start() + 1] == 0xDA:
            return None  # Its pixels begin, and no size was said.
        at = found.start()
        marker = content[at + 1]
        # SOF0 to SOF15, less DHT, JPG and DAC.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _unpack(">HH", content, at + 5)
            return width, height
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:
            at += 2  # they stand alone
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        at += 2 + length


def _webp(content: Content) -> Size | None:
    if bytes(content[8:12]) != b"WEBP":
        return None
    kind = bytes(content[12:16])
    if kind == b"VP8 ":
        width, height = _unpack("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        fields = bytes(content[24:30]).ljust(6, b"\0")
        return (
            int.from_bytes(fields[:3], "little") + 1,
            int.from_bytes(fields[3:], "little") + 1,
        )
    return None


def _tiff(content: Content) -> Size | None:
    order = "<" if bytes(content[:1]) == b"I" else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 2)
    # BigTIFF counts in eight bytes where TIFF has four, and two for the number of entries.
    wide = version == 43
    at, count_form, offset_form, length = (8, "Q", "Q", 20) if wide else (4, "H", "I", 12)
    (at,) = struct.unpack_from(order + offset_form, content, at)
    (count,) = struct.unpack_from(order + count_form, content, at)
    found = {}
    first = at + struct.calcsize(count_form)
    for entry in range(first, first + length * min(count, _HEAD), length):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (256, 257):
            form = order + {3: "H", 4: "I", 16: "Q"}[kind]
            (found[tag],) = struct.unpack_from(form, content, entry + length - (8 if wide else 4))
    return (found[256], found[257]) if len(found) == 2 else None


def _avif(content: Content) -> Size | None:
    """The largest of all its pictures: parts of a grid, and the whole."""
    data = bytes(content)
    places = [found.end() for found in re.finditer(b"ispe", data)]
    sizes = [_unpack(">II", data, place + 4) for place in places]
    return max(sizes, key=math.prod, default=None)


def _jpeg_2000(content: Content) -> Size | None:
    data = bytes(content)
    place = data.find(b"\xff\x4f\xff\x51")
    if place < 0:
        return None
    # The picture lies on a grid: from its offset to its end.
    width, height, left, top = struct.unpack_from(">4I", data, place + 8)
    return width - left, height - top


def _radiance(content: Content) -> Size | None:
    found = re.search(rb"\n-Y (\d{1,10}) \+X (\d{1,10})", bytes(content[:_HEAD]))
    return (int(found[2]), int(found[1])) if found else None


def _netpbm(content: Content) -> Size | None:
    """PBM, PGM and PPM, plain or not, PAM, and PFM."""
    text = re.sub(rb"#[^\r\n]*", b"", bytes(content[:_HEAD]))
    if text[:2] == b"P7":
        sides = [re.search(rb"\b" + name + rb"\s+(\d{1,10})", text) for name in _PAM]
        return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None
    found = re.match(rb"P.\s+(\d{1,10})\s+(\d{1,10})\s", text)
    return (int(found[1]), int(found[2])) if found else None


_MARKER: Final = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_PAM: Final = (b"WIDTH", b"HEIGHT")
_PNM: Final = re.compile(rb"P[1-7Ff][\s#]")
_READERS: Final[dict[bytes, Callable[[Content], Size | None]]] = {
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"GIF8": _gif,
    b"\x59\xa6\x6a\x95": _sun,
    b"\0\0\0\x0cjP  ": _jpeg_2000,
    b"\xff\x4f\xff\x51": _jpeg_2000,
    b"#?RADIANCE": _radiance,
    b"#?RGBE": _radiance,
}
