"""What a GPU server does when things go wrong: full memory, large frames, clients that die.

The models are `hungry_frame`, which needs a chosen number of bytes a pixel and gives 255 - frame,
and the benches' ensemble, whose swapper has random weights. Memory is filled by this process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from frameswap import FaceSwapper
from frameswap.cuda_memory import CudaRegion
from frameswap.shared_memory import Region, SystemRegion
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from bench import gpu_repository
from bench.scenes import Scene
from graphs.contract import OPTION_COUNT
from server.errors import StartError
from server.launcher import EmbeddedServer
from server.watchdog import Watchdog
from tests.server.asking import Array, Asker
from tests.server.shared_regions import (
    RegionAsker,
    Request,
    answers_at_once,
    assert_every_pixel_is_written,
    assert_used_memory_does_not_show,
)
from tests.server.test_launcher import wait_for
from tests.server.tiny_models import parameter, write_model

pytestmark = pytest.mark.gpu

ENSEMBLE = "swap_faces_i420"
MEBIBYTE = 1 << 20
# At 64x96, the size of the warm-up: 75 MB, and 4.8 GB. At 512x512 the first one needs 3.2 GB.
MODEST, GREEDY = 1 << 10, 1 << 16
REGIONS: dict[str, Callable[[int], Region]] = {"system": SystemRegion, "cuda": CudaRegion}


def hungry_network(repeats: int) -> onnx.ModelProto:
    """255 - frame, by way of `repeats` float32 copies of every value."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["full", "as_float"], ["inverted"]),
        helper.make_node("Unsqueeze", ["inverted", "last"], ["single"]),
        helper.make_node("Expand", ["single", "repeats"], ["many"]),
        helper.make_node("ReduceMax", ["many", "last"], ["reduced"], keepdims=0),
        helper.make_node("Cast", ["reduced"], ["inverted_frame"], to=TensorProto.UINT8),
    ]
    axes = ["B", "H", "W", 3]
    constants = {
        "full": np.float32(255).reshape(()),
        "last": np.array([4], np.int64),
        "repeats": np.array([1, 1, 1, 1, repeats], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "hungry",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, axes)],
        [helper.make_tensor_value_info("inverted_frame", TensorProto.UINT8, axes)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def hungry_repository(
    folder: Path, repeats: int, *, provider: str = "", target: str = "cuda"
) -> Path:
    kind = "GPU" if target == "cuda" else "CPU"
    config = (
        'backend: "onnxruntime"\nmax_batch_size: 1\n'
        'input { name: "frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }\n'
        'output { name: "inverted_frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }\n'
        f"instance_group {{ kind: KIND_{kind} count: 1 }}\n"
        + parameter("frame_format", "bgr")
        + parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "no")
        + provider
    )
    write_model(folder, "hungry_frame", config, hungry_network(repeats), target=target)
    return folder


@contextmanager
def full_device(*, leave: int) -> Iterator[None]:
    """Take the device's free memory but for `leave` bytes, with plain allocations."""
    import cupy

    runtime = cupy.cuda.runtime
    taken: list[int] = []
    try:
        # Large pieces first; a refusal is no lasting error.
        for size in (1024 * MEBIBYTE, 64 * MEBIBYTE, 2 * MEBIBYTE):
            while runtime.memGetInfo()[0] - leave >= size:
                try:
                    taken.append(runtime.malloc(size))
                except runtime.CUDARuntimeError:
                    break
        yield
    finally:
        for pointer in taken:
            runtime.free(pointer)


def own_processes() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def frame_of(height: int, width: int) -> Array:
    return np.random.default_rng(height).integers(0, 256, (1, height, width, 3), np.uint8)


# Out of memory


def test_a_memory_limit_that_is_too_low_fails_the_load_with_a_sentence(tmp_path: Path) -> None:
    provider = (
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" '
        'parameters { key: "gpu_mem_limit" value: "65536" } } } }\n'
    )
    folder = hungry_repository(tmp_path, MODEST, provider=provider)
    before = own_processes()
    with pytest.raises(StartError, match=r"hungry_frame: .* raise gpu_mem_limit in its config"):
        EmbeddedServer(folder, target="cuda").start()
    assert own_processes() <= before


def test_a_full_device_fails_the_load_with_a_sentence_and_an_empty_one_serves(
    tmp_path: Path,
) -> None:
    folder = hungry_repository(tmp_path, GREEDY)
    before = own_processes()
    server = EmbeddedServer(folder, target="cuda")
    # Room for the processes' own contexts, and not for the warm-up.
    with (
        full_device(leave=4096 * MEBIBYTE),
        pytest.raises(StartError, match=r"hungry_frame: GPU 0 is out of memory: .*; lower the fr"),
    ):
        server.start()
    assert own_processes() <= before
    with server:
        asker = Asker(server.grpc_url)
        frame = frame_of(64, 96)
        np.testing.assert_array_equal(
            asker.ask("hungry_frame", frame=frame)["inverted_frame"], 255 - frame
        )
        asker.client.close()


@pytest.mark.parametrize("leave", [256 * MEBIBYTE, 0])
def test_a_device_that_is_full_under_load_turns_down_what_needs_more_and_lives(
    tmp_path: Path, leave: int
) -> None:
    small, large = frame_of(64, 96), frame_of(512, 512)
    with EmbeddedServer(hungry_repository(tmp_path, MODEST), target="cuda") as server:
        asker = Asker(server.grpc_url)
        pid = server.pid

        def answers(frame: Array) -> None:
            answer = asker.ask("hungry_frame", frame=frame)["inverted_frame"]
            np.testing.assert_array_equal(answer, 255 - frame)

        for _ in range(4):
            answers(small)
        with full_device(leave=leave):
            for _ in range(3):
                with pytest.raises(InferenceServerException, match=r"GPU 0 is out of memory: .*lo"):
                    asker.ask("hungry_frame", frame=large)
                answers(small)
        answers(large)
        assert server.pid == pid
        asker.client.close()


# The whole ensemble


@pytest.fixture(scope="module")
def ensemble_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("random-inswapper")
    # Few rows a batch: each size loads and searches its own kernels.
    gpu_repository.build(folder, max_batch_size=2)
    with EmbeddedServer(
        folder, target="cuda", models=[ENSEMBLE], one_process=False
    ) as server:
        yield server


def request_of(width: int, height: int, seed: int, *, faces: int = 1) -> Request:
    scene = Scene("fault", width=width, height=height, faces=faces, slots=max(faces, 1))
    vectors = np.random.default_rng(seed).normal(size=(1, scene.slots, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return ENSEMBLE, {
        "frame": np.ascontiguousarray(scene.i420())[None],
        "source": vectors,
        "options": np.zeros((1, OPTION_COUNT), np.float32),
    }


@pytest.fixture(params=REGIONS)
def region_asker(
    request: pytest.FixtureRequest, ensemble_server: EmbeddedServer
) -> Iterator[RegionAsker]:
    asker = RegionAsker(ensemble_server.grpc_url, REGIONS[request.param])
    yield asker
    asker.close()


@pytest.mark.parametrize("faces", [0, 1, 2])
def test_every_pixel_of_the_swapped_frame_is_written(region_asker: RegionAsker, faces: int) -> None:
    request = request_of(640, 360, 1, faces=faces)
    answer = assert_every_pixel_is_written(region_asker, request)
    assert (answer != request[1]["frame"]).any() == (faces > 0)


def test_what_a_buffer_held_before_shows_in_no_answer(region_asker: RegionAsker) -> None:
    first, second = request_of(702, 398, 1), request_of(702, 398, 2, faces=2)
    assert_used_memory_does_not_show(region_asker, first, second)


@pytest.mark.parametrize("transport", REGIONS)
def test_streams_of_other_sizes_and_sources_at_once_stay_apart(
    ensemble_server: EmbeddedServer, transport: str
) -> None:
    sizes = [(640, 360), (480, 270), (640, 360), (960, 540), (640, 362), (480, 270)]
    requests = [request_of(*size, seed) for seed, size in enumerate(sizes)]
    asker = RegionAsker(ensemble_server.grpc_url, REGIONS[transport])
    serial = [asker.ask(request) for request in requests]
    asker.close()
    assert (serial[0] != serial[2]).any()
    together = answers_at_once(ensemble_server.grpc_url, REGIONS[transport], requests, rounds=6)
    for expected, answers in zip(serial, together, strict=True):
        for answer in answers:
            # A batch of another size runs other kernels, which sum float16 products in another
            # order: a value between two grey levels may round the other way.
            assert np.abs(answer.astype(np.int16) - expected).max() <= 1


def test_a_frame_above_the_limit_is_refused_with_a_sentence(
    region_asker: RegionAsker, ensemble_server: EmbeddedServer
) -> None:
    model, arrays = request_of(640, 360, 1)
    wide: dict[str, Any] = {**arrays, "frame": np.zeros((1, 96, 8194), np.uint8)}
    with pytest.raises(InferenceServerException, match=r"8194x64 .* takes at most 8192x8192"):
        region_asker.ask((model, wide))
    Watchdog(ensemble_server, print).probe_all()


KILLED = """
import sys
import numpy as np
from bench.scenes import Scene
from frameswap import FaceSwapper, Source
with FaceSwapper(sys.argv[1], transport=sys.argv[2], in_flight=8) as swapper:
    vector = np.random.default_rng(5).normal(size=512).astype(np.float32)
    source = Source(vector / np.linalg.norm(vector), swapper.source_kind, swapper.swapper,
                    np.zeros((0, 15), np.float32))
    frame = Scene("killed", width=1280, height=720).i420()
    for count, _ in enumerate(swapper.stream((frame for _ in range(10**6)), source)):
        if count == 10:
            print("streaming", flush=True)
"""


def registered(client: triton_grpc.InferenceServerClient, transport: str) -> set[str]:
    status = (
        client.get_cuda_shared_memory_status()
        if transport == "cuda"
        else client.get_system_shared_memory_status()
    )
    return set(status.regions)


@pytest.mark.parametrize("transport", REGIONS)
def test_a_client_that_is_killed_with_frames_in_flight_harms_nobody(
    ensemble_server: EmbeddedServer, transport: str
) -> None:
    server = ensemble_server
    pid, client = server.pid, triton_grpc.InferenceServerClient(server.grpc_url)
    before = registered(client, transport)
    asker = RegionAsker(server.grpc_url, REGIONS[transport])
    request = request_of(640, 360, 9)
    alone = asker.ask(request)
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, server.grpc_url, transport],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert killed.stdout is not None
    try:
        assert killed.stdout.readline() == "streaming\n"
        beside = [asker.ask(request) for _ in range(3)]
    finally:
        killed.kill()
        killed.wait()
        killed.stdout.close()
    for answer in [*beside, *(asker.ask(request) for _ in range(20))]:
        # Batches of two and of one run other kernels: see above.
        assert np.abs(answer.astype(np.int16) - alone).max() <= 1

    def reclaimed() -> bool:
        with FaceSwapper(server.grpc_url, transport=transport):
            return registered(client, transport) == before

    wait_for(reclaimed)
    asker.close()
    client.close()
    assert server.pid == pid
    assert server.is_running
