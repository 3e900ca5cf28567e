"""An output that is either whole or not there, and that one job alone writes.

A job writes beside the final name, under a hidden one that is short, made from the final name and
locked as long as the job lives. So a second job with the same output is told at its start; the
kernel lets go of the lock when a job dies, however it dies, and the next job in that folder takes
away what nobody holds any more.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from frameswap.errors import UnwritableFile
from frameswap.file_kinds import is_sequence, is_standard

__all__ = ["check_output", "explain_failure", "hidden_name", "output_file", "ready_output"]

_PREFIX: Final = ".frameswap-"
_LONGEST_SUFFIX: Final = 16
"""Bytes; the longest that is kept, which no format's is."""
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def output_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it when the block ends without an error.

    The temporary name keeps the suffix, because writers choose their format by it. On any error,
    Ctrl-C included, it is removed and `path` stays as it was.

    Raises:
        UnwritableFile: `path` exists and `force` is not given, another job is writing it, its
            folder is missing or closed to us, its name is too long, or the disk is full.
    """
    check_output(path, force=force)
    try:
        temporary, lock = _reserve(path)
    except OSError as error:
        raise UnwritableFile(explain_failure(error.errno, error.strerror, path)) from error
    renamed = False
    try:
        _remove_abandoned(path.parent)
        yield temporary
        with temporary.open("rb") as whole:
            os.fsync(whole.fileno())
        # Somebody who is not one of us may have made it while we worked.
        if path.exists() and not force:
            raise UnwritableFile(_exists(path))
        temporary.replace(path)
        renamed = True
    except OSError as error:
        raise UnwritableFile(explain_failure(error.errno, error.strerror, path)) from error
    finally:
        # After the renaming the hidden name may already be another job's.
        if not renamed:
            with suppress(FileNotFoundError):
                temporary.unlink()
        os.close(lock)


@contextmanager
def ready_output(path: Path, *, force: bool) -> Iterator[Path]:
    """Give the name to write a video to: a temporary one of a file, or the output's own.

    Numbered pictures are written one by one as they are done, and standard output is a pipe: for
    them there is no whole that could be renamed.

    Raises:
        UnwritableFile: as `output_file`, and where the first of the pictures exists.
    """
    if is_standard(path):
        yield path
    elif is_sequence(path):
        check_output(path.with_name(path.name % 1), force=force)
        yield path
    else:
        with output_file(path, force=force) as temporary:
            yield temporary


def hidden_name(path: Path, kind: str) -> Path:
    """The hidden name beside `path` for its temporary file of that kind: the same at each call."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f"{_PREFIX}{digest}.{kind}")


def check_output(path: Path, *, force: bool) -> None:
    """Raise UnwritableFile for what can be known before any work is done."""
    if not path.parent.is_dir():
        raise UnwritableFile(f"the output's folder {path.parent} does not exist: create it first")
    _check_name(path)
    if path.is_dir():
        raise UnwritableFile(f"the output {path} is a folder: give a file name")
    if path.exists() and not force:
        raise UnwritableFile(_exists(path))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UnwritableFile(f"the output's folder {path.parent} cannot be written to")


def _check_name(path: Path) -> None:
    length, most = len(os.fsencode(path.name)), os.pathconf(path.parent, "PC_NAME_MAX")
    if length > most:
        raise UnwritableFile(
            f"the output's name is {length} bytes long and {path.parent} takes {most}: shorten "
            f"{path.name[:24]}..."
        )


def _reserve(path: Path) -> tuple[Path, int]:
    """Make and lock the temporary file of an output; returns its name and the open file."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    temporary = hidden_name(path, f"part{suffix}")
    while True:
        # A link that somebody else put there is not followed.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, 0o666)
        try:
            if _lock(file):
                if _is_named(file, temporary):
                    os.ftruncate(file, 0)
                    return temporary, file
            else:
                raise UnwritableFile(
                    f"another job is writing {path} now: wait for it, or choose another name"
                )
        except OSError as error:
            os.close(file)
            if error.errno not in _NO_LOCKS:
                raise
            # A file system without locks cannot tell who lives, so the name is nobody else's.
            temporary.unlink(missing_ok=True)
            own = hidden_name(path, f"{secrets.token_hex(6)}.part{suffix}")
            return own, os.open(own, flags | os.O_EXCL, 0o666)
        except BaseException:
            os.close(file)
            raise
        # Its maker took it away between our opening and our locking.
        os.close(file)


def _lock(file: int) -> bool:
    """Lock an open file; False when another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(file: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of jobs that died."""
    for path in folder.glob(f"{_PREFIX}*.part*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(file) and _is_named(file, path):
                    path.unlink()
            finally:
                os.close(file)


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
