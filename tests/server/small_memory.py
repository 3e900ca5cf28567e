"""A /dev/shm of a few mebibytes, for one program: in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_in_small_memory(code: str, *arguments: str, mebibytes: int) -> str:
    """Run Python code that sees such a /dev/shm; return what it prints."""
    script = f'mount -t tmpfs -o size={mebibytes}m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        [*_unshare(), "sh", "-c", script, "sh", sys.executable, "-c", code, *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@cache
def _unshare() -> tuple[str, ...]:
    """What starts a program in a mount namespace; skips where the system allows none."""
    for words in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        mounts = [*words, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
        if shutil.which("unshare") and not subprocess.run(mounts, capture_output=True).returncode:
            return words
    pytest.skip("no /dev/shm of its own may be mounted here")
