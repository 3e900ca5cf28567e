"""The folder of a gateway: uploads, results, its table, its key. No name in it is a user's."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from frameswap import BadOptions

__all__ = ["Folder", "new_key"]

_RESERVE_BYTES: Final = 256 << 20
"""Left free on the disk: for the table, and for jobs that are at their end."""


def new_key() -> str:
    """The name of an upload or of a job on the disk."""
    return secrets.token_hex(16)


class Folder:
    """Owned by one gateway at a time.

    Raises:
        BadOptions: it cannot be written, or another gateway works in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for folder in (root, root / "assets", root / "jobs", root / "previews"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.session_key = self._read_key()
        except OSError as error:
            reason = f"{root} cannot be used: {error.strerror}; --folder names another"
            raise BadOptions(reason) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise BadOptions(
                f"another gateway works in {root}: stop it, or give this one its own --folder"
            ) from error

    def close(self) -> None:
        os.close(self._lock)

    @property
    def table(self) -> Path:
        return self.root / "gateway.db"

    def asset(self, key: str) -> Path:
        return self.root / "assets" / key

    def job(self, key: str) -> Path:
        return self.root / "jobs" / key

    def preview(self) -> Path:
        """A new name for a picture that is sent and forgotten."""
        return self.root / "previews" / f"{new_key()}.jpg"

    def has_room_for(self, size: int) -> bool:
        return shutil.disk_usage(self.root).free > size + _RESERVE_BYTES

    def received(self, key: str) -> int:
        """How many bytes of an upload are here."""
        try:
            return self.asset(key).stat().st_size
        except FileNotFoundError:
            return 0

    def job_bytes(self, key: str) -> int:
        return sum(path.stat().st_size for path in self.job(key).rglob("*") if path.is_file())

    def remove_asset(self, key: str) -> None:
        self.asset(key).unlink(missing_ok=True)

    def remove_job(self, key: str) -> None:
        shutil.rmtree(self.job(key), ignore_errors=True)

    def remove_unknown(self, known: Collection[str], *, before_s: float) -> None:
        """Remove what belongs to no row, and was not touched lately."""
        for kind in ("assets", "jobs", "previews"):
            for path in (self.root / kind).iterdir():
                if path.name in known or path.lstat().st_mtime > before_s:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _read_key(self) -> bytes:
        path = self.root / "session.key"
        if not path.exists():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, secrets.token_bytes(32))
            os.close(file)
        return path.read_bytes()
