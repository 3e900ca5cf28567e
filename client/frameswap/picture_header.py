"""How large a picture says that it is, from the first bytes of its file: nothing is decoded.

Source: PNG (W3C, 11.2.2 IHDR); JPEG (ITU-T T.81, B.2.2 frame header); WebP (RFC 9649, 2.5 to 2.7);
BMP (BITMAPCOREHEADER, BITMAPINFOHEADER); TIFF 6.0 (section 2, ImageWidth and ImageLength).
"""

from __future__ import annotations

import struct

__all__ = ["picture_size"]


def picture_size(content: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height, pixels, as the header says; None for other formats and damaged headers."""
    head = bytes(content[:4])
    try:
        if head == b"\x89PNG":
            return _unpack(">II", content, 16)
        if head[:2] == b"\xff\xd8":
            return _jpeg(content)
        if head == b"RIFF" and bytes(content[8:12]) == b"WEBP":
            return _webp(content)
        if head[:2] == b"BM":
            (size,) = struct.unpack_from("<I", content, 14)
            width, height = _unpack("<HH" if size == 12 else "<ii", content, 18)
            return width, abs(height)
        if head in (b"II*\0", b"MM\0*"):
            return _tiff(content, "<" if head[:1] == b"I" else ">")
    except (struct.error, IndexError):
        return None
    return None


def _unpack(form: str, content: bytes | memoryview, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, content, at)
    return int(first), int(second)


def _jpeg(content: bytes | memoryview) -> tuple[int, int] | None:
    at = 2
    while True:
        while content[at] == 0xFF and content[at + 1] == 0xFF:
            at += 1  # padding
        if content[at] != 0xFF:
            return None
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


def _webp(content: bytes | memoryview) -> tuple[int, int] | None:
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


def _tiff(content: bytes | memoryview, order: str) -> tuple[int, int] | None:
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    found = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (256, 257):
            form = f"{order}{'H' if kind == 3 else 'I'}"
            (found[tag],) = struct.unpack_from(form, content, entry + 8)
    return (found[256], found[257]) if len(found) == 2 else None
