"""Files that other machines read while they are written: always whole, never half."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def publish_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, nothing between.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            # The rename must not reach the disk, or the NFS server, before the bytes do.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
