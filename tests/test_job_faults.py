"""Jobs whose server, network or own process fails, beside a run that nothing disturbed.

The real server on the CPU, whole command lines. Each output has, frame for frame and bit for bit,
what the undisturbed run made, and the whole sound.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from frameswap.journal import job_folder
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path
from server.launcher import EmbeddedServer
from tests.conftest import made_once
from tests.small_disk import small_disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 60
SEGMENT = 8
QUALITY = 4
"""So that what is written is many pages of a disk."""
MODELS = ["find_faces_i420", "swap_found_faces_i420", "encode_source_bgr"]


@dataclass(frozen=True)
class Reference:
    clip: Path
    output: Path


class Proxy:
    """A TCP proxy on loopback that can drop, delay and truncate what goes through it."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = 0.0
        self.truncates_after: int | None = None
        self.passed = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join()

    def drop(self) -> None:
        """Cut every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                ended = threading.Barrier(2, action=lambda pair=(near, far): _close(pair))
                for one, other in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pump, args=(one, other, ended))
                    self._threads.append(thread)
                    thread.start()

    def _pump(
        self, one: socket.socket, other: socket.socket, ended: threading.Barrier
    ) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if self.delay_s:
                    time.sleep(self.delay_s)
                self.passed += len(data)
                if self.truncates_after is not None and self.passed > self.truncates_after:
                    self.truncates_after = None
                    other.sendall(data[: len(data) // 2])
                    self.drop()
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ended.wait()


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        end.close()


def command(target: Path, output: Path, server: str, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "frameswap", "swap", "--source", str(photo_path("newton")),
        "--target", str(target), "--output", str(output), "--server", server,
        "--segment-frames", str(SEGMENT), "--quality", str(QUALITY), "--progress", "json",
        *options,
    ]  # fmt: skip


def start(words: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def end(job: subprocess.Popen[str], timeout_s: float = 300) -> tuple[int, str]:
    try:
        _, err = job.communicate(timeout=timeout_s)
    finally:
        job.kill()
    return job.returncode, err


def segments(output: Path) -> int:
    return len(list(job_folder(output).glob("*.segment")))


def wait_for_segments(job: subprocess.Popen[str], output: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while segments(output) < count and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert job.poll() is None, job.communicate()
    assert segments(output) >= count


def disturbed(
    reference: Reference, output: Path, server: str, disturb: Callable[[], None], *options: str
) -> None:
    """Run a job, disturb it after two segments, and compare what comes out."""
    job = start(command(reference.clip, output, server, *options))
    wait_for_segments(job, output, 2)
    disturb()
    code, err = end(job)
    assert code == 0, err
    assert output.read_bytes() == reference.output.read_bytes()
    assert not job_folder(output).exists()


@pytest.fixture(scope="module")
def reference(real_repository: Path, run_folder: Path) -> Reference:
    def make(folder: Path) -> None:
        clip = clip_of("gauss", width=320, height=180, frames=FRAMES)
        write_clip(folder / "in.mp4", clip, audio=True)
        with EmbeddedServer(real_repository, models=MODELS) as server:
            job = start(command(folder / "in.mp4", folder / "out.mp4", server.grpc_url))
            code, err = end(job)
        assert code == 0, err

    folder = made_once(run_folder / "undisturbed", make)
    return Reference(folder / "in.mp4", folder / "out.mp4")


@pytest.fixture(scope="module")
def server(real_repository: Path) -> Iterator[EmbeddedServer]:
    """For the tests that do it no harm."""
    with serve(real_repository, free_port()) as running:
        yield running


def serve(repository: Path, port: int = 0) -> EmbeddedServer:
    return EmbeddedServer(repository, models=MODELS, **({"grpc_port": port} if port else {}))


def port_of(server: EmbeddedServer) -> int:
    return int(server.grpc_url.rpartition(":")[2])


def test_two_runs_that_nothing_disturbs_are_the_same(
    reference: Reference, real_repository: Path, tmp_path: Path
) -> None:
    with serve(real_repository) as server:
        disturbed(reference, tmp_path / "out.mp4", server.grpc_url, lambda: None)


def test_a_server_that_is_killed_and_started_again(
    reference: Reference, real_repository: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(serve(real_repository, free_port()))

        def kill_and_start_again() -> None:
            port = port_of(first)
            os.kill(first.pid, signal.SIGKILL)
            first.stop()
            stack.enter_context(serve(real_repository, port))

        disturbed(reference, tmp_path / "out.mp4", first.grpc_url, kill_and_start_again)


def test_a_server_that_stands_still_for_20_seconds(
    reference: Reference, real_repository: Path, tmp_path: Path
) -> None:
    with serve(real_repository) as server:

        def stop_for_a_while() -> None:
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(20)
            os.kill(server.pid, signal.SIGCONT)

        disturbed(reference, tmp_path / "out.mp4", server.grpc_url, stop_for_a_while)


def test_one_of_two_servers_that_is_killed(
    reference: Reference, real_repository: Path, tmp_path: Path
) -> None:
    with serve(real_repository) as a, serve(real_repository) as b:
        disturbed(
            reference, tmp_path / "out.mp4", f"{a.grpc_url},{b.grpc_url}",
            lambda: os.kill(a.pid, signal.SIGKILL),
        )  # fmt: skip


def test_a_neighbour_that_unregisters_all_shared_memory(
    reference: Reference, real_repository: Path, tmp_path: Path
) -> None:
    """As NVIDIA's examples do at their start."""
    with serve(real_repository) as server, InferenceServerClient(server.grpc_url) as client:
        taken = []

        def unregister_everything() -> None:
            for _ in range(100):
                before = set(client.get_system_shared_memory_status().regions)
                # It says which of them are in use just then, and keeps these.
                with suppress(InferenceServerException):
                    client.unregister_system_shared_memory()
                taken.append(before - set(client.get_system_shared_memory_status().regions))
                time.sleep(0.02)

        disturbed(
            reference, tmp_path / "out.mp4", server.grpc_url, unregister_everything,
            "--transport", "system",
        )  # fmt: skip
    assert sum(map(bool, taken)) >= 3


@pytest.mark.parametrize("trouble", ["drops", "delays", "truncates"])
def test_a_network_that_fails(
    reference: Reference, server: EmbeddedServer, tmp_path: Path, trouble: str
) -> None:
    with Proxy(port_of(server)) as proxy:

        def fail() -> None:
            for _ in range(3):
                if trouble == "drops":
                    proxy.drop()
                elif trouble == "truncates":
                    proxy.truncates_after = proxy.passed + 100_000
                else:
                    proxy.delay_s = 0.02
                time.sleep(0.5)

        disturbed(
            reference, tmp_path / "out.mp4", proxy.address, fail, "--transport", "grpc"
        )


def test_a_client_that_is_killed_at_ten_moments_and_started_again_each_time(
    reference: Reference, server: EmbeddedServer, tmp_path: Path
) -> None:
    moments = random.Random(14)
    output = tmp_path / "out.mp4"
    words = command(reference.clip, output, server.grpc_url)
    killed = 0
    # How many end before they are killed depends on the machine: bounded, not counted.
    for _ in range(60):
        if killed == 10:
            break
        job = start(words)
        time.sleep(moments.uniform(0.5, 1.5))
        killed += job.poll() is None
        job.kill()
        job.communicate()
        if output.exists():
            # It was done just before it was killed: an output is there whole or not at all.
            assert output.read_bytes() == reference.output.read_bytes()
            output.unlink()
    assert killed == 10
    code, err = end(start(words))
    assert code == 0, err
    assert output.read_bytes() == reference.output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


def test_a_disk_that_fills_up(
    reference: Reference, server: EmbeddedServer, tmp_path: Path
) -> None:
    """Among the segments, and when they are joined; another place of each job's writing is tried
    in `tests/client/test_full_disk.py`."""
    (tmp_path / "disk").mkdir()
    size, last = reference.output.stat().st_size, -(-FRAMES // SEGMENT)
    with small_disk(tmp_path / "disk", mebibytes=16) as disk:
        output = disk.folder / "out.mp4"
        words = command(reference.clip, output, server.grpc_url)
        done = [0]
        while done[-1] < last:
            # Room for the sources and a segment or some, and never for the output of them all.
            disk.fill(leaving=int(0.9 * size))
            code, err = end(start(words))
            assert code == 1
            assert "Traceback" not in err
            assert f"the disk of {disk.folder} is full" in err.splitlines()[-1]
            assert disk.names() == [job_folder(output).name]
            journal = (job_folder(output) / "journal.jsonl").read_text()
            done.append(len(journal.splitlines()) - 1)
            assert done[-2] < done[-1], "each goes on behind the one before"
        assert len(done) > 2
        disk.empty()
        code, err = end(start([*words, "--resume"]))
        assert code == 0, err
        assert f"going on behind frame {FRAMES}" in err
        assert output.read_bytes() == reference.output.read_bytes()
        assert disk.names() == ["out.mp4"]


def test_two_jobs_at_once(reference: Reference, server: EmbeddedServer, tmp_path: Path) -> None:
    jobs = [
        start(command(reference.clip, tmp_path / name, server.grpc_url))
        for name in ("a.mp4", "b.mp4", "a.mp4")
    ]
    codes = [end(job) for job in jobs]
    assert sorted(code for code, _ in codes) == [0, 0, 1], codes
    assert any("another job is writing" in err for _, err in codes)
    for name in ("a.mp4", "b.mp4"):
        assert (tmp_path / name).read_bytes() == reference.output.read_bytes()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
