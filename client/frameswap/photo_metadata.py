"""What a photo file says beside its pixels: colour profile, EXIF, resolution, how it was coded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from frameswap.tiff_tags import EXIF_FOLDERS, Block, Directory, Entry, write_directory

__all__ = ["JpegCoding", "PhotoMetadata", "is_animated", "read_metadata"]

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
EXIF_NAME: Final = b"Exif\0\0"
ICC_NAME: Final = b"ICC_PROFILE\0"
_PNG_COLOURS: Final = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
_MOST_BYTES: Final = 64 * 2**20
"""Of a profile or an EXIF block once it is unpacked; honest ones have a few."""
_PICTURE_TAGS: Final = frozenset(
    # What a TIFF says of how its pixels are stored, which holds for that file alone.
    (
        254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292,
        293, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 337, 338, 339,
        340, 341, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675,
    )
)  # fmt: skip
_TURNS: Final = {
    # HEIF's rotation (quarter turns against the clock), then mirror (0 top to bottom, 1 left to
    # right), as EXIF's orientation. Source: MIAF 7.3.6.7 and libavif's reading of it.
    (0, 1): 2, (2, None): 3, (0, 0): 4, (1, 0): 5, (3, None): 6, (3, 0): 7, (1, None): 8,
}  # fmt: skip
_X_RESOLUTION: Final = 0x011A
_Y_RESOLUTION: Final = 0x011B
_RESOLUTION_UNIT: Final = 0x0128

_LUMINANCE: Final = (
    # ITU-T T.81, table K.1, in the order of a JPEG file (zigzag).
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37,
    29, 40, 58, 51, 61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
)  # fmt: skip


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was coded.

    quality: 1 to 100, the IJG scale, of the nearest luminance table.
    sampling: of luma beside chroma, (horizontal, vertical), as (2, 2) for 4:2:0.
    """

    quality: int
    sampling: tuple[int, int]
    progressive: bool


@dataclass(frozen=True)
class PhotoMetadata:
    """What is taken from an input photo into the output.

    icc: the colour profile, of RGB pixels. exif: a TIFF block, its orientation upright and without
    a thumbnail. dpi: dots an inch, across and down. turned: the orientation, 1 to 8 as EXIF
    counts, that an AVIF states in its own way, which OpenCV leaves to its user.
    png_colours: the chunks of a PNG that say what its colours are.
    notes: sentences about what is not kept.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg: JpegCoding | None = None
    turned: int = 1
    png_colours: tuple[tuple[bytes, bytes], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg: JpegCoding | None = None
    colours: list[tuple[bytes, bytes]] = field(default_factory=list)
    turned: int = 1
    several: bool = False


def read_metadata(content: bytes, *, name: str) -> PhotoMetadata:
    """Read a photo file's metadata; what is damaged counts as not there, and that is said."""
    found = _Found()
    notes = []
    try:
        if content[:2] == b"\xff\xd8":
            _read_jpeg(content, found)
        elif content[:8] == PNG_MAGIC:
            _read_png(content, found)
        elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            _read_webp(content, found)
        elif content[:2] == b"BM" and len(content) >= 54:
            across, down = struct.unpack_from("<ii", content, 38)
            found.dpi = _per_metre(across, down)
        elif content[:2] in (b"II", b"MM"):
            _read_tiff(content, found)
        elif content[4:8] == b"ftyp":
            _read_avif(content, found)
    except (ValueError, struct.error, zlib.error, IndexError):
        notes.append(f"a part of {name}'s metadata is damaged and was left out")
    icc, exif = found.icc, None
    if found.several:
        notes.append(f"{name} holds more than one picture: the first is swapped")
    if icc is not None and icc[16:20] != b"RGB ":
        notes.append(f"the colour profile of {name} is not one of RGB colours: it is left out")
        icc = None
    if found.exif is not None:
        try:
            block = Block(found.exif)
            tags = block.directory(block.first)
            exif = block.without_orientation_and_thumbnail()
            found.dpi = found.dpi or _tiff_dpi(tags)
        except (ValueError, struct.error, IndexError):
            exif = None
            notes.append(f"the EXIF data of {name} is damaged and was left out")
    return PhotoMetadata(
        icc=icc,
        exif=exif,
        dpi=found.dpi,
        jpeg=found.jpeg,
        turned=found.turned,
        png_colours=tuple(found.colours),
        notes=tuple(notes),
    )


def is_animated(content: bytes) -> str | None:
    """The format's name where a photo file holds pictures that move: "WebP", "PNG" or "AVIF"."""
    if content[4:8] == b"ftyp":
        # The brand of a sequence (AV1 Image File Format, 6.3), the major one or among the others.
        (size,) = struct.unpack(">I", content[:4])
        return "AVIF" if b"avis" in content[8 : min(size, 256)] else None
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        # The second bit of VP8X's flags.
        return "WebP" if content[12:16] == b"VP8X" and content[20:21] and content[20] & 2 else None
    if content[:8] == PNG_MAGIC:
        try:
            for kind, _ in _png_chunks(content):
                if kind == b"acTL":
                    return "PNG"
                if kind == b"IDAT":
                    return None
        except (ValueError, struct.error):
            return None
    return None


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            raise ValueError("a JPEG marker is missing")
        marker = content[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            place += 2
            continue
        length = struct.unpack_from(">H", content, place + 2)[0]
        if length < 2:
            raise ValueError("a JPEG segment is empty")
        yield marker, content[place + 4 : place + 2 + length]
        if marker == 0xDA:  # the pixels follow
            return
        place += 2 + length


def _read_jpeg(content: bytes, found: _Found) -> None:
    profile: dict[int, bytes] = {}
    quality, sampling, progressive = 0, (2, 2), False
    for marker, body in _jpeg_segments(content):
        if marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            factor = {1: 1.0, 2: 2.54}.get(unit)
            if factor and across and down:
                found.dpi = (across * factor, down * factor)
        elif marker == 0xE1 and body[:6] == EXIF_NAME and found.exif is None:
            found.exif = body[6:]
        elif marker == 0xE2 and body[:12] == ICC_NAME and len(body) > 14:
            profile[body[12]] = body[14:]
        elif marker == 0xDB and not quality:
            quality = _estimate_quality(body)
        elif marker in (0xC0, 0xC1, 0xC2) and len(body) >= 9:
            progressive = marker == 0xC2
            parts = [body[7 + 3 * index] for index in range(body[5])]
            sampling = (2, 2)
            if len(parts) == 3 and parts[1]:
                sampling = (
                    max(1, (parts[0] >> 4) // max(1, parts[1] >> 4)),
                    max(1, (parts[0] & 15) // max(1, parts[1] & 15)),
                )
    found.jpeg = JpegCoding(quality or 95, sampling, progressive)
    if profile:
        found.icc = b"".join(profile[index] for index in sorted(profile))


def _estimate_quality(tables: bytes) -> int:
    """The IJG quality whose luminance table is nearest in sum to the first of these (T.81 B.2.4.1).

    IJG scales table K.1 by S % with S = 5000/Q below 50 and 200 - 2Q above.
    """
    if tables[0] >> 4:
        return 0
    total = sum(tables[1:65])

    def scaled(quality: int) -> int:
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        return sum(min(255, max(1, (value * scale + 50) // 100)) for value in _LUMINANCE)

    return min(range(1, 101), key=lambda quality: abs(scaled(quality) - total))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if place + 12 + length > len(content):
            raise ValueError("a PNG chunk leads outside")
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length


def _inflate(packed: bytes) -> bytes:
    reader = zlib.decompressobj()
    content = reader.decompress(packed, _MOST_BYTES)
    if reader.unconsumed_tail or not reader.eof:
        raise ValueError("a profile that does not end")
    return content


def _read_png(content: bytes, found: _Found) -> None:
    for kind, body in _png_chunks(content):
        if kind == b"iCCP":
            _, _, packed = body.partition(b"\0")
            found.icc = _inflate(packed[1:])
        elif kind == b"eXIf":
            found.exif = body
        elif kind == b"pHYs" and len(body) == 9 and body[8] == 1:
            found.dpi = _per_metre(*struct.unpack_from(">II", body))
        elif kind in _PNG_COLOURS:
            found.colours.append((kind, body))


def _read_webp(content: bytes, found: _Found) -> None:
    place = 12
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        body = content[place + 8 : place + 8 + length]
        if kind == b"ICCP":
            found.icc = body
        elif kind == b"EXIF":
            found.exif = body[6:] if body[:6] == EXIF_NAME else body
        place += 8 + length + length % 2


def _read_tiff(content: bytes, found: _Found) -> None:
    block = Block(content)
    tags = block.directory(block.first)
    if 34675 in tags:
        found.icc = tags[34675].content
    found.dpi = _tiff_dpi(tags)
    found.several = block.following(block.first) != 0
    kept = {tag: entry for tag, entry in tags.items() if tag not in _PICTURE_TAGS}
    if 0x0112 in tags:
        kept[0x0112] = tags[0x0112]
    if kept.keys() - {_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, 0x0112} or 0x0112 in kept:
        found.exif = exif_block(kept)


def exif_block(tags: Directory) -> bytes:
    """An EXIF block, a TIFF structure, of these tags."""
    return b"II*\0\x08\0\0\0" + write_directory(tags, 8)


def _read_avif(content: bytes, found: _Found) -> None:
    """Find the profile and the EXIF block of a HEIF-like file without walking all of its boxes."""
    place = content.find(b"colrprof")
    if place >= 4:
        (size,) = struct.unpack_from(">I", content, place - 4)
        found.icc = content[place + 8 : place - 4 + size]
    for sign in (b"II*\0", b"MM\0*"):
        # The item begins with the offset of its TIFF header, mostly 0 or after "Exif\0\0".
        place = content.find(sign)
        if place > 0 and b"Exif" in content[:place]:
            block = Block(content[place:])
            # Written anew: where the item ends stands in a box that is not read here.
            found.exif = exif_block(block.directory(block.first))
            break
    properties = content[content.find(b"ipco") :]
    turn, mirror = properties.find(b"irot"), properties.find(b"imir")
    quarters = properties[turn + 4] & 3 if turn > 0 else 0
    axis = properties[mirror + 4] & 1 if mirror > 0 else None
    found.turned = _TURNS.get((quarters, axis), 1)


def _per_metre(across: int, down: int) -> tuple[float, float] | None:
    return (across * 0.0254, down * 0.0254) if across > 0 and down > 0 else None


def _tiff_dpi(tags: Directory) -> tuple[float, float] | None:
    across, down = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    unit = tags.get(_RESOLUTION_UNIT)
    factor = {2: 1.0, 3: 2.54}.get(int(unit.numbers[0]) if unit else 2)
    if not (across and down and factor):
        return None
    values = across.numbers[0] * factor, down.numbers[0] * factor
    return values if min(values) > 0 else None


def resolution_tags(dpi: tuple[float, float]) -> dict[int, Entry]:
    """The TIFF tags of a resolution."""
    return {
        _X_RESOLUTION: Entry(5, struct.pack("<II", round(dpi[0] * 1000), 1000)),
        _Y_RESOLUTION: Entry(5, struct.pack("<II", round(dpi[1] * 1000), 1000)),
        _RESOLUTION_UNIT: Entry(3, struct.pack("<H", 2)),
    }


def portable_tags(exif: bytes) -> dict[int, Entry]:
    """The tags of an EXIF block that may stand in another file's first directory."""
    block = Block(exif)
    return {
        tag: entry
        for tag, entry in block.directory(block.first).items()
        if (tag not in _PICTURE_TAGS or tag in EXIF_FOLDERS) and tag != 0x0112
    }
