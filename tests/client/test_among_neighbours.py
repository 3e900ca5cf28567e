"""A job beside what ended others: neighbours that unregister, models that die, servers that go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from frameswap import FaceSwapper
from frameswap.transport import TransportName
from test_against_triton import COMMITTED, SOURCE, frames
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from bench.copy_repository import write_copy_repository
from server import backend_folder
from server.doors import Doors
from server.launcher import EmbeddedServer
from server.local_client import open_client
from server.watchdog import Watchdog
from tests.server.test_launcher import model_processes

pytestmark = pytest.mark.e2e

TRANSPORTS: tuple[TransportName, ...] = ("grpc", "system")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    write_copy_repository(folder, COMMITTED)
    return folder


@pytest.fixture(scope="module")
def watched(copies: Path) -> Iterator[EmbeddedServer]:
    with (
        EmbeddedServer(copies, models=["swap_faces_i420"], one_process=False) as server,
        Watchdog(server, lambda line: None, probe_interval_s=5.0),
    ):
        yield server


@contextmanager
def meanwhile(disturb: Callable[[], object], every_s: float) -> Iterator[None]:
    """Do something again and again in another thread."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(every_s):
            disturb()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def stream_whole(
    server: EmbeddedServer,
    transport: TransportName,
    count: int,
    disturbed: AbstractContextManager[object],
    *,
    in_flight: int = 8,
) -> float:
    """Send frames and compare every answer; how long the longest was waited for, seconds.

    Args:
        disturbed: entered when the client is connected.
    """
    sent = frames(count)
    longest_s, last_s = 0.0, time.monotonic()
    with FaceSwapper(
        server.grpc_url, transport=transport, in_flight=in_flight, timeout_s=60, reconnect_s=60
    ) as swapper, disturbed:
        for position, each in enumerate(swapper.stream(sent, SOURCE)):
            np.testing.assert_array_equal(each.frame, sent[position])
            longest_s = max(longest_s, time.monotonic() - last_s)
            last_s = time.monotonic()
        assert position == count - 1
    return longest_s


@pytest.mark.parametrize("transport", ["system", "auto"])
def test_a_neighbour_that_unregisters_everything_costs_no_frame(
    watched: EmbeddedServer, transport: TransportName
) -> None:
    client = triton_grpc.InferenceServerClient(watched.grpc_url)

    times = 0

    def unregister_everything() -> None:
        nonlocal times
        times += 1
        # Triton says which of them are in use just then.
        with suppress(InferenceServerException):
            client.unregister_system_shared_memory()

    try:
        stream_whole(watched, transport, 600, meanwhile(unregister_everything, 0.05))
        assert times > 3
    finally:
        client.close()


def impossible_request(shape: tuple[int, ...], size: int) -> bytes:
    """A frame of such a shape, with so many bytes; the rest is as it should be."""
    message = service_pb2.ModelInferRequest(model_name="swap_faces_i420")
    for name, kind, shown, count in (
        ("frame", "UINT8", shape, size),
        ("source", "FP32", (1, 1, 512), 4 * 512),
        ("options", "FP32", (1, 16), 4 * 16),
    ):
        message.inputs.add(name=name, datatype=kind, shape=shown)
        message.raw_input_contents.append(bytes(count))
    return bytes(message.SerializeToString())


def test_a_neighbour_whose_shapes_end_models_costs_no_frame(watched: EmbeddedServer) -> None:
    """Triton 24.10's stub trusts them."""
    ending = [
        impossible_request((1, -96, -64), 96 * 64),
        impossible_request((1, 1 << 32, 1 << 32), 0),
    ]
    told = []
    with grpc.insecure_channel(watched.grpc_url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def end_a_model() -> None:
            if ending:
                with pytest.raises(grpc.RpcError) as caught:
                    call(ending.pop(), timeout=10)
                told.append(caught.value.details())

        stream_whole(watched, "system", 1500, meanwhile(end_a_model, 1.5))
    assert len(told) == 2
    assert any("is not healthy" in each for each in told)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_model_that_dies_with_many_requests_in_flight_is_waited_for_seconds_only(
    watched: EmbeddedServer, transport: TransportName
) -> None:
    kills = iter(("face_swapper", "face_detector_i420", "face_blender_i420"))

    def kill() -> None:
        name = next(kills, None)
        for process in model_processes(watched):
            if name is not None and process.cmdline()[-2].startswith(f"{name}_"):
                process.kill()

    longest_s = stream_whole(watched, transport, 3000, meanwhile(kill, 1.5), in_flight=64)
    assert longest_s < 30, "half of a request's own time limit"


def test_of_two_servers_one_may_leave(copies: Path) -> None:
    """Stopped properly: it unloads its models before it goes."""
    port = Doors(grpc_port=0).chosen(copies).grpc_port
    sent, swapped = frames(600), []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                EmbeddedServer(copies, models=["swap_faces_i420"], address=address, grpc_port=port)
            )
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        # Both addresses in turn, as behind a name with two.
        both = f"ipv4:///127.0.0.1:{port},127.0.0.2:{port}"
        with FaceSwapper(both, transport="grpc", reconnect_s=40, timeout_s=20) as swapper:
            for each in swapper.stream(sent, SOURCE):
                swapped.append(each.frame)
                if len(swapped) == 200:
                    leaving = threading.Thread(target=servers[1].stop)
                    leaving.start()
        leaving.join()
    np.testing.assert_array_equal(swapped, sent)


def test_requests_that_were_given_up_do_not_hold_up_the_next(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = (
        "import time\n_execute = TritonPythonModel.execute\n"
        "def execute(self, requests):\n"
        "    time.sleep(0.02 * len([each for each in requests if not each.is_cancelled()]))\n"
        "    return _execute(self, requests)\n"
        "TritonPythonModel.execute = execute\n"
    )
    monkeypatch.setattr(backend_folder, "STUB_FILE", backend_folder.STUB_FILE + slow)
    with EmbeddedServer(copies, models=["swap_faces_i420"], one_process=True) as server:
        with FaceSwapper(server.grpc_url, transport="grpc", in_flight=200) as swapper:
            stream = swapper.stream(frames(400), SOURCE)
            next(stream)
            stream.close()
            begun = time.monotonic()
            swapper.swap(frames(1)[0], SOURCE)
            waited_s = time.monotonic() - begun
        client = open_client(server.grpc_url)
        (statistics,) = client.get_inference_statistics("swap_faces_i420").model_stats
        client.close()
    # All 200 take 4 seconds of one process.
    assert waited_s < 2
    assert statistics.inference_stats.success.count < 150
