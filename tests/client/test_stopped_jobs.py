"""Jobs that end early leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from clips import Clip, write_clip
from commands import arguments
from fake_server import FakeServer, regions


def test_a_fault_in_mid_job_leaves_nothing_behind(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    def fail(value: int, context: grpc.ServicerContext) -> None:
        if server.requests > 5:
            context.abort(grpc.StatusCode.INTERNAL, "CUDA error: out of memory")

    server.behavior.fail = fail
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "CUDA error: out of memory" in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_a_stopped_job_without_a_whole_segment_leaves_nothing_behind(
    server: FakeServer, photo: Path, tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=200, audio=None))
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    command = [sys.executable, "-m", "frameswap",
               *map(str, arguments(photo, clip, tmp_path / "out.mp4", server)),
               "--window", "2"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert any(".part" in path.name for path in tmp_path.iterdir())
            if len(numbers) > 1:
                # So that the first Ctrl-C has frames to wait for when the second one comes.
                server.behavior.goes_on.clear()
                time.sleep(0.5)
            for number in numbers:
                job.send_signal(number)
                time.sleep(0.5)
            _, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert job.returncode == 128 + numbers[0]
    assert err == ("frameswap: stopped\n" if numbers[0] == signal.SIGINT else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


def test_a_job_can_be_stopped_while_its_server_hangs(
    server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=200, audio=None))
    command = [sys.executable, "-m", "frameswap",
               *map(str, arguments(photo, clip, tmp_path / "out.mp4", server)),
               "--transport", "system", "--window", "8"]  # fmt: skip
    server.behavior.fail = lambda value, context: time.sleep(0.05)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        try:
            deadline = time.monotonic() + 30
            while server.requests < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert regions(server.address)
            server.behavior.goes_on.clear()
            # Until what was under way is answered, and what came after it hangs.
            time.sleep(0.5)
            job.send_signal(signal.SIGINT)
            # Five seconds for what is under way, five for the first goodbye: not sixty, and not
            # eight times that.
            _, err = job.communicate(timeout=30)
        finally:
            job.kill()
    assert (job.returncode, err) == (130, "frameswap: stopped\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]
    assert not regions(server.address)
