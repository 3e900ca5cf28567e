"""A disk of a few megabytes that a test can fill and empty: a file system in memory of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_BALLAST = "ballast"
_PAGE = 4096
"""What the file system gives away at once, bytes."""


@dataclass(frozen=True)
class SmallDisk:
    """folder: where it is mounted."""

    folder: Path

    def fill(self, *, leaving: int) -> None:
        """Leave room for so many bytes of files, rounded up to whole pages, and never more."""
        kept = -(-leaving // _PAGE) * _PAGE
        with (self.folder / _BALLAST).open("ab", buffering=0) as file:
            surplus = shutil.disk_usage(self.folder).free - kept
            if surplus > 0:
                # Less than that is left where somebody else writes meanwhile.
                with suppress(OSError):
                    file.write(bytes(surplus))
            else:
                file.truncate(file.tell() + surplus)
        assert shutil.disk_usage(self.folder).free <= kept

    def empty(self) -> None:
        """Make room again."""
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Of what lies there, beside what fills it."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != _BALLAST)


@contextmanager
def small_disk(folder: Path, *, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of that size in an empty folder; skips where that is not allowed."""
    size = f"size={mebibytes}m"
    words = ["mount", "-t", "tmpfs", "-o", size, "frameswap-test", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here to make a small disk with")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Whoever still has a file open there does not keep the test waiting.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
