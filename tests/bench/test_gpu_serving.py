"""How the GPU bench samples, serves and loads: fakes for the GPU, a real server and load test."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from bench.copy_repository import write_copy_repository
from bench.gpu import sampler as sampling
from bench.gpu import serving
from bench.gpu.cells import Bench, Cell, model_request, run_cells
from bench.gpu.clients import ClientLoad, client_rate, identity
from bench.gpu.correct import asker, psnr, stream_frames, streams_apart
from bench.gpu.load import LoadTest, Request, scene_request
from bench.gpu.modes import MODES, Mode, added_environment
from bench.gpu.report import make_report
from bench.gpu.results import NotRun, Results
from bench.gpu.sampler import Sample, Sampler
from bench.gpu.serving import RegionsInUse, ServerKeeper, Setup, forget_regions, statistics_between
from bench.perf_windows import read_table, window_s
from bench.scenes import Scene
from bench.transport import COMMITTED
from engines.configs import config_text, read_config
from server.errors import StartError
from server.perf_analyzer import prepare_perf_analyzer

METRICS = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-0a1b"} 0.94
nv_gpu_memory_used_bytes{gpu_uuid="GPU-0a1b"} 21474836480
nv_inference_count{model="face_swapper",version="1"} 1e+03
nv_cpu_utilization 0.5
"""
TABLE = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency\n"
    "32,812.345,11,2040,5000,300,30000,250,1,38000,41000,42500,61234\n"
)
TINY = Scene("tiny", width=128, height=96)


def test_the_metrics_text_is_read_as_it_is_written() -> None:
    values = sampling.parse_metrics(METRICS)
    assert values["nv_gpu_utilization"] == [0.94]
    assert values["nv_gpu_memory_used_bytes"] == [20 * 2**30]
    assert values["nv_inference_count"] == [1000.0]
    assert values["nv_cpu_utilization"] == [0.5]


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_the_endpoints_word_stands_beside_nvmls() -> None:
    with HTTPServer(("127.0.0.1", 0), _Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        probe = sampling.metrics_probe(f"127.0.0.1:{server.server_port}")
        with Sampler(probe, 0.01) as seen:
            time.sleep(0.2)
        server.shutdown()
        thread.join()
    assert sampling.endpoint_facts(seen) == {"endpoint busy %": 94.0, "endpoint memory GiB": 20.0}


def fake_nvml(busy: list[int]) -> SimpleNamespace:
    readings, clocks = itertools.cycle(busy), itertools.cycle([1980, 1980, 345])
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda device: SimpleNamespace(gpu=next(readings)),
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=3 * 2**30),
        NVML_CLOCK_SM=1,
        nvmlDeviceGetClockInfo=lambda device, kind: next(clocks) if kind == 1 else 0,
    )


def test_nvml_is_sampled_over_time_and_idle_shares_are_counted() -> None:
    with Sampler(sampling.nvml_probe(fake_nvml([100, 20])), 0.005) as seen:
        time.sleep(0.4)
    facts = sampling.gpu_facts(seen)
    assert facts["gpu memory GiB"] == 3.0
    assert facts["gpu lowest MHz"] == 345
    # every other sample; the cut ends may hold one more of either kind
    assert 55 < facts["gpu busy %"] < 65
    assert 45 < facts["gpu samples below 50 %"] < 55
    assert len(facts["gpu series"]) == len(seen.samples)


def test_rest_before_and_after_a_load_does_not_count_but_a_gap_does() -> None:
    busy = [0] * 8 + [2, 46] + [100] * 10 + [0] * 5 + [100] * 5 + [30] + [0] * 19
    samples = [Sample(0.1 * index, value, 0.0, 1980.0) for index, value in enumerate(busy)]
    part = sampling.loaded_part(samples)
    assert [sample.busy for sample in part] == [100] * 8 + [0] * 5 + [100] * 3
    assert sampling.loaded_part(samples[:8]) == samples[:8]


def test_one_high_sample_does_not_decide_which_part_was_loaded() -> None:
    busy = [0, 0, 100, 0, 0] + [40] * 50 + [0] * 5
    part = sampling.loaded_part(
        [Sample(0.1 * i, value, 0.0, 1980.0) for i, value in enumerate(busy)]
    )
    assert {sample.busy for sample in part} == {40}


def test_a_sampler_that_fails_or_is_missing_is_one_sentence() -> None:
    def fail() -> tuple[float, float, float]:
        raise OSError("driver not loaded")

    with Sampler(fail, 0.01) as seen:
        time.sleep(0.05)
    assert sampling.gpu_facts(seen) == {"gpu": "GPU use is not sampled: driver not loaded"}
    with Sampler(None) as none:
        pass
    assert sampling.gpu_facts(none) == {"gpu": sampling.NO_SAMPLER}
    assert sampling.endpoint_facts(none) == {"endpoint": sampling.NO_GPU_METRICS}


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_nvidia_smi_serves_where_nvml_is_missing(tmp_path: Path) -> None:
    read = sampling.smi_probe(program(tmp_path, "nvidia-smi", "echo '97, 20480, 1980'"))
    assert read() == (97.0, 20 * 2**30, 1980.0)
    read = sampling.smi_probe(program(tmp_path, "nvidia-smi", "echo '97, 20480, [N/A]'"))
    assert math.isnan(read()[2])


def test_a_gpu_that_does_not_tell_its_clock_is_sampled_all_the_same() -> None:
    nvml = fake_nvml([100])

    def refuse(device: int, kind: int) -> int:
        raise nvml.NVMLError("Not Supported")

    nvml.NVMLError, nvml.nvmlDeviceGetClockInfo = OSError, refuse
    with Sampler(sampling.nvml_probe(nvml), 0.005) as seen:
        time.sleep(0.1)
    facts = sampling.gpu_facts(seen)
    assert facts["gpu busy %"] == 100.0
    assert "gpu lowest MHz" not in facts


def test_a_mode_that_the_server_does_not_know_is_not_run() -> None:
    with pytest.raises(NotRun, match="this server has no option in_the_moon"):
        Mode("moon", {"in_the_moon": True}).check()
    MODES["three processes"].check()


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "before")
    with added_environment({"KEPT": "within", "ADDED": "within"}):
        assert (os.environ["KEPT"], os.environ["ADDED"]) == ("within", "within")
    assert os.environ["KEPT"] == "before"
    assert "ADDED" not in os.environ


class _Client:
    """A server that refuses to forget regions for a while."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.forgotten: list[str] = []

    def unregister_cuda_shared_memory(self) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise InferenceServerException("Failed to unregister the following cuda regions: a")
        self.forgotten.append("cuda")

    def unregister_system_shared_memory(self) -> None:
        self.forgotten.append("system")


def test_regions_of_a_stopped_load_are_asked_back_until_the_server_agrees() -> None:
    client = _Client(2)
    forget_regions(client, patience_s=5.0)
    assert client.forgotten == ["cuda", "system"]
    with pytest.raises(RegionsInUse, match="Failed to unregister"):
        forget_regions(_Client(1000), patience_s=0.3)


@pytest.mark.e2e
def test_a_server_that_keeps_regions_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(client: Any) -> None:
        raise RegionsInUse("regions: a")

    write_copy_repository(tmp_path, COMMITTED)
    keeper = ServerKeeper(lambda _: tmp_path, tmp_path / "out", tmp_path / "work")
    server = keeper.use(Setup(target="cpu"))
    pid, url = server.pid, server.grpc_url
    monkeypatch.setattr(serving, "forget_regions", refuse)
    try:
        keeper.clear_regions()
        assert keeper.use(Setup(target="cpu")) is server
        assert server.pid != pid
        assert server.grpc_url == url
        assert "started again, it keeps shared memory: regions: a" in capsys.readouterr().out
    finally:
        keeper.close()


def test_a_server_that_does_not_start_is_not_waited_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def fail(self: Any) -> None:
        starts.append(self)
        raise StartError("no memory.")

    monkeypatch.setattr(serving.EmbeddedServer, "start", fail)
    keeper = ServerKeeper(lambda _: tmp_path, tmp_path / "out", tmp_path / "work")
    for _ in range(2):
        with pytest.raises(StartError, match="no memory"):
            keeper.use(Setup())
    assert len(starts) == 1


def test_a_tuned_copy_changes_batches_of_all(tmp_path: Path) -> None:
    write_copy_repository(tmp_path / "models", COMMITTED)
    detector = tmp_path / "models" / "face_detector_i420" / "configs" / "cpu.pbtxt"
    config = read_config(detector)
    # As in a GPU's target.
    config.dynamic_batching.preferred_batch_size[:] = [2, 4, 8]
    detector.write_text(config_text(config))
    (tmp_path / "tuned").mkdir()
    tuned = serving.write_tuned(
        tmp_path / "models", tmp_path / "tuned", target="cpu", max_batch_size=4
    )
    for name in ("face_detector_i420", "face_swapper", "face_blender_i420", "swap_faces_i420"):
        assert read_config(tuned / name / "configs" / "cpu.pbtxt").max_batch_size == 4
    config = read_config(tuned / "face_detector_i420" / "configs" / "cpu.pbtxt")
    assert config.dynamic_batching.preferred_batch_size == [2, 4]
    rows = read_config(tuned / "face_swapper" / "configs" / "cpu.pbtxt").parameters["max_rows"]
    # 16 slots of each of 4 requests
    assert rows.string_value == "64"
    assert (tuned / "face_swapper" / "1" / "model.onnx").is_file()


def test_perf_analyzers_table_is_read_in_milliseconds() -> None:
    assert read_table(TABLE) == {
        "per second": 812.35, "p50 ms": 38.0, "p90 ms": 41.0, "p95 ms": 42.5, "p99 ms": 61.23,
        "client send ms": 0.01, "network+server send/recv ms": 2.04, "server queue ms": 5.0,
        "server compute input ms": 0.3, "server compute infer ms": 30.0,
        "server compute output ms": 0.25, "client recv ms": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="without figures"):
        read_table(TABLE.splitlines()[0] + "\n")


def test_a_slow_server_is_measured_longer_but_not_for_ever() -> None:
    assert window_s(800.0, in_flight=32, seconds=6.0) == 2.0
    assert window_s(4.0, in_flight=8, seconds=6.0) == 4.0
    assert window_s(0.1, in_flight=8, seconds=6.0) == 8.0


def test_statistics_of_a_load_leave_out_what_was_before_it() -> None:
    counts = {"inferences": 10, "executions": 10, "requests": 10, "queue": 5e9,
              "compute_input": 1e9, "compute_infer": 2e9, "compute_output": 3e9}  # fmt: skip
    more = {"inferences": 40, "executions": 5, "requests": 40, "queue": 8e7,
            "compute_input": 4e7, "compute_infer": 4e8, "compute_output": 2e7}  # fmt: skip
    after = {key: counts[key] + more[key] for key in counts}
    assert statistics_between({"a": counts, "b": counts}, {"a": after, "b": counts}) == {
        "a": {"mean batch": 8.0, "queue ms": 2.0, "input ms": 1.0, "infer ms": 10.0,
              "output ms": 0.5}
    }  # fmt: skip


def test_statistics_of_a_server_that_was_started_again_are_its_own() -> None:
    counts = {"inferences": 8, "executions": 2, "requests": 8, "queue": 8e6,
              "compute_input": 8e6, "compute_infer": 8e6, "compute_output": 8e6}  # fmt: skip
    before = {"a": {key: 100 * value for key, value in counts.items()}}
    (row,) = statistics_between(before, {"a": counts}).values()
    assert row["mean batch"] == 4.0
    assert row["infer ms"] == 1.0


def test_a_load_that_does_not_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Path(program(tmp_path, "perf_analyzer", "exec sleep 60"))
    server = SimpleNamespace(grpc_url="127.0.0.1:1")
    keeper = SimpleNamespace(clear_regions=lambda: None, server=server, environment={})
    monkeypatch.setattr("bench.gpu.load.PROBE_LIMIT_S", 0.3)
    load = LoadTest(hanging, dict(os.environ), tmp_path / "load", keeper)  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="perf_analyzer was stopped after 0 s"):
        load.run(scene_request(TINY))
    assert time.monotonic() - started < 10


def test_a_table_of_a_run_that_was_given_up_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_text(TABLE)
    script = 'while [ "$1" != -f ]; do shift; done; cp "${0%/*}/table" "$2"; exit 99'
    giving_up = Path(program(tmp_path, "perf_analyzer", script))
    doors = SimpleNamespace(metrics_url="127.0.0.1:1")
    server = SimpleNamespace(grpc_url="127.0.0.1:1", doors=doors)
    keeper = SimpleNamespace(clear_regions=lambda: None, server=server, environment={})
    monkeypatch.setattr("bench.gpu.load.statistics", lambda url: {})
    load = LoadTest(giving_up, dict(os.environ), tmp_path / "load", keeper, 0.1)  # type: ignore[arg-type]
    facts = load.run(scene_request(TINY))
    assert (facts["per second"], facts["exit code"]) == (812.35, 99)


@pytest.mark.parametrize("model", ["face_detector_i420", "face_swapper", "face_blender_i420"])
def test_each_model_alone_is_sent_what_its_config_asks_for(model: str, tmp_path: Path) -> None:
    request = model_request(model)
    config = read_config(COMMITTED / model / "config.pbtxt")
    assert {tensor.name for tensor in config.input} == set(request.arrays)
    for tensor in config.input:
        shape = request.arrays[tensor.name].shape
        assert len(shape) == len(tensor.dims)
        assert all(dim in (-1, size) for dim, size in zip(tensor.dims, shape, strict=True))
    words = request.write(tmp_path)
    for name, array in request.arrays.items():
        assert (tmp_path / name).stat().st_size == array.nbytes
    assert "--input-data" in words


def swapping(frame: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A "swap" that any other person's differs from by far more than rounding."""
    swapped = frame.copy()
    swapped[40:80] = (np.abs(source[0, :1]) * 4000 % 200 + 20).astype(np.uint8)
    return swapped


def test_streams_that_stay_apart_are_told_from_those_that_do_not() -> None:
    sizes = ((128, 96), (160, 96))
    faces = np.zeros((16, 15), np.float32)
    facts = streams_apart(
        lambda frame, source: (swapping(frame, source), faces), count=6, rounds=2, sizes=sizes
    )
    assert facts["streams"] == 6
    assert facts["worst dB to its own serial answer"] == 120.0
    assert facts["best dB to another person's"] < 45
    calls, lock = itertools.count(), threading.Lock()

    def mixed(frame: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> Any:
        with lock:
            late = next(calls) >= 6
        return swapping(frame, identity(1001)[None] if late else source), faces

    with pytest.raises(RuntimeError, match="got another's frame"):
        streams_apart(mixed, count=6, rounds=2, sizes=sizes)
    frames = iter(stream_frames(6, sizes[:1]) * 10)

    def shuffled(frame: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> Any:
        with lock:
            late = next(calls) >= 100
            other = next(frames) if late else frame
        return swapping(other, source), faces

    calls = itertools.count(94)
    with pytest.raises(RuntimeError, match="got another's frame"):
        streams_apart(shuffled, count=6, rounds=2, sizes=sizes[:1])


def test_psnr_is_of_the_chosen_values_alone() -> None:
    left, right = np.full((2, 4), 10, np.uint8), np.full((2, 4), 10, np.uint8)
    right[0] = 15
    # 20 log10(255 / 5)
    assert psnr(left, right, left != right) == pytest.approx(34.15, abs=0.01)
    assert psnr(left, right, left == right) == 120.0


@pytest.fixture(scope="module")
def tool() -> Any:
    return prepare_perf_analyzer()


@pytest.mark.e2e
def test_a_small_bench_runs_whole_on_a_real_server(tmp_path: Path, tool: Any) -> None:
    """Load, rate, statistics, own client and streams, against models that only copy."""
    write_copy_repository(tmp_path / "models", COMMITTED)
    keeper = ServerKeeper(lambda _: tmp_path / "models", tmp_path / "out", tmp_path / "work")
    load = LoadTest(tool.binary, tool.environment, tmp_path / "load", keeper)
    results = Results(tmp_path / "out" / "results.json", time.monotonic() + 60, {"GPU": "none"})
    plain = Setup(target="cpu", frame_size=(128, 96), in_flight=8)
    tuned = Setup(target="cpu", frame_size=(128, 96), in_flight=8, max_batch_size=2)
    client = ClientLoad("system", processes=2, streams=2, in_flight=2, seconds=0.5, scene=TINY)

    def loaded(**options: Any) -> Any:
        options = {"seconds": 0.5, "probe": 16} | options
        return lambda bench: bench.load.run(scene_request(TINY), **options)

    def ask_nobody(bench: Bench) -> Any:
        return bench.load.run(Request("none", scene_request(TINY).arrays, 1 << 16, "no_such_model"))

    cells = [
        Cell("shared", loaded(memory="system", concurrency=4, endpoint=True), plain),
        Cell("bytes", loaded(memory="none", concurrency=4), plain),
        Cell("batch", loaded(memory="system", concurrency=1, batch=3), plain),
        Cell("rate", loaded(memory="system", rate=100.0, seconds=3.0), plain),
        Cell("own client", lambda bench: client_rate(bench.url, client), plain),
        Cell("apart", lambda bench: streams_apart(asker(bench.url), sizes=((128, 96),)), plain),
        Cell("failing", ask_nobody, plain),
        Cell("tuned", loaded(memory="system", concurrency=4), tuned),
        Cell("mode", loaded(), Setup(target="cpu", mode="moon")),
    ]
    known_modes = dict(MODES)
    MODES["moon"] = Mode("moon", {"in_the_moon": True})
    try:
        run_cells(cells, Bench(results, None, keeper, load))  # type: ignore[arg-type]
    finally:
        MODES.clear()
        MODES.update(known_modes)
    for name in ("shared", "bytes", "tuned"):
        value = results.value(name)
        assert value["per second"] > 0, results.cells[name]
        assert value["models"]["face_detector_i420"]["mean batch"] >= 1
        assert value.get("endpoint") == (sampling.NO_GPU_METRICS if name == "shared" else None)
    assert results.value("batch")["models"]["swap_faces_i420"]["mean batch"] == 3
    assert results.value("tuned")["models"]["face_swapper"]["mean batch"] <= 2
    # about 300 requests at random moments: 17 more or less would be one standard deviation
    assert 60 < results.value("rate")["per second"] < 140
    assert results.value("rate")["asked per second"] == 100.0
    assert results.value("own client")["per second"] > 0
    assert results.value("own client")["in flight"] == 8
    # copying models swap nothing, and the check must not take that for an answer
    assert "shows no swapped face" in results.reason("apart")
    assert "no_such_model" in results.reason("failing")
    assert results.reason("mode") == "this server has no option in_the_moon"
    assert "| shared | " in make_report(results, [cell.name for cell in cells])
