"""Clients that are killed while the real server works on their shared memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from frameswap import FaceSwapper, ServerFault, Source
from frameswap.shared_memory import FOLDER, PREFIX, unregister_when_idle

from bench.copy_repository import write_copy_repository
from server.launcher import EmbeddedServer
from tests.server.test_launcher import model_processes, wait_for

pytestmark = pytest.mark.e2e

COMMITTED = Path(__file__).resolve().parents[2] / "model_repository"
SOURCE = Source(
    np.ones(512, np.float32), "identity", "inswapper_128", np.zeros((0, 15), np.float32)
)

# Sends four frames of 1.4 MB and never reads an answer.
KILLED = """
import sys, time
import numpy as np
from frameswap import FaceSwapper, Source
source = Source(np.ones(512, np.float32), "identity", "inswapper_128", np.zeros((0, 15)))
swapper = FaceSwapper(sys.argv[1], transport="system", in_flight=4)
print("connected", flush=True)
sys.stdin.readline()
frames = [np.full((1080, 1280), value, np.uint8) for value in range(4)]
for _ in swapper.stream(frames, source):
    pass
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("copies")
    write_copy_repository(folder, COMMITTED)
    with EmbeddedServer(folder, models=["swap_faces_i420"], one_process=False) as running:
        yield running


def client_regions() -> set[str]:
    return {path.name for path in FOLDER.glob(PREFIX + "*")}


def registered(client: triton_grpc.InferenceServerClient) -> set[str]:
    return set(client.get_system_shared_memory_status().regions)


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 96, 64), np.uint8)


def executed(client: triton_grpc.InferenceServerClient, model: str) -> int:
    (statistics,) = client.get_inference_statistics(model).model_stats
    return int(statistics.inference_stats.success.count)


def test_a_client_that_is_killed_with_frames_in_flight_harms_nobody(
    server: EmbeddedServer,
) -> None:
    pid = server.pid
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    before = registered(client)
    (blender,) = [
        process
        for process in model_processes(server)
        if process.cmdline()[-2].startswith("face_blender_i420_")
    ]
    sent = frames(24)
    with FaceSwapper(server.grpc_url, transport="system", in_flight=3) as other:
        # This one has been there before, is there meanwhile, and goes on afterwards.
        swapped = [each.frame.copy() for each in other.stream(sent, SOURCE)]
        np.testing.assert_array_equal(swapped, sent)
        ours = registered(client) - before
        done = executed(client, "face_swapper")
        killed = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.grpc_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert killed.stdin is not None
        assert killed.stdout is not None
        assert killed.stdout.readline() == "connected\n"
        # The last step stands still: all four frames are in the server's hands when it dies.
        psutil.Process(blender.pid).suspend()
        try:
            killed.stdin.write("go\n")
            killed.stdin.flush()
            wait_for(lambda: executed(client, "face_swapper") == done + 4)
            theirs = registered(client) - before - ours
            assert len(theirs) == 4
            killed.kill()
            killed.wait()
            # The next client takes the names back while the server still works on the memory.
            with FaceSwapper(server.grpc_url, transport="system") as following:
                assert following.transport == "system"
                # The server will not let go of them now, so their names must not be lost.
                assert registered(client) & theirs == theirs
                assert client_regions() & theirs == theirs
        finally:
            resume = threading.Timer(0.5, blender.resume)
            resume.start()
        swapped = [each.frame.copy() for each in other.stream(sent, SOURCE)]
        resume.join()
        np.testing.assert_array_equal(swapped, sent)
    killed.stdin.close()
    killed.stdout.close()
    # Whoever comes when the server has answered them all takes back what is still registered.
    with FaceSwapper(server.grpc_url, transport="system") as last:
        swapped = [each.frame.copy() for each in last.stream(sent, SOURCE)]
        np.testing.assert_array_equal(swapped, sent)
    assert registered(client) == before
    assert client_regions() & theirs == set()
    assert server.is_running
    assert server.pid == pid
    client.close()


def test_a_client_that_leaves_as_its_last_answer_comes_leaves_nothing_registered(
    server: EmbeddedServer,
) -> None:
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    before = registered(client)
    # Triton still holds a region for a moment after the answer: one try would be refused at times.
    for sent in frames(20):
        with FaceSwapper(server.grpc_url, transport="system", in_flight=1) as swapper:
            np.testing.assert_array_equal(swapper.swap(sent, SOURCE).frame, sent)
        assert registered(client) == before
    client.close()


class Held:
    """A region that the server lets go of at the third request, with its real words."""

    name = "held"

    def __init__(self, words: str) -> None:
        self.asked = 0
        self.words = words

    def unregister(self, connection: object) -> None:
        self.asked += 1
        if self.asked < 3:
            raise ServerFault(self.words)


IN_USE = "Cannot unregister shared memory region 'held', it is currently in use."


def test_a_region_that_is_held_for_a_moment_is_asked_for_again() -> None:
    region = Held(IN_USE)
    unregister_when_idle(region, None)  # type: ignore[arg-type]
    assert region.asked == 3


@pytest.mark.parametrize(("words", "patience_s"), [(IN_USE, 0.0), ("the server is gone", 2.0)])
def test_a_server_that_goes_on_refusing_is_not_asked_for_ever(
    words: str, patience_s: float
) -> None:
    with pytest.raises(ServerFault, match=words):
        unregister_when_idle(Held(words), None, patience_s=patience_s)  # type: ignore[arg-type]
