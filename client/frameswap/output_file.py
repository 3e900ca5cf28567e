"""An output that is either whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frameswap.errors import UnwritableFile

__all__ = ["check_output", "explain_failure", "output_file"]


@contextmanager
def output_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it when the block ends without an error.

    The temporary name keeps the suffix, because writers choose their format by it. On any error,
    Ctrl-C included, it is removed and `path` stays as it was.

    Raises:
        UnwritableFile: `path` exists and `force` is not given, its folder is missing or closed to
            us, or the disk is full.
    """
    check_output(path, force=force)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as whole:
            os.fsync(whole.fileno())
        # Somebody may have made it while we worked.
        if path.exists() and not force:
            raise UnwritableFile(_exists(path))
        temporary.replace(path)
    except OSError as error:
        raise UnwritableFile(explain_failure(error.errno, error.strerror, path)) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_output(path: Path, *, force: bool) -> None:
    """Raise UnwritableFile for what can be known before any work is done."""
    if path.is_dir():
        raise UnwritableFile(f"the output {path} is a folder: give a file name")
    if not path.parent.is_dir():
        raise UnwritableFile(f"the output's folder {path.parent} does not exist: create it first")
    if path.exists() and not force:
        raise UnwritableFile(_exists(path))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UnwritableFile(f"the output's folder {path.parent} cannot be written to")


def _exists(path: Path) -> str:
    return f"the output {path} exists already: choose another name, or overwrite it with --force"


def explain_failure(code: int | None, reason: str | None, path: Path) -> str:
    """One sentence for a write to `path` that failed with an errno code or another reason."""
    if code == errno.ENOSPC:
        return f"the disk of {path.parent} is full: nothing was written; free some space"
    if code == errno.EDQUOT:
        return f"your quota on the disk of {path.parent} is used up: nothing was written"
    if code == errno.EFBIG:
        return f"{path} grew beyond the file size that is allowed here: nothing was written"
    return f"{path} cannot be written ({reason or 'unknown reason'}): nothing was written"
