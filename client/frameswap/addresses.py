"""Addresses that a video is read from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from frameswap.errors import UnreadableFile

__all__ = ["Target", "Url", "as_target"]

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SECRETS: Final = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)
"""User and password before the host; query and fragment behind the path."""
_READ: Final = ("http", "https")


@dataclass(frozen=True)
class Url:
    """An address, as it was given. A path would not do: it takes two slashes for one.

    Its text without user, password and query, which may hold secrets, is what messages show.
    """

    text: str

    def __str__(self) -> str:
        return _SECRETS.sub("", self.text)

    @property
    def name(self) -> str:
        """The last part of its path; all of it where there is none."""
        _, _, path = str(self).partition("://")[2].partition("/")
        return PurePosixPath(unquote(path)).name or str(self)

    def check(self) -> None:
        """Raise UnreadableFile for an address of another kind than those that are read."""
        if self.text.partition("://")[0].lower() not in _READ:
            raise UnreadableFile(
                f"{self} is an address, and of those http and https are read: download it first, "
                f"or pipe it in (`... | frameswap swap --target - ...`)"
            )


Target = Path | Url
"""What a video is read from: a file, numbered pictures, "-", an address."""


def as_target(text: str) -> Target:
    """What a word on the command line means; a file of that name goes first."""
    is_address = _ADDRESS.match(text) is not None and not Path(text).exists()
    return Url(text) if is_address else Path(text)
