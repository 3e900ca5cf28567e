"""Long jobs: nothing may grow with the number of frames."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from clips import Clip, write_clip
from fake_server import Behavior, FakeServer
from frameswap import Encoding, FaceSwapper, SwapOptions
from frameswap.shared_memory import FOLDER, PREFIX
from frameswap.swap_job import swap_video
from frameswap.video import VideoReader
from test_swapper import PHOTO

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

FRAMES = 100_000


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_job_of_100000_frames_leaks_nothing(tmp_path: Path, transport: str) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=FRAMES, width=128, height=96))
    process = psutil.Process()
    regions = set(FOLDER.glob(PREFIX + "*"))
    memory: list[float] = []
    files: list[int] = []
    shared: list[int] = []

    def note(done: int) -> None:
        if done % 5000 == 0:
            memory.append(process.memory_info().rss / 1e6)
            files.append(len(os.listdir("/proc/self/fd")))
            shared.append(len(set(FOLDER.glob(PREFIX + "*")) - regions))

    with (
        FakeServer(Behavior()) as server,
        FaceSwapper(server.address, transport=transport) as swapper,
        VideoReader(clip) as reader,
    ):
        tally = swap_video(
            swapper, reader, [swapper.encode_source(PHOTO)], SwapOptions(), tmp_path / "out.mp4",
            force=False, encoding=Encoding(quality=40, preset="ultrafast"), audio="auto",
            on_notes=lambda notes: None, on_frame=note,
        )  # fmt: skip
    print("MB after every 5000 frames:", " ".join(f"{value:.0f}" for value in memory))
    assert tally.frames == FRAMES
    # Over the second half. FFmpeg's reader keeps an index of some 60 bytes a packet, and the
    # journal a row a segment; the allocator needs the first half to settle. One frame kept each
    # time would be 920 MB.
    assert max(memory[10:]) - min(memory[10:]) < 16
    assert max(files) - min(files) <= 2
    assert max(shared) == shared[0]
    assert not set(FOLDER.glob(PREFIX + "*")) - regions
