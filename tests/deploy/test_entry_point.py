"""The entry point with a real Triton: it waits, refuses, sees the dead, drains, shuts doors."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.deploy.serving import EntryPoint, page
from tests.engines.test_check_plans import write_config, write_plan
from tests.server.asking import Asker
from tests.server.tiny_models import write_tiny_repository

pytestmark = pytest.mark.e2e

FRAME = np.full((1, 16, 24, 3), 7, np.uint8)
OPTIONS = np.zeros((1, 4), np.float32)
STUB = "triton_python_backend_stub"


def ask(url: str) -> np.ndarray:
    asker = Asker(url)
    try:
        return asker.ask("invert_twice", frame=FRAME, options=OPTIONS)["twice"]
    finally:
        asker.client.close()


def test_it_waits_for_plans_alive_but_not_ready_and_serves_when_they_come(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with EntryPoint(models, tmp_path / "run") as server:
        server.wait_for("waiting for plans .* does not exist; build it with python build_engines")
        assert server.health("/v2/health/live") == 200
        assert server.health() == 503
        write_tiny_repository(tmp_path / "made")
        (tmp_path / "made").rename(models)
        server.wait_ready()
        assert server.health() == 200
        assert np.array_equal(ask(f"127.0.0.1:{server.grpc_port}"), FRAME)
        assert server.stop() == 0


def test_it_gives_up_waiting_with_the_command_to_run(tmp_path: Path) -> None:
    with EntryPoint(tmp_path / "models", tmp_path / "run", "--wait-s", "1") as server:
        found = server.wait_for("error: (.*)")[1]
        assert server.process.wait(10) == 1
    assert "does not exist; build it with python build_engines.py --target cpu (waited" in found


def test_it_stops_at_once_while_it_waits(tmp_path: Path) -> None:
    with EntryPoint(tmp_path / "models", tmp_path / "run") as server:
        server.wait_for("waiting for plans")
        assert server.stop(limit_s=5) == 0


def test_a_plan_of_another_release_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_plan(models, tensorrt_version="10.1.0")
    write_config(models)
    (models / "face_swapper" / "config.pbtxt").write_text('name: "face_swapper"')
    with EntryPoint(models, tmp_path / "run", target="tensorrt") as server:
        told = server.wait_for("error: (.*)", limit_s=30)[1]
        assert server.process.wait(10) == 1
    assert "face_swapper: model.plan was compiled by TensorRT 10.1.0, and this server has" in told
    assert "python build_engines.py --models face_swapper" in told or "install TensorRT" in told


def test_a_dead_model_process_makes_it_unready_and_then_ends_it(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run", "--probe-interval-s", "0.5") as server:
        server.wait_ready()
        victim = next(
            child
            for child in server.triton.children()
            if child.cmdline()[0].endswith(STUB) and "tint_faces" in " ".join(child.cmdline())
        )
        victim.kill()
        told = server.wait_for("error: its models do not answer (.*)", limit_s=30)[1]
        assert server.process.wait(30) == 1
    assert "is not healthy" in told


def test_a_killed_server_ends_the_container_and_leaves_no_process(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run") as server:
        server.wait_ready()
        triton = server.triton
        family = [triton, *triton.children()]
        triton.kill()
        server.wait_for("error: tritonserver was ended by SIGKILL", limit_s=20)
        assert server.process.wait(20) == 1
    _, alive = psutil.wait_procs(family, timeout=10)
    # Whoever inherits a killed process may leave it as a zombie.
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_a_stop_says_unready_serves_on_and_finishes_what_is_under_way(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run", "--drain-s", "3") as server:
        server.wait_ready()
        url = f"127.0.0.1:{server.grpc_port}"
        answered: list[float] = []
        failed: list[str] = []
        over = threading.Event()

        def keep_asking() -> None:
            asker = Asker(url)
            while not over.is_set():
                try:
                    asker.ask("invert_twice", frame=FRAME, options=OPTIONS)
                    answered.append(time.monotonic())
                except InferenceServerException as error:
                    failed.append(error.message())
                    break
            asker.client.close()

        thread = threading.Thread(target=keep_asking)
        thread.start()
        time.sleep(0.5)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping: not ready any more", limit_s=10)
        assert server.health() == 503
        assert server.health("/v2/health/live") == 200
        time.sleep(1.5)
        assert not failed, failed
        assert answered[-1] > told + 1, "it does not serve on while it drains"
        over.set()
        thread.join()
        assert server.process.wait(60) == 0


def test_only_inference_health_metadata_and_metrics_answer(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run") as server:
        server.wait_ready()
        listening = {
            connection.laddr.port
            for process in (psutil.Process(server.process.pid), server.triton)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        asked = {server.grpc_port, server.health_port, server.metrics_port}
        # One more, on loopback alone: Triton's own metrics, which the entry point hands on.
        assert asked < listening
        assert len(listening - asked) == 1
        status, text = page(f"http://127.0.0.1:{server.metrics_port}/metrics")
        assert status == 200
        assert 'nv_inference_request_success{model="invert_frame"' in text
        assert "frameswap_failed_probes 0\n" in text
        for path in ("/", "/metrics/", "/v2", "/v2/models/invert_frame/infer", "/v2/health/../x"):
            assert server.health(path) == 404
        client = triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        assert client.is_server_ready()
        assert client.get_model_metadata("invert_frame").inputs
        assert client.get_model_config("invert_frame").config.max_batch_size == 8
        closed = [
            lambda: client.load_model("invert_frame"),
            lambda: client.unload_model("invert_frame"),
            lambda: client.get_model_repository_index(),
            lambda: client.get_trace_settings(),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
            lambda: client.get_inference_statistics(),
            lambda: client.register_system_shared_memory("r", "/r", 16),
            lambda: client.get_cuda_shared_memory_status(),
        ]
        for call in closed:
            with pytest.raises(InferenceServerException, match=r"frameswap-key|not supported"):
                call()
        client.close()


def test_what_is_asked_for_is_open(tiny_repository: Path, tmp_path: Path) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run", "--open", "statistics") as server:
        server.wait_ready()
        client = triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        assert client.get_inference_statistics().model_stats
        with pytest.raises(InferenceServerException, match="frameswap-key"):
            client.get_system_shared_memory_status()
        client.close()


def test_clients_connect_anew_without_losing_a_request(
    tiny_repository: Path, tmp_path: Path
) -> None:
    with EntryPoint(tiny_repository, tmp_path / "run", "--max-connection-age-s", "1") as server:
        server.wait_ready()
        asker = Asker(f"127.0.0.1:{server.grpc_port}")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            asker.ask("invert_twice", frame=FRAME, options=OPTIONS)
        asker.client.close()


def test_a_bounded_queue_refuses_at_once_and_nobody_waits_half_a_second(
    tiny_repository: Path, tmp_path: Path
) -> None:
    flags = ("--instances", "2", "--max-queue-size", "4")
    with EntryPoint(tiny_repository, tmp_path / "run", *flags) as server:
        server.wait_ready()
        config = triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        loaded = config.get_model_config("invert_frame").config
        config.close()
        assert loaded.dynamic_batching.default_queue_policy.max_queue_size == 4
        assert sum(group.count for group in loaded.instance_group) == 2
        seconds, refused = flood(server.grpc_port, in_flight=64, requests=600)
        assert refused > 0, "the queue has no bound"
        alone, none_refused = flood(server.grpc_port, in_flight=2, requests=200)
        assert none_refused == 0
    # A queue with a limit and one instance waits 500 ms for a wake-up that is lost.
    assert np.percentile(seconds, 99) < 0.45
    assert np.percentile(alone, 99) < 0.25


def flood(port: int, *, in_flight: int, requests: int) -> tuple[list[float], int]:
    """Seconds of every answer, refusals among them, and how many were refused."""
    room = threading.Semaphore(in_flight)
    seconds: list[float] = []
    refused: list[str] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="invert_frame")
        for name, array in (("frame", FRAME), ("options", OPTIONS)):
            kind = "UINT8" if array.dtype == np.uint8 else "FP32"
            request.inputs.add(name=name, datatype=kind, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())

        def send() -> None:
            started = time.monotonic()

            def done(call: grpc.Future) -> None:
                seconds.append(time.monotonic() - started)
                error = call.exception()
                if error is not None:
                    refused.append(f"{error.code().name}: {error.details()}")
                room.release()

            stub.ModelInfer.future(request, timeout=30).add_done_callback(done)

        for _ in range(requests):
            room.acquire()
            send()
        for _ in range(in_flight):
            room.acquire()
    assert all("UNAVAILABLE" in line and "maximum queue size" in line for line in refused), refused
    return seconds, len(refused)
