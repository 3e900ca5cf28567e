"""Long jobs: nothing may grow with the number of frames."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from clips import Clip, write_clip
from fake_server import regions
from frameswap import Encoding, FaceSwapper, SwapOptions
from frameswap.swap_job import swap_video
from frameswap.video import VideoReader
from test_swapper import PHOTO

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

FRAMES = 100_000

SERVER = """
import sys
from fake_server import FakeServer
with FakeServer() as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def server_elsewhere() -> Iterator[str]:
    """The address of a fake server in a process of its own: it notes what it was asked."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=Path(__file__).parent, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_job_of_100000_frames_leaks_nothing(tmp_path: Path, transport: str) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=FRAMES, width=128, height=96))
    process = psutil.Process()
    memory: list[float] = []
    files: list[int] = []
    shared: list[int] = []

    def note(done: int) -> None:
        if done % 5000 == 0:
            memory.append(process.memory_info().rss / 1e6)
            files.append(len(os.listdir("/proc/self/fd")))
            shared.append(regions(address))

    with (
        server_elsewhere() as address,
        FaceSwapper(address, transport=transport) as swapper,
        VideoReader(clip) as reader,
    ):
        tally = swap_video(
            swapper, reader, [swapper.encode_source(PHOTO)], SwapOptions(), tmp_path / "out.mp4",
            force=False, encoding=Encoding(quality=40, preset="ultrafast"), audio="auto",
            on_notes=lambda notes: None, on_frame=note,
        )  # fmt: skip
    for name, values in (("MB", memory), ("files", files), ("regions", shared)):
        print(f"{name} after every 5000 frames:", " ".join(f"{value:.0f}" for value in values))
    assert tally.frames == FRAMES
    # Over the second half: the allocator needs the first to settle. The journal keeps a row a
    # segment. One frame kept each time would be 920 MB, a hundred bytes 5.
    assert max(memory[10:]) - min(memory[10:]) < 4
    assert max(files) == min(files)
    assert max(shared) == min(shared)
    assert (min(shared) > 0) == (transport == "system")
    assert not regions(address)
