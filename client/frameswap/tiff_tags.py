"""TIFF's tagged directories: what EXIF blocks and TIFF files are made of.

Source: TIFF 6.0, section 2; Exif 2.32, 4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["EXIF_FOLDERS", "Block", "Directory", "Entry", "write_directory"]

ORIENTATION: Final = 0x0112
_THUMBNAIL_OFFSET: Final = 0x0201
_THUMBNAIL_LENGTH: Final = 0x0202
EXIF_FOLDERS: Final = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "Interoperability"}
"""Tags whose value is where another directory lies."""

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_UNITS: Final = {3: "H", 4: "I", 5: "II", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
_MOST_ENTRIES: Final = 1000
_DEEPEST: Final = 3


@dataclass(frozen=True)
class Entry:
    """One tag's value.

    kind: TIFF's type number. content: little-endian bytes, whatever the block's order.
    folder: the directory that it leads to.
    """

    kind: int
    content: bytes
    folder: Mapping[int, Entry] | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values as numbers; a rational is its quotient (0 where its denominator is)."""
        unit = _UNITS.get(self.kind)
        if unit is None:
            return tuple(self.content)
        values = list(struct.iter_unpack("<" + unit, self.content))
        return tuple(
            value[0] if len(value) == 1 else (value[0] / value[1] if value[1] else 0.0)
            for value in values
        )


Directory = Mapping[int, Entry]


class Block:
    """A TIFF structure in memory: an EXIF block, or a TIFF file.

    Raises:
        ValueError: it does not begin as one does.
    """

    def __init__(self, content: bytes) -> None:
        order = {b"II": "<", b"MM": ">"}.get(content[:2])
        if order is None or len(content) < 8 or struct.unpack(order + "H", content[2:4])[0] != 42:
            raise ValueError("not a TIFF structure")
        self.content = content
        self._order = order
        self.first: int = self._read("I", 4)

    def _read(self, unit: str, offset: int) -> int:
        size = struct.calcsize(unit)
        if offset < 0 or offset + size > len(self.content):
            raise ValueError("a directory leads outside")
        return int(struct.unpack_from(self._order + unit, self.content, offset)[0])

    def directory(self, offset: int, *, depth: int = 0) -> Directory:
        """Read a directory; entries that lead outside or are of unknown type are left out."""
        entries: dict[int, Entry] = {}
        for place in self._entries(offset):
            tag, kind = self._read("H", place), self._read("H", place + 2)
            count = self._read("I", place + 4)
            length = _SIZES.get(kind, 0) * count
            start = place + 8 if length <= 4 else self._read("I", place + 8)
            if not length or start + length > len(self.content):
                continue
            content = self.content[start : start + length]
            if tag in EXIF_FOLDERS and kind in (4, 13) and depth < _DEEPEST:
                try:
                    folder = self.directory(self._read("I", place + 8), depth=depth + 1)
                except ValueError:
                    continue
                entries[tag] = Entry(4, bytes(4), folder)
            else:
                entries[tag] = Entry(kind, self._little(kind, content))
        return entries

    def following(self, offset: int) -> int:
        """Where the directory behind the one at `offset` lies; 0 where there is none."""
        return self._read("I", self._entries(offset).stop)

    def _entries(self, offset: int) -> range:
        count = self._read("H", offset)
        if count > _MOST_ENTRIES or offset + 2 + count * 12 > len(self.content):
            raise ValueError("a directory leads outside")
        return range(offset + 2, offset + 2 + count * 12, 12)

    def _little(self, kind: int, content: bytes) -> bytes:
        unit = _UNITS.get(kind)
        if unit is None or self._order == "<":
            return content
        number = len(content) // struct.calcsize("<" + unit) * len(unit)
        return struct.pack(
            f"<{number}{unit[0]}", *struct.unpack(f">{number}{unit[0]}", content)
        )

    def without_orientation_and_thumbnail(self) -> bytes:
        """The block with its picture upright and without the small one that shows the original.

        All else stays where it is: makers' notes point into the block.
        """
        changed = bytearray(self.content)
        for place in self._entries(self.first):
            if self._read("H", place) == ORIENTATION:
                struct.pack_into(self._order + "HHIHH", changed, place, ORIENTATION, 3, 1, 1, 0)
        link = self._entries(self.first).stop
        if link + 4 <= len(changed) and (second := self._read("I", link)):
            struct.pack_into(self._order + "I", changed, link, 0)
            try:
                thumbnail = self.directory(second)
            except ValueError:
                thumbnail = {}
            where = thumbnail.get(_THUMBNAIL_OFFSET)
            size = thumbnail.get(_THUMBNAIL_LENGTH)
            if where and size:
                start, length = int(where.numbers[0]), int(size.numbers[0])
                end = min(start + length, len(changed))
                if 8 <= start < end:
                    changed[start:end] = bytes(end - start)
                    if end == len(changed):
                        del changed[start:]
        return bytes(changed)


def write_directory(entries: Directory, at: int, *, following: int = 0) -> bytes:
    """Write a directory, with what it leads to, as little-endian bytes that will lie at `at`."""
    tags = sorted(entries)
    head = struct.pack("<H", len(tags))
    tail = b""
    beyond = at + 2 + 12 * len(tags) + 4
    for tag in tags:
        entry = entries[tag]
        content = entry.content
        if entry.folder is not None:
            tail += bytes(len(tail) % 2)
            content = struct.pack("<I", beyond + len(tail))
            tail += write_directory(entry.folder, beyond + len(tail))
        count = len(content) // _SIZES[entry.kind]
        if len(content) > 4:
            tail += bytes(len(tail) % 2)
            value = struct.pack("<I", beyond + len(tail))
            tail += content
        else:
            value = content.ljust(4, b"\0")
        head += struct.pack("<HHI", tag, entry.kind, count) + value
    return head + struct.pack("<I", following) + tail
