"""What becomes of a test that hangs: it fails, and those behind it are run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

HANGING = """
import ctypes

def test_that_waits_inside_a_library_and_keeps_the_interpreter():
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def test_behind_it():
    pass
"""


def test_one_that_no_signal_reaches_is_ended_and_the_others_are_run(tmp_path: Path) -> None:
    """With the project's settings, but for its two times."""
    (tmp_path / "test_hanging.py").write_text(HANGING)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-n", "1",
            "-o", "timeout=1", "-o", "faulthandler_timeout=5", "--rootdir", str(tmp_path),
            "-p", "no:cacheprovider", str(tmp_path),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    crashed = "worker 'gw0' crashed while running 'test_hanging.py::test_that_waits_inside_a_lib"
    assert crashed in done.stdout
    assert "1 failed, 1 passed" in done.stdout
