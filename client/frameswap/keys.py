"""The key that shared memory takes at a server which listens on TCP: a file of one user.

A server of this machine that listens on TCP is reached by every user of the machine; the frames of
one of them are in shared memory that the server maps. So registering memory takes a key there,
which the server's launcher leaves in a file that only its own user reads.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["SHARED_MEMORY_KEY", "key_path", "read_key", "write_key"]

SHARED_MEMORY_KEY: Final = "frameswap-shared-memory-key"
"""Name of the restriction; gRPC's header is this behind `triton-grpc-protocol-`."""


def key_path(port: int) -> Path:
    """Where the key of the server lies that listens on a port of this machine."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        folder = Path(runtime) / "frameswap"
    else:
        folder = Path(tempfile.gettempdir()) / f"frameswap-{os.geteuid()}"
    return folder / f"shared-memory-{port}.key"


def write_key(port: int, key: str) -> Path:
    """Leave a key for the clients of this user.

    Raises:
        OSError: the folder cannot be made, or is not this user's alone.
    """
    path = key_path(port)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(path.parent):
        raise PermissionError(f"{path.parent} is not this user's alone")
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(key)
    return path


def read_key(port: int) -> str:
    """The key of the server on a port; empty where this user has none."""
    path = key_path(port)
    try:
        if not (_is_private(path.parent) and _is_private(path)):
            return ""
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _is_private(path: Path) -> bool:
    """Whether a file or folder is this user's, and no other can read or write it."""
    status = path.lstat()
    is_plain = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    return is_plain and status.st_uid == os.geteuid() and not status.st_mode & 0o077
