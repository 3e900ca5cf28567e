"""Worker processes: files that were made to do harm, and processes that die."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from frameswap import JobStopped
from frameswap_gateway.bench import Bench
from frameswap_gateway.workers import TaskFailed, WorkerDied, WorkerPool

MOST_PIXELS = 1_000_000


class Probe:
    """One worker that only looks, in a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.pool = WorkerPool(1, servers=None, memory_bytes=2 << 30)

    def look(self, path: Path, **more: Any) -> dict[str, Any]:
        task = self.pool.run(
            "look", path=str(path), photo_pixels=MOST_PIXELS, video_pixels=MOST_PIXELS, **more
        )
        return self.loop.run_until_complete(task)

    def child(self) -> psutil.Process:
        (found,) = (each for each in psutil.Process().children()
                    if "frameswap_gateway.worker" in each.cmdline())  # fmt: skip
        return found

    def refuses(self, path: Path, says: str) -> None:
        with pytest.raises(TaskFailed, match=says) as failure:
            self.look(path, timeout_s=20.0)
        assert failure.value.code == "unreadable-file"


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    opened = Probe()
    yield opened
    opened.loop.run_until_complete(opened.pool.close())
    opened.loop.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import av

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            picture = np.full((48, 64, 3), number * 20, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path.read_bytes()


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return path


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that says it has such a size, whatever its pixels are."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_photo_and_a_video_are_known(probe: Probe, tmp_path: Path, clip: bytes) -> None:
    _, jpeg = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))
    found = probe.look(write(tmp_path, jpeg.tobytes()))
    assert (found["kind"], found["media_type"]) == ("photo", "image/jpeg")
    assert (found["width"], found["height"]) == (40, 30)
    found = probe.look(write(tmp_path, clip))
    assert (found["kind"], found["frames"], found["rate"]) == ("video", 10, 25.0)
    assert (found["width"], found["height"], found["media_type"]) == (64, 48, "video/mp4")


def test_a_picture_that_unpacks_to_gigabytes_is_not_unpacked(probe: Probe, tmp_path: Path) -> None:
    bomb = png_of(60_000, 60_000, zlib.compress(bytes(10_000_000), 9))
    probe.refuses(write(tmp_path, bomb), "60000 x 60000")


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/secret.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>/etc/passwd'
        b"</BaseURL></MPD>",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"GIF89a",
        b"\x00" * 5000,
        b"just some text that is no picture\n" * 50,
        b"%PDF-1.7\n",
        b"MZ\x90\x00",
    ],
    ids=lambda content: str(content[:12]),
)
def test_playlists_scripts_and_other_files_are_refused(
    probe: Probe, tmp_path: Path, content: bytes
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(TaskFailed) as failure:
        probe.look(path, names={str(path): "the file"})
    assert failure.value.code == "unreadable-file"
    # What is told to the user has neither our paths nor what they tried to read.
    assert str(path) not in failure.value.text
    assert "root:" not in failure.value.text


def test_damaged_videos_are_refused_or_read_and_never_hang(
    probe: Probe, tmp_path: Path, clip: bytes
) -> None:
    chance = random.Random(7)
    outcomes = set()
    for _ in range(60):
        # Its index is at its end, so only some are cut off.
        damaged = bytearray(clip[: chance.choice([len(clip), chance.randrange(100, len(clip))])])
        for _ in range(chance.randrange(0, 30)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            outcomes.add(probe.look(write(tmp_path, bytes(damaged)), timeout_s=20.0)["kind"])
        except TaskFailed as failure:
            outcomes.add(failure.code)
    assert outcomes == {"video", "unreadable-file"}


def test_who_only_looks_can_write_no_file_and_has_little_memory(probe: Probe) -> None:
    probe.loop.run_until_complete(probe.pool.warm_up())
    child = probe.child()
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_AS) == (2 << 30, 2 << 30)
    assert child.rlimit(psutil.RLIMIT_NOFILE) == (64, 64)


def test_a_worker_that_dies_is_replaced(probe: Probe, tmp_path: Path, clip: bytes) -> None:
    path = write(tmp_path, clip)
    probe.look(path)
    child = probe.child()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="ended with -9"):
        probe.look(path)
    assert probe.look(path)["kind"] == "video"


def test_a_worker_that_takes_too_long_is_replaced(
    probe: Probe, tmp_path: Path, clip: bytes
) -> None:
    path = write(tmp_path, clip)
    probe.look(path)
    child = probe.child()
    child.suspend()
    with pytest.raises(WorkerDied, match=r"more than 0\.3 s"):
        probe.look(path, timeout_s=0.3)
    assert not child.is_running()
    assert probe.look(path)["kind"] == "video"


def test_a_worker_ends_when_the_gateway_is_gone() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "frameswap_gateway.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    settings = {"servers": None, "memory_bytes": 2 << 30, "may_write": False, "niceness": 0}
    worker.stdin.write(json.dumps(settings) + "\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == '{"number": 0, "done": {}}\n'
    worker.stdin.close()
    assert worker.wait(10) == 0
    worker.stdout.close()


def test_a_word_to_stop_that_comes_before_its_task_is_not_lost() -> None:
    with Bench(None) as bench:
        bench.begin(4, print)
        bench.cancel(5)
        bench.check()
        bench.begin(5, print)
        with pytest.raises(JobStopped):
            bench.check()
        bench.begin(6, print)
        bench.cancel(5)
        bench.check()
