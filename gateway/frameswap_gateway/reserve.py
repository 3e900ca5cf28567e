"""Room on the disk that is kept for what may not be forgotten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["Reserve"]

_BYTES: Final = 1 << 20
"""Some hundred changes of the table: that a job was stopped, or is removed, which makes room."""


class Reserve:
    """A file that takes room on the disk until that is needed."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_there = path, path.exists()

    def spend(self) -> bool:
        """Whether there was something to spend."""
        was_there, self._is_there = self._is_there, False
        self._path.unlink(missing_ok=True)
        return was_there

    def refill(self) -> None:
        """As soon as there is room again."""
        if self._is_there:
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, _BYTES)
            finally:
                os.close(file)
            self._is_there = True
        except OSError:
            self._path.unlink(missing_ok=True)
