"""Names of a server's regions in /dev/shm, and removing those whose owner is gone.

A region's name says who made it: the process-id namespace, the process and its start time. A
process id alone is used again by the system; the namespace keeps containers that share /dev/shm
from taking each other's live regions for dead ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/dev/shm")
_NAME: Final = re.compile(r"^frameswap_server_(\d+)_(\d+)_(\d+)_[0-9a-f]+_")


def new_prefix() -> str:
    """Return a name prefix for the regions of one server of this process."""
    pid = os.getpid()
    return f"frameswap_server_{_namespace()}_{pid}_{_start_time(pid)}_{secrets.token_hex(4)}_"


def remove_leftovers() -> list[str]:
    """Remove regions that servers of this user left whose process is gone; return their names."""
    removed = []
    for path in FOLDER.iterdir():
        match = _NAME.match(path.name)
        if match is None:
            continue
        namespace, pid, started = (int(group) for group in match.groups())
        try:
            if namespace != _namespace() or path.stat().st_uid != os.getuid():
                continue
            if _start_time(pid) != started:
                path.unlink()
                removed.append(path.name)
        except FileNotFoundError:
            continue
    return removed


def bytes_without(prefix: str, users: Iterable[str]) -> int:
    """Return what regions of a prefix take that no process is using.

    Args:
        users: command lines of the processes that live; each names the region that it uses.
    """
    found, named = 0, " ".join(users)
    for path in FOLDER.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            found += 0 if path.name in named else path.stat().st_blocks * 512
    return found


def free_bytes() -> int:
    """Return how much more /dev/shm can hold."""
    status = os.statvfs(FOLDER)
    return status.f_bavail * status.f_frsize


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot, None when there is no such process.

    Source: proc(5), field 22 of /proc/PID/stat; the name in field 2 may hold blanks and brackets.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])
