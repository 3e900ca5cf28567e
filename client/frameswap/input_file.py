"""Looking at an input before it is opened."""

from __future__ import annotations

import stat
from pathlib import Path

from frameswap.errors import UnreadableFile

__all__ = ["check_file"]


def check_file(path: Path, kind: str) -> None:
    """Raise UnreadableFile unless there is an ordinary file with something in it.

    A pipe may wait for ever for its other end, and a device may have no end.

    Args:
        kind: what it should be, for the text.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UnreadableFile(f"there is no file {path}") from error
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableFile(f"{path} is a folder, not a {kind}")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile(
            f"{path} is a pipe or a device, not a file: save the {kind} to one first"
        )
    if status.st_size == 0:
        raise UnreadableFile(f"{path} is empty")
