"""A lease on a folder: one process of all machines that see it works there.

On one machine the kernel's lock says who lives, and lets go of it however a process ends. Where
locks do not reach another machine, its heartbeat does: the file's time, by the clock of the file
system that both see.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from frameswap.errors import UnwritableFile

__all__ = ["Lease"]

HEARTBEAT_S: Final = 5.0
EXPIRES_S: Final = 30.0
_NAME: Final = "lease"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Lease:
    """Take the lease of a folder, and keep it up until `release`.

    Args:
        folder: exists already.
        of: what is worked on, for the sentence.

    Raises:
        UnwritableFile: another has it.
    """

    def __init__(self, folder: Path, *, of: Path) -> None:
        self._path = folder / _NAME
        self._of = of
        self._token = f"{socket.gethostname()} {secrets.token_hex(8)}"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A file without a name is that of a job which has just ended and tidied up.
            is_taken = not _lock(self._file) or not os.fstat(self._file).st_nlink
            if is_taken or self._is_kept_up():
                raise UnwritableFile(
                    f"another job is writing {of} now: wait for it, or choose another name"
                )
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, self._token.encode(), 0)
        except BaseException:
            os.close(self._file)
            raise
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="frameswap lease", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise UnwritableFile where another has taken it: this process was away for too long."""
        try:
            if self._path.read_text() == self._token:
                return
        except OSError:
            pass
        raise UnwritableFile(
            f"another job has taken over {self._of}, because this one stood still for too long"
        )

    def release(self) -> None:
        self._ended.set()
        self._heart.join()
        with suppress(OSError):
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def _is_kept_up(self) -> bool:
        """Whether a process of another machine, whose locks are not seen here, has it."""
        host = os.pread(self._file, 1000, 0).decode(errors="replace").partition(" ")[0]
        if host in ("", socket.gethostname()):
            return False
        probe = self._path.with_name("clock")
        probe.touch()
        age_s = probe.stat().st_mtime - os.fstat(self._file).st_mtime
        probe.unlink()
        return age_s < EXPIRES_S

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(self._file)


def is_held(folder: Path) -> bool:
    """Whether somebody of this machine has the lease of a folder."""
    try:
        file = os.open(folder / _NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _lock(file)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system without locks: the heartbeat alone is left.
        if error.errno not in _NO_LOCKS:
            raise
    return True
