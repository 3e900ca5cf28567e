"""Shared-memory regions that belong to one process and vanish with it.

A region is a file in /dev/shm with an unguessable name and mode 0600. Its maker keeps it open and
locked (flock), and the kernel drops the lock when the maker ends, however it ends. So a file that
can be locked belongs to nobody any more: the next start removes it, and only such files. Process
ids would not do: containers that share /dev/shm do not share them. The name tells which server was
to map the region: that one has to forget it first, and no other can.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import mmap
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from frameswap.connection import Connection
from frameswap.errors import FrameswapError, TransportUnavailable

__all__ = ["Region", "SystemRegion", "reclaim_leftovers"]

FOLDER: Final = Path("/dev/shm")
PREFIX: Final = "frameswap-client-"
RELEASE_S: Final = 2.0
"""How long a server may take to let go of a region whose answer it has sent."""


class Region(Protocol):
    """Memory that client and server both see.

    name: under which the server knows it. host: (size,) uint8, where the client reads and writes.
    """

    name: str
    host: NDArray[np.uint8]

    def register(self, connection: Connection) -> None:
        """Make the server map it; raises FrameswapError when it refuses."""

    def unregister(self, connection: Connection) -> None:
        """Make the server forget it; raises FrameswapError when it does not answer."""

    def push(self, start: int, stop: int) -> None:
        """Bring host[start:stop] to where the server reads."""

    def pull(self, start: int, stop: int) -> None:
        """Bring what the server wrote to host[start:stop]."""

    def close(self) -> None:
        """Give the memory back to the system."""


def name_region(server: str) -> str:
    """A new name for a region that a server is to map; `server_of` reads the address in it."""
    encoded = base64.urlsafe_b64encode(server.encode()).decode().rstrip("=")
    return f"{PREFIX}{encoded}{'.' if encoded else ''}{secrets.token_hex(16)}"


def server_of(name: str) -> str:
    """The address that a region's name tells; empty where it tells none."""
    encoded, dot, _ = name.removeprefix(PREFIX).rpartition(".")
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode() if dot else ""
    except ValueError:
        return ""


class LockedFile:
    """A file in /dev/shm, ours as long as this process lives.

    Args:
        server: the address of the server that is to map it.

    Raises:
        TransportUnavailable: there is no /dev/shm, or it has not `size` bytes left.
    """

    def __init__(self, size: int, server: str = "") -> None:
        while True:
            self.name = name_region(server)
            self.path = FOLDER / self.name
            try:
                self.descriptor = os.open(
                    self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600
                )
            except OSError as error:
                raise TransportUnavailable(
                    f"shared memory cannot be made in {FOLDER} ({error.strerror}): use the "
                    f"transport grpc"
                ) from error
            if self._lock():
                break
            os.close(self.descriptor)
        if size:
            self._reserve(size)

    def _lock(self) -> bool:
        """Lock it; False when another start took it for a leftover before we could."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return os.fstat(self.descriptor).st_nlink > 0

    def _reserve(self, size: int) -> None:
        try:
            # ftruncate alone would let a write into a full /dev/shm end the process by SIGBUS.
            os.posix_fallocate(self.descriptor, 0, size)
        except OSError as error:
            self.close()
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            free = os.statvfs(FOLDER)
            raise TransportUnavailable(
                f"shared memory is full: {size / 1e6:.0f} MB are needed and "
                f"{free.f_bavail * free.f_frsize / 1e6:.0f} MB are free in {FOLDER}; use a "
                f"smaller --window, a larger {FOLDER}, or the transport grpc"
            ) from error

    def close(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self.descriptor)


class SystemRegion:
    """POSIX shared memory: both sides read and write the same pages.

    Args:
        size: bytes.
        server: the address of the server that is to map it.

    Raises:
        TransportUnavailable: it cannot be made.
    """

    def __init__(self, size: int, *, server: str = "") -> None:
        self._file = LockedFile(size, server)
        self.name = self._file.name
        self._mapping = mmap.mmap(self._file.descriptor, size)
        self.host: NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8)

    def register(self, connection: Connection) -> None:
        connection.call(
            "SystemSharedMemoryRegister",
            service_pb2.SystemSharedMemoryRegisterRequest(
                name=self.name, key=f"/{self.name}", byte_size=self.host.size
            ),
            doing="while registering shared memory",
        )

    def unregister(self, connection: Connection) -> None:
        unregister_system(self.name, connection)

    def push(self, start: int, stop: int) -> None:
        """The server sees the same pages."""

    def pull(self, start: int, stop: int) -> None:
        """The client sees the same pages."""

    def close(self) -> None:
        self._file.close()
        self.host = np.empty(0, np.uint8)
        # A caller may still hold a view: the pages then go when the view does.
        with suppress(BufferError):
            self._mapping.close()


def unregister_system(name: str, connection: Connection) -> None:
    connection.call(
        "SystemSharedMemoryUnregister",
        service_pb2.SystemSharedMemoryUnregisterRequest(name=name),
        doing="while giving shared memory back",
    )


def says_in_use(error: FrameswapError) -> bool:
    """Tell whether a server keeps a region because it still serves a request from it."""
    return "currently in use" in str(error)


def unregister_when_idle(
    region: Region, connection: Connection, *, patience_s: float = RELEASE_S
) -> None:
    """Make the server forget a region, also when its last answer has only just come.

    Triton lets go of a region a moment after it has sent the answer, and refuses until then.

    Raises:
        FrameswapError: it refuses for longer than `patience_s`, or does not answer.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            region.unregister(connection)
        except FrameswapError as error:
            if not says_in_use(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def reclaim_leftovers(
    folder: Path = FOLDER, *, forget: Callable[[str], bool] = lambda _: True
) -> list[str]:
    """Remove what killed clients of this user left behind.

    Args:
        forget: makes the server forget a region; False where it still works on it. The file then
            stays, so that a later start finds the name again.

    Returns:
        The names that were removed.
    """
    removed = []
    for path in folder.glob(PREFIX + "*"):
        try:
            # Not followed, so that a planted link leads nowhere.
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its maker may have closed it and another start removed it since it was opened.
            if os.fstat(descriptor).st_nlink > 0 and forget(path.name):
                path.unlink()
                removed.append(path.name)
        except (BlockingIOError, FileNotFoundError):
            continue  # its maker lives, or another start was faster
        finally:
            os.close(descriptor)
    return removed
