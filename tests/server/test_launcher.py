"""The embedded server's life: start, refusals, stop, and nothing left behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from server import shared_memory
from server.doors import Doors
from server.errors import PortError, RepositoryError, ServerStoppedError, StartError
from server.launcher import EmbeddedServer
from server.repository import check_loaded, read_repository
from server.server_log import HARMLESS
from tests.server.asking import Asker
from tests.server.tiny_models import TINY_MODELS, write_model, write_tiny_repository

pytestmark = pytest.mark.e2e

FRAME = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
NO_OPTIONS = np.zeros((1, 4), np.float32)


def assert_serves(server: EmbeddedServer) -> None:
    asker = Asker(server.grpc_url)
    try:
        answer = asker.ask("invert_frame", frame=FRAME, options=NO_OPTIONS)
    finally:
        asker.client.close()
    np.testing.assert_array_equal(answer["inverted_frame"], 255 - FRAME)


def shared_memory_of(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"frameswap_server_*_{pid}_*")]


def temporary_folders() -> set[str]:
    """Folders that Triton's Python backends make in the temporary folder."""
    return {path.name for path in Path("/tmp").glob("python_env_*")}


def wait_for(condition: Callable[[], bool], *, at_most_s: float = 20.0) -> None:
    deadline = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def model_processes(server: EmbeddedServer) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(server.pid).children()
        if process.status() != psutil.STATUS_ZOMBIE
        and "triton_python_backend_stub" in " ".join(process.cmdline())
    ]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def test_stopping_leaves_no_process_no_shared_memory_and_no_port(tiny_repository: Path) -> None:
    server = EmbeddedServer(tiny_repository, models=["invert_frame"], grpc_port=0)
    own = set(shared_memory_of(os.getpid()))
    folders = temporary_folders()
    server.start()
    appeared = temporary_folders() - folders
    scratch = server.log_path.parent
    processes = [psutil.Process(server.pid), *model_processes(server)]
    port = int(server.grpc_url.rpartition(":")[2])
    regions = set(shared_memory_of(os.getpid())) - own
    assert len(processes) == 2
    assert regions
    assert_serves(server)
    server.stop()
    assert gone(processes)
    assert not set(shared_memory_of(os.getpid())) & regions
    # Triton makes a folder as well. Other servers on this machine may come and go meanwhile.
    assert appeared - temporary_folders()
    assert not scratch.exists()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
    server.stop()


def test_two_servers_run_beside_each_other(
    tiny_server: EmbeddedServer, tiny_repository: Path
) -> None:
    with EmbeddedServer(tiny_repository, models=["invert_frame"]) as second:
        assert second.grpc_url != tiny_server.grpc_url
        assert_serves(second)
        assert_serves(tiny_server)
    assert_serves(tiny_server)


def test_only_the_asked_models_and_their_steps_are_loaded(tiny_repository: Path) -> None:
    with EmbeddedServer(
        tiny_repository, models=["invert_twice"], instance_counts={"invert_frame": 2}
    ) as server:
        assert sorted(server.repository.configs) == ["invert_frame", "invert_twice"]
        assert len(model_processes(server)) == 2
        assert_serves(server)
        asker = Asker(server.grpc_url)
        with pytest.raises(InferenceServerException, match="invert_i420"):
            asker.ask("invert_i420", frame=np.zeros((1, 12, 8), np.uint8))
        asker.client.close()


def test_the_log_is_silent_when_all_is_well(tiny_server: EmbeddedServer) -> None:
    assert_serves(tiny_server)
    lines = tiny_server.log_path.read_text().splitlines()
    assert [line for line in lines if not any(text in line for text in HARMLESS)] == []


UNKNOWN_TARGET = (
    r"no target 'cqu' \(targets .* have: cpu\); choose one, or build it with python "
    r"build_engines\.py --target NAME, which is one of cpu, cuda, tensorrt, rtx$"
)


def test_a_misspelt_target_is_refused_with_those_that_exist(tiny_repository: Path) -> None:
    with pytest.raises(RepositoryError, match=UNKNOWN_TARGET):
        EmbeddedServer(tiny_repository, target="cqu").start()


def test_a_target_that_one_model_lacks_is_refused(tmp_path: Path) -> None:
    write_tiny_repository(tmp_path)
    (tmp_path / "tint_faces" / "configs" / "cpu.pbtxt").unlink()
    with pytest.raises(RepositoryError, match=r"model tint_faces .* no target 'cpu' .*has none"):
        EmbeddedServer(tmp_path).start()


def test_a_missing_repository_model_or_network_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere does not exist; build it"):
        EmbeddedServer(tmp_path / "nowhere").start()
    with pytest.raises(RepositoryError, match="holds no model"):
        EmbeddedServer(tmp_path).start()
    write_tiny_repository(tmp_path)
    with pytest.raises(RepositoryError, match="no model 'invert_fram'; it has invert_frame"):
        EmbeddedServer(tmp_path, models=["invert_fram"]).start()
    (tmp_path / "invert_i420" / "1" / "model.onnx").unlink()
    missing = r"invert_i420/1/model.onnx is missing.*build_engines.py --target cpu$"
    with pytest.raises(RepositoryError, match=missing):
        EmbeddedServer(tmp_path).start()


def test_a_config_that_changed_after_it_was_read_is_noticed(
    tiny_server: EmbeddedServer, tmp_path: Path
) -> None:
    write_tiny_repository(tmp_path)
    path = tmp_path / "invert_frame" / "configs" / "cpu.pbtxt"
    path.write_text(path.read_text().replace('string_value: "64"', 'string_value: "32"'))
    asker = Asker(tiny_server.grpc_url)
    check_loaded(asker.client, tiny_server.repository)
    with pytest.raises(StartError, match="not loaded the target 'cpu' of invert_frame"):
        check_loaded(asker.client, read_repository(tmp_path, "cpu"))
    asker.client.close()


def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    write_model(tmp_path, "broken", "backend: onnxruntime", None)
    with pytest.raises(RepositoryError, match=r"broken/configs/cpu.pbtxt is not a Triton model"):
        EmbeddedServer(tmp_path).start()


def test_instance_counts_of_unknown_models_are_refused(tiny_repository: Path) -> None:
    with pytest.raises(RepositoryError, match="'invert_twice', which is no model that runs here"):
        EmbeddedServer(
            tiny_repository, instance_counts={"invert_twice": 2}, one_process=False
        ).start()
    with pytest.raises(RepositoryError, match="at least one instance, and 0 was given"):
        EmbeddedServer(tiny_repository, instance_counts={"tint_faces": 0}).start()


@pytest.mark.parametrize("one_process", [False, True])
def test_a_request_that_is_alone_waits_for_the_queue_delay(
    tiny_repository: Path, one_process: bool
) -> None:
    delay_us = 250_000
    with EmbeddedServer(
        tiny_repository,
        models=["invert_twice"],
        queue_delay_us=delay_us,
        one_process=one_process,
    ) as server:
        met = "invert_twice" if one_process else "invert_frame"
        asker = Asker(server.grpc_url)
        loaded = asker.client.get_model_config(met).config
        assert loaded.dynamic_batching.max_queue_delay_microseconds == delay_us
        start = time.perf_counter()
        answer = asker.ask("invert_twice", frame=FRAME, options=NO_OPTIONS)
        assert time.perf_counter() - start >= delay_us / 1e6
        np.testing.assert_array_equal(answer["twice"], FRAME)
        asker.client.close()


def test_a_queue_delay_that_cannot_be_or_has_no_effect_is_refused(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryError, match="0 or more microseconds, and -1 was given"):
        EmbeddedServer(tiny_repository, queue_delay_us=-1).start()
    write_model(tmp_path, "alone", 'backend: "onnxruntime"\n', TINY_MODELS["invert_i420"][1])
    with pytest.raises(RepositoryError, match=r"alone of the cpu target run each request by itse"):
        EmbeddedServer(tmp_path, queue_delay_us=1000).start()


DAMAGES = [
    ("KIND_CPU", "KIND_GPU", r"invert_frame.*KIND_GPU but no GPUs are available"),
    (
        "instance_group",
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" } } }\n'
        "instance_group",
        r"invert_frame: this ONNX Runtime .* has no CUDAExecutionProvider .* onnxruntime-gpu",
    ),
    (
        "instance_group",
        'optimization { execution_accelerators { cpu_execution_accelerator { name: "magic" } } }\n'
        "instance_group",
        r"invert_frame: the execution accelerator 'magic' is not known",
    ),
    ('string_value: "1"', 'string_value: "many"', r"thread_count .* number, and is 'many'"),
    ("shift=0..7", "shift=0-7", r"invert_frame: option_ranges entry 'shift=0-7' must read"),
    ('name: "inverted_frame"', 'name: "inverse"', r"model.onnx has no output inverse"),
]
"""Text of the config, what takes its place, and the sentence."""


@pytest.mark.parametrize(("text", "damaged", "sentence"), DAMAGES)
def test_a_config_that_does_not_load_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, text: str, damaged: str, sentence: str
) -> None:
    config, network = TINY_MODELS["invert_frame"]
    assert text in config
    write_model(tmp_path, "invert_frame", config.replace(text, damaged, 1), network)
    assert_does_not_start(tmp_path, sentence)


def test_a_damaged_network_file_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    write_model(tmp_path, "invert_frame", TINY_MODELS["invert_frame"][0], None)
    (tmp_path / "invert_frame" / "1" / "model.onnx").write_bytes(b"not a network")
    assert_does_not_start(tmp_path, r"invert_frame: .*model.onnx failed.*Protobuf")


def assert_does_not_start(repository: Path, sentence: str) -> None:
    own = set(shared_memory_of(os.getpid()))
    server = EmbeddedServer(repository)
    try:
        with pytest.raises(StartError, match=sentence) as caught:
            server.start()
    finally:
        server.stop()
    assert "\n" not in str(caught.value)
    assert set(shared_memory_of(os.getpid())) == own


def test_a_port_that_is_taken_is_one_sentence(tiny_repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"127.0.0.1 port {port}: .*in use; choose another"):
            EmbeddedServer(tiny_repository, grpc_port=port).start()


@pytest.mark.parametrize("door", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_lost_between_choosing_and_binding_is_chosen_again(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        lost = taken.getsockname()[1]
        real, calls = Doors.chosen, []

        def choose_first_the_lost_one(asked: Doors, folder: Path) -> Doors:
            chosen = real(asked, folder)
            calls.append(chosen)
            return replace(chosen, **{door: lost}) if len(calls) == 1 else chosen

        monkeypatch.setattr(Doors, "chosen", choose_first_the_lost_one)
        with EmbeddedServer(
            tiny_repository, models=["invert_frame"], grpc_port=0, http_port=0, metrics_port=0
        ) as server:
            # One that was called ready too early has ended by now, or is about to.
            time.sleep(1.0)
            assert_serves(server)
            for url in (server.doors.http_url, server.doors.metrics_url):
                host, _, port = str(url).rpartition(":")
                socket.create_connection((host, int(port))).close()
        assert len(calls) == 2


def test_an_address_of_another_machine_is_one_sentence(tiny_repository: Path) -> None:
    with pytest.raises(PortError, match=r"cannot listen on 192.0.2.1"):
        EmbeddedServer(tiny_repository, address="192.0.2.1").start()


def test_http_answers_health_and_refuses_everything_else(web_server: EmbeddedServer) -> None:
    def ask(method: str, path: str, body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection(str(web_server.doors.http_url), timeout=30)
        try:
            chunks = iter([body] * 6) if body is not None else None
            connection.request(method, path, chunks, encode_chunked=body is not None)
            return connection.getresponse().status
        finally:
            connection.close()

    assert ask("GET", "/v2/health/ready") == 200
    # Six chunks of 1 MB: this kills a Triton 24.10 whose inference over HTTP is open.
    assert ask("POST", "/v2/models/invert_frame/infer", b"x" * 1_000_000) == 403
    for path in ("/v2", "/v2/models/invert_frame/config", "/v2/models/stats", "/v2/logging"):
        assert ask("GET", path) == 403
    assert ask("POST", "/v2/repository/index") == 403
    assert ask("GET", "/v2/health/ready") == 200
    assert_serves(web_server)


def test_metrics_are_served_on_their_own_port(web_server: EmbeddedServer) -> None:
    assert_serves(web_server)
    connection = http.client.HTTPConnection(str(web_server.doors.metrics_url), timeout=30)
    connection.request("GET", "/metrics")
    assert 'nv_inference_count{model="invert_frame"' in connection.getresponse().read().decode()
    connection.close()


def test_loading_models_over_grpc_needs_the_key(tiny_server: EmbeddedServer) -> None:
    asker = Asker(tiny_server.grpc_url)
    for call in (
        lambda: asker.client.unload_model("invert_frame"),
        lambda: asker.client.load_model("invert_frame"),
        lambda: asker.client.update_log_settings({"log_verbose_level": 1}),
        asker.client.get_trace_settings,
    ):
        with pytest.raises(InferenceServerException, match="protocol is restricted"):
            call()
    asker.client.close()
    assert_serves(tiny_server)


PARENT = """
import sys, time
from pathlib import Path
from server.launcher import EmbeddedServer
from server.repository import check_loaded, read_repository
from server.server_log import HARMLESS
server = EmbeddedServer(Path(sys.argv[1]), models=["invert_frame"])
server.start()
print(server.pid, flush=True)
print(server.log_path, flush=True)
time.sleep(600)
"""


def test_a_killed_parent_leaves_no_process_and_no_shared_memory(tiny_repository: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny_repository)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        server = psutil.Process(int(parent.stdout.readline()))
        processes = [server, *server.children(recursive=True), *server.parents()[:1]]
        assert shared_memory_of(parent.pid)
        log = Path(parent.stdout.readline().strip())
        assert log.is_file()
        parent.kill()
        parent.wait()
    wait_for(lambda: gone(processes))
    wait_for(lambda: not shared_memory_of(parent.pid))
    wait_for(lambda: not log.parent.exists())


def test_regions_of_a_dead_process_are_removed_and_others_are_not(
    tiny_server: EmbeddedServer,
) -> None:
    own = shared_memory_of(os.getpid())
    assert own
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    real = shared_memory.new_prefix()
    left = Path("/dev/shm") / (real.replace(f"_{os.getpid()}_", f"_{dead.pid}_") + "region")
    foreign = Path("/dev/shm") / f"frameswap_server_1_{dead.pid}_5_ab_region"
    other = Path("/dev/shm") / f"another_program_{dead.pid}"
    try:
        for path in (left, foreign, other):
            path.write_bytes(b"x")
        assert shared_memory.remove_leftovers() == [left.name]
        assert foreign.exists()
        assert other.exists()
        assert shared_memory_of(os.getpid()) == own
    finally:
        for path in (left, foreign, other):
            path.unlink(missing_ok=True)


def test_a_server_that_ended_by_itself_says_so(tiny_repository: Path) -> None:
    server = EmbeddedServer(tiny_repository, models=["invert_frame"])
    with pytest.raises(ServerStoppedError, match="not running"):
        _ = server.repository
    with server:
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not server.is_running)
        assert server.describe_end() == "it was ended by SIGKILL"
        server.restart()
        assert_serves(server)


def test_the_tiny_networks_are_valid() -> None:
    for _, network in TINY_MODELS.values():
        if network is not None:
            onnx.checker.check_model(network, full_check=True)
