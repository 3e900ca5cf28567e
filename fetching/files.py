"""Files and folders that others read while they are written: always whole, never half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def publish_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, nothing between.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path.parent)
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


def temporary_path(folder: Path) -> Path:
    """A name in `folder` that nobody else uses, for a file on its way to its own name."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def data_sha256(data: bytes) -> str:
    """SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of the file at `path`, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:
            # Another process was first: a rename onto a filled folder fails, and its is as good.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
