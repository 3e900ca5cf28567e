"""Long runs: what a short test cannot show. `make soak` runs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 10_000


def memory_mb(process: psutil.Process) -> float:
    """Unique memory of a process and all it started, in MB (shared pages are not counted twice)."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().uss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total / 1e6


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_ten_thousand_frames(
    real_repository: Path, tmp_path: Path
) -> None:
    target, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(target, clip_of("gauss", width=320, height=180, frames=FRAMES), audio=False)
    command = [
        sys.executable, "-m", "frameswap", "swap", "--source", str(photo_path("newton")),
        "--target", str(target), "--output", str(output), "--repository", str(real_repository),
    ]  # fmt: skip
    curve = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        process = psutil.Process(job.pid)
        started = time.monotonic()
        while job.poll() is None:
            curve.append((time.monotonic() - started, memory_mb(process)))
            time.sleep(2)
        summary = job.stdout.read() if job.stdout else ""
    assert job.returncode == 0
    assert f"{FRAMES} frames" in summary
    for seconds, used in curve[:: max(1, len(curve) // 20)]:
        print(f"{seconds:7.0f} s {used:8.0f} MB {'#' * round(used / 20)}")
    # The first fifth warms arenas, pools and x264's look-ahead; the last sample may be mid-exit.
    settled = [used for _, used in curve[len(curve) // 5 : -2]]
    half = len(settled) // 2
    growth = max(settled[half:]) - max(settled[:half])
    # A frame is 86 kB: leaking one in ten would add 43 MB. An arena of the allocator was seen to
    # add 32 MB once.
    assert growth < 40, f"memory grew by {growth:.1f} MB in the second half"
