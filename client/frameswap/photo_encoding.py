"""Photo files: pixels encoded by OpenCV, and the metadata put beside them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.photo_metadata import (
    EXIF_NAME,
    ICC_NAME,
    PNG_MAGIC,
    PhotoMetadata,
    exif_block,
    portable_tags,
    resolution_tags,
)
from frameswap.tiff_tags import Block, Entry, write_directory

__all__ = ["ALPHA_SUFFIXES", "PHOTO_SUFFIXES", "encode_photo"]

_XMP_NAME: Final = b"http://ns.adobe.com/xap/1.0/\0"
_SEGMENT: Final = 65533
"""Bytes that a JPEG segment holds beside its length."""
ALPHA_SUFFIXES: Final = (".png", ".webp", ".tif", ".tiff", ".avif")
DEFAULT_JPEG_QUALITY: Final = 95
_DEFAULT_AVIF_QUALITY: Final = 90
_SAMPLINGS: Final = {
    (1, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    (2, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    (1, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    (4, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    (2, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def encode_photo(
    suffix: str,
    image: NDArray[np.uint8],
    *,
    metadata: PhotoMetadata,
    xmp: bytes,
    quality: int | None,
) -> bytes:
    """Encode a photo and what belongs to it.

    Args:
        suffix: of the format, in lower case.
        image: (H, W, 3) or (H, W, 4) uint8 BGR(A).
        quality: 1 to 100; None is the JPEG input's, or the best that is usual.

    Raises:
        cv2.error: the format cannot hold such a picture.
    """
    options = _options(suffix, metadata, quality)
    if suffix == ".avif":
        return _encode_avif(image, options, metadata, xmp)
    _, encoded = cv2.imencode(suffix, image, options)
    return _WRITERS[suffix](encoded.tobytes(), metadata, xmp)


def _options(suffix: str, metadata: PhotoMetadata, quality: int | None) -> list[int]:
    if suffix in (".jpg", ".jpeg"):
        coding = metadata.jpeg
        chosen = quality or (coding.quality if coding else DEFAULT_JPEG_QUALITY)
        options = [cv2.IMWRITE_JPEG_QUALITY, chosen]
        if coding:
            sampling = _SAMPLINGS.get(coding.sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, int(sampling)]
            options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(coding.progressive)]
        return options
    if suffix == ".webp":
        # Above 100 OpenCV writes WebP without loss.
        return [cv2.IMWRITE_WEBP_QUALITY, quality or 101]
    if suffix == ".avif":
        return [cv2.IMWRITE_AVIF_QUALITY, quality or _DEFAULT_AVIF_QUALITY]
    if suffix == ".png":
        return [cv2.IMWRITE_PNG_COMPRESSION, 3]
    return []


def _write_jpeg(encoded: bytes, metadata: PhotoMetadata, xmp: bytes) -> bytes:
    across, down = metadata.dpi or (1.0, 1.0)
    density = struct.pack(">BHH", 1 if metadata.dpi else 0, _word(across), _word(down))
    segments = [(0xE0, b"JFIF\0\x01\x01" + density + b"\0\0")]
    if metadata.exif and len(metadata.exif) + len(EXIF_NAME) <= _SEGMENT:
        segments.append((0xE1, EXIF_NAME + metadata.exif))
    segments.append((0xE1, _XMP_NAME + xmp))
    if metadata.icc:
        step = _SEGMENT - len(ICC_NAME) - 2
        parts = [metadata.icc[at : at + step] for at in range(0, len(metadata.icc), step)]
        for number, part in enumerate(parts, 1):
            segments.append((0xE2, ICC_NAME + bytes([number, len(parts)]) + part))
    rest = 2
    if encoded[2:4] == b"\xff\xe0":
        rest += 2 + int(struct.unpack_from(">H", encoded, 4)[0])
    head = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments
    )
    return encoded[:2] + head + encoded[rest:]


def _word(value: float) -> int:
    return min(65535, max(1, round(value)))


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _write_png(encoded: bytes, metadata: PhotoMetadata, xmp: bytes) -> bytes:
    chunks = [
        _png_chunk(kind, body) for kind, body in metadata.png_colours if kind != b"sRGB"
        or not metadata.icc
    ]  # fmt: skip
    if metadata.icc:
        chunks.append(_png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append(_png_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        chunks.append(_png_chunk(b"eXIf", metadata.exif))
    chunks.append(_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    head = len(PNG_MAGIC) + 25  # IHDR is the first chunk and has 13 bytes
    return encoded[:head] + b"".join(chunks) + encoded[head:]


def _write_webp(encoded: bytes, metadata: PhotoMetadata, xmp: bytes) -> bytes:
    """Put the pixels' chunks into the extended form (Google, WebP Container Specification)."""
    pixels = [
        (kind, body) for kind, body in _riff_chunks(encoded) if kind in (b"VP8 ", b"VP8L", b"ALPH")
    ]
    width, height, alpha = _webp_size(pixels)
    flags = 0x04 | (0x20 if metadata.icc else 0) | (0x08 if metadata.exif else 0)
    flags |= 0x10 if alpha else 0
    head = struct.pack("<B3x", flags) + (width - 1).to_bytes(3, "little")
    chunks = [(b"VP8X", head + (height - 1).to_bytes(3, "little"))]
    if metadata.icc:
        chunks.append((b"ICCP", metadata.icc))
    chunks += pixels
    if metadata.exif:
        chunks.append((b"EXIF", metadata.exif))
    chunks.append((b"XMP ", xmp))
    body = b"".join(
        struct.pack("<4sI", kind, len(part)) + part + bytes(len(part) % 2) for kind, part in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _riff_chunks(encoded: bytes) -> Iterable[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, place)
        yield kind, encoded[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _webp_size(pixels: list[tuple[bytes, bytes]]) -> tuple[int, int, bool]:
    found = dict(pixels)
    if b"VP8L" in found:
        (bits,) = struct.unpack_from("<I", found[b"VP8L"], 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    width, height = struct.unpack_from("<HH", found[b"VP8 "], 6)
    return width & 0x3FFF, height & 0x3FFF, b"ALPH" in found


def _write_tiff(encoded: bytes, metadata: PhotoMetadata, xmp: bytes) -> bytes:
    """Write the directory again, at the end, with more tags in it."""
    block = Block(encoded)
    tags = dict(block.directory(block.first))
    if metadata.exif:
        tags = {**portable_tags(metadata.exif), **tags}
    if metadata.dpi:
        tags.update(resolution_tags(metadata.dpi))
    if metadata.icc:
        tags[34675] = Entry(7, metadata.icc)
    tags[700] = Entry(1, xmp)
    encoded += bytes(len(encoded) % 2)
    return (
        encoded[:4]
        + struct.pack("<I", len(encoded))
        + encoded[8:]
        + write_directory(tags, len(encoded))
    )


def _write_bmp(encoded: bytes, metadata: PhotoMetadata, xmp: bytes) -> bytes:
    if not metadata.dpi:
        return encoded
    across, down = (round(value / 0.0254) for value in metadata.dpi)
    return encoded[:38] + struct.pack("<ii", across, down) + encoded[46:]


def _encode_avif(
    image: NDArray[np.uint8], options: list[int], metadata: PhotoMetadata, xmp: bytes
) -> bytes:
    exif = metadata.exif
    if exif is None and metadata.dpi:
        # AVIF has no place of its own for a resolution.
        exif = exif_block(resolution_tags(metadata.dpi))
    parts = [
        (cv2.IMAGE_METADATA_EXIF, exif),
        (cv2.IMAGE_METADATA_XMP, xmp),
        (cv2.IMAGE_METADATA_ICCP, metadata.icc),
    ]
    given = [(kind, np.frombuffer(part, np.uint8)) for kind, part in parts if part]
    _, encoded = cv2.imencodeWithMetadata(
        ".avif", image, [kind for kind, _ in given], [part for _, part in given], options
    )
    return bytes(encoded.tobytes())


_WRITERS: Final[dict[str, Callable[[bytes, PhotoMetadata, bytes], bytes]]] = {
    ".png": _write_png,
    ".jpg": _write_jpeg,
    ".jpeg": _write_jpeg,
    ".webp": _write_webp,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".bmp": _write_bmp,
}
PHOTO_SUFFIXES: Final = (*_WRITERS, ".avif")
"""The formats that are written."""
