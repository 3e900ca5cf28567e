"""Long jobs: memory must not grow with the number of frames."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from clips import Clip, write_clip
from fake_server import Behavior, FakeServer
from frameswap import FaceSwapper, SwapOptions
from frameswap.encoders import Encoding
from frameswap.swap_job import swap_video
from frameswap.video import VideoReader
from test_swapper import PHOTO

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_memory_of_a_10000_frame_job_stays_flat(tmp_path: Path, transport: str) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=10_000, width=320, height=240))
    process = psutil.Process()
    curve: list[float] = []

    def note(done: int) -> None:
        if done % 500 == 0:
            curve.append(process.memory_info().rss / 1e6)

    with (
        FakeServer(Behavior()) as server,
        FaceSwapper(server.address, transport=transport) as swapper,
        VideoReader(clip) as reader,
    ):
        swap_video(
            swapper, reader, [swapper.encode_source(PHOTO)], SwapOptions(), tmp_path / "out.mp4",
            force=False, encoding=Encoding("x264", 40, "ultrafast"), audio="copy",
            on_notes=lambda notes: None, on_frame=note,
        )  # fmt: skip
    print("MB after every 500 frames:", " ".join(f"{value:.0f}" for value in curve))
    # Over the second half. FFmpeg's muxer keeps an index of some 60 bytes a packet, audio and
    # video: a megabyte or two; the allocator needs the first half to settle. One frame kept each
    # time would be 575 MB.
    assert max(curve[10:]) - min(curve[10:]) < 8
