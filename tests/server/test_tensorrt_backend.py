"""The Python-based `tensorrt` backend, everything but the device.

The stand-in engine computes y = x + 1 by reading and writing the addresses it was given, as
TensorRT does, so a wrong pointer, a stale buffer or an aliased output shows in the numbers.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from engines.manifest import PlanKey, describe, manifest_path, write_manifest
from server.backends import common, plans, tensorrt_network
from server.backends.common import RequestError
from server.backends.plans import (
    PlanError,
    PlanMissing,
    check_plan,
    check_shapes,
    choose_plan,
    load_runtime_cache,
    read_flavour,
    runtime_cache_path,
    save_runtime_cache,
)
from server.backends.tensorrt_network import CAPTURE_AFTER, MOST_GRAPHS, TensorRTNetwork


class Array(np.ndarray):
    """A host array that tells its address as a device array does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


def array(values: Any) -> Array:
    return np.array(values, np.float32).view(Array)


class Memory:
    """Host memory with the interface of `device.DeviceMemory`."""

    device_id = 0
    stream_ptr = 7

    def __init__(self, *_: object) -> None:
        self.waits = 0

    def begin(self) -> None: ...

    def finish(self) -> None:
        self.waits += 1

    def empty(self, shape: Sequence[int], element_type: str) -> Array:
        return np.full(tuple(shape), 99, element_type).view(Array)

    def zeros(self, shape: Sequence[int], like: Any) -> Array:
        return np.zeros(tuple(shape), like.dtype).view(Array)

    def join(self, parts: Sequence[Any], rows: int) -> Array:
        return np.concatenate(parts).view(Array)

    def to_host(self, arrays: Sequence[Any]) -> list[Any]:
        return list(arrays)

    def view(self, tensor: Any) -> Any:
        return tensor.values

    def place(self, values: Any) -> Any:
        return values

    def write(self, name: str, values: Any) -> Any:
        return SimpleNamespace(name=lambda: name, values=np.array(values))


class Context:
    """y = x + 1 on raw addresses."""

    def __init__(self, *config: object) -> None:
        self.config = config
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.runs = 0
        self.works = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in ("x",) if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["x"]

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Memory.stream_ptr
        self.compute(self.shapes["x"], self.addresses["x"], self.addresses["y"])
        return self.works

    def compute(self, shape: tuple[int, ...], source: int, target: int) -> None:
        self.runs += 1
        x, y = (
            np.ctypeslib.as_array((ctypes.c_float * int(np.prod(shape))).from_address(address))
            for address in (source, target)
        )
        y[:] = x + 1


class Engine:
    """One input x and one output y, [1..8, 2..4] float32."""

    num_io_tensors = 2

    def __init__(self) -> None:
        self.contexts: list[Context] = []

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"x": "INPUT", "y": "OUTPUT"}[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 2), (4, 4), (8, 4)]

    def create_execution_context(self, *config: object) -> Context:
        self.contexts.append(Context(*config))
        return self.contexts[-1]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(
            create_runtime_cache=RuntimeCache, set_runtime_cache=lambda cache: True
        )


class RuntimeCache:
    """Kernels that grow by one load."""

    def __init__(self) -> None:
        self.blob = b""

    def deserialize(self, blob: bytes) -> bool:
        self.blob = blob
        return True

    def serialize(self) -> bytes:
        return self.blob or b"kernels"


def make_trt(name: str = "tensorrt", version: str = "11.4.0") -> Any:
    """A library module that loads the plan b"good"."""

    class ILogger:
        ERROR, INTERNAL_ERROR, WARNING = "ERROR", "INTERNAL_ERROR", "WARNING"

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if plan == b"good":
                return Engine()
            self.log.log("ERROR", "magic tag\n does not match")
            return None

    module = ModuleType(name)
    module.__dict__.update(
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
        __version__=version,
    )
    return module


class Capturer:
    """Captures like a CUDA stream: the addresses of that moment are replayed."""

    def __init__(self, context: Context, works: bool = True) -> None:
        self.context = context
        self.works = works
        self.captures = 0
        self.launches = 0

    def __call__(self, enqueue: Callable[[], None]) -> Callable[[], None] | None:
        self.captures += 1
        if not self.works:
            return None
        enqueue()
        shape, addresses = self.context.shapes["x"], dict(self.context.addresses)

        def launch() -> None:
            self.launches += 1
            self.context.compute(shape, addresses["x"], addresses["y"])

        return launch


def make_network(*, graphs: bool = False, capturable: bool = True) -> Any:
    trt, engine = make_trt(), Engine()
    context = engine.create_execution_context()
    capturer = Capturer(context, capturable)
    network = TensorRTNetwork(
        "face_swapper",
        trt,
        engine,
        context,
        Memory(),
        tensorrt_network.make_log(trt),
        capturer if graphs else None,
    )
    return SimpleNamespace(run=network.run, context=context, capturer=capturer, net=network)


def test_a_plan_reads_its_inputs_and_writes_new_outputs_by_address() -> None:
    network = make_network()
    first = network.run({"x": array([[1, 2, 3]])}, ["y"], 1)
    second = network.run({"x": array([[5, 6, 7], [8, 9, 0]])}, ["y"], 2)
    np.testing.assert_array_equal(first["y"], [[2, 3, 4]])
    np.testing.assert_array_equal(second["y"], [[6, 7, 8], [9, 10, 1]])


def test_only_the_outputs_that_were_asked_for_come_back() -> None:
    assert make_network().run({"x": array([[1, 2]])}, [], 1) == {}


@pytest.mark.parametrize("shape", [(9, 4), (1, 5), (1, 1), (0, 4), (4,), (1, 2, 3)])
def test_a_shape_outside_the_profile_is_refused_with_both_limits(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"'x' of face_swapper .* takes \[1, 2\] to \[8, 4\]"):
        make_network().run({"x": array(np.zeros(shape))}, ["y"], 1)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(RequestError, match="face_swapper needs the input 'x'"):
        make_network().run({}, ["y"], 1)


def test_a_failed_run_raises_with_the_librarys_reason() -> None:
    network = make_network()
    network.context.works = False
    network.net._log.log("ERROR", "out of\nmemory")
    with pytest.raises(RuntimeError, match="out of memory"):
        network.run({"x": array([[1, 2]])}, ["y"], 1)


def test_a_repeated_shape_is_captured_once_and_replayed_on_new_inputs() -> None:
    network = make_network(graphs=True)
    kept = []
    for turn in range(CAPTURE_AFTER + 5):
        kept.append(network.run({"x": array([[turn, turn, turn]])}, ["y"], 1)["y"])
    assert network.capturer.captures == 1
    assert network.capturer.launches == 5
    # Outputs of earlier replays keep their values: Triton may still be reading them.
    for turn, out in enumerate(kept):
        np.testing.assert_array_equal(out, [[turn + 1] * 3])


def test_shapes_keep_apart_when_their_graphs_take_turns() -> None:
    network = make_network(graphs=True)
    for turn in range(CAPTURE_AFTER + 4):
        for width in (2, 3, 4):
            out = network.run({"x": array([[turn * width] * width])}, ["y"], 1)["y"]
            np.testing.assert_array_equal(out, [[turn * width + 1] * width])
    assert network.capturer.captures == 3


def test_an_odd_shape_is_never_captured() -> None:
    network = make_network(graphs=True)
    for batch in range(1, 9):
        network.run({"x": array(np.zeros((batch, 2)))}, ["y"], batch)
    assert network.capturer.captures == 0


def test_a_plan_that_cannot_be_captured_runs_without_graphs_and_tries_once() -> None:
    network = make_network(graphs=True, capturable=False)
    for turn in range(CAPTURE_AFTER + 4):
        out = network.run({"x": array([[turn, turn]])}, ["y"], 1)["y"]
        np.testing.assert_array_equal(out, [[turn + 1] * 2])
    assert network.capturer.captures == 1


def test_the_graphs_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_network, "MOST_GRAPHS", 2)
    network = make_network(graphs=True)
    assert MOST_GRAPHS > 2
    for batch in (1, 2, 3):
        for _ in range(CAPTURE_AFTER + 1):
            network.run({"x": array(np.zeros((batch, 2)))}, ["y"], batch)
    assert len(network.net._graphs) == 2
    for _ in range(CAPTURE_AFTER + 1):
        network.run({"x": array(np.zeros((1, 2)))}, ["y"], 1)
    assert network.capturer.captures == 4


@pytest.mark.parametrize(
    ("parameters", "flavour"),
    [
        ({}, "tensorrt"),
        ({"engine_flavour": "tensorrt"}, "tensorrt"),
        ({"engine_flavour": "tensorrt_rtx"}, "tensorrt_rtx"),
    ],
)
def test_the_config_says_which_library_loads_the_plan(
    parameters: dict[str, str], flavour: str
) -> None:
    assert read_flavour(parameters, "face_swapper") == flavour


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(PlanError, match=r"must be tensorrt or tensorrt_rtx, and is 'trt'"):
        read_flavour({"engine_flavour": "trt"}, "face_swapper")


@pytest.mark.parametrize(
    ("config", "compute_capability", "chosen"),
    [
        ({}, "8.9", "model.plan"),
        ({"default_model_filename": "a.plan"}, "8.9", "a.plan"),
        ({"cc_model_filenames": {"8.9": "ada.plan", "9.0": "hopper.plan"}}, "9.0", "hopper.plan"),
        ({"cc_model_filenames": {"9.0": "hopper.plan"}}, "8.9", "model.plan"),
    ],
)
def test_the_plan_of_the_gpus_compute_capability_is_chosen(
    tmp_path: Path, config: dict[str, Any], compute_capability: str, chosen: str
) -> None:
    (tmp_path / chosen).write_bytes(b"plan")
    assert choose_plan(tmp_path, config, "tensorrt", compute_capability).name == chosen


def test_a_missing_plan_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"model\.rtx\.plan is missing: run .*capability 12\.0`"):
        choose_plan(tmp_path, {}, "tensorrt_rtx", "12.0")


def write_plan(
    folder: Path, data: bytes = b"good", filename: str = "model.plan", **changes: Any
) -> Path:
    fields: dict[str, Any] = {
        "onnx_sha256": "0" * 64,
        "flavour": "tensorrt",
        "tensorrt_version": "11.4.0.106",
        "compute_capabilities": ("8.9",),
        "profile": {"x": {"min": (1, 2), "opt": (4, 4), "max": (8, 4)}},
        "options": {},
    }
    key = PlanKey(**{**fields, **changes})
    path = folder / filename
    path.write_bytes(data)
    manifest = describe(data, model="face_swapper", file=path.name, recipe={}, plan=key)
    write_manifest(path, manifest)
    return path


def test_a_plan_that_fits_is_accepted(tmp_path: Path) -> None:
    check_plan(write_plan(tmp_path), "tensorrt", "11.4.0", "8.9")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flavour": "tensorrt_rtx"}, "has only TensorRT 11.4.0"),
        ({"tensorrt_version": "10.13.0.35"}, "10.13.0.35, and this server has 11.4.0"),
        ({"compute_capabilities": ("9.0",)}, "GPU has 8.9.*--compute-capability 8.9"),
    ],
)
def test_a_foreign_plan_is_refused_with_the_command_to_run(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PlanError, match=f"{sentence}.*build_engines.py|{sentence}"):
        check_plan(write_plan(tmp_path, **changes), "tensorrt", "11.4.0", "8.9")


def test_a_plan_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"good")
    with pytest.raises(PlanError, match="has no manifest beside it"):
        check_plan(tmp_path / "model.plan", "tensorrt", "11.4.0", "8.9")


def test_shapes_are_compared_axis_by_axis() -> None:
    check_shapes("m", {"x": (8, 4)}, {"x": ((1, 2), (8, 4))})
    check_shapes("m", {"x": (1, 2), "other": (1,)}, {"x": ((1, 2), (8, 4))})


def test_kernels_are_kept_for_a_plan_a_gpu_and_a_version(tmp_path: Path) -> None:
    gpu = "NVIDIA GeForce RTX 4090"
    path = runtime_cache_path(tmp_path / "rtx_runtime", b"plan", gpu, "1.7.1")
    others = [
        runtime_cache_path(tmp_path / "rtx_runtime", b"plan2", gpu, "1.7.1"),
        runtime_cache_path(tmp_path / "rtx_runtime", b"plan", "NVIDIA A10", "1.7.1"),
        runtime_cache_path(tmp_path / "rtx_runtime", b"plan", gpu, "1.8.0"),
    ]
    assert len({path, *others}) == 4
    assert "/" not in path.name
    assert load_runtime_cache(path) == b""
    save_runtime_cache(path, b"", b"kernels")
    assert load_runtime_cache(path) == b"kernels"


def test_a_folder_that_cannot_keep_kernels_does_not_stop_a_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_runtime_cache(tmp_path / "file" / "x.kernels", b"", b"kernels")
    assert load_runtime_cache(tmp_path / "file" / "x.kernels") == b""


class TritonModelException(Exception):
    """What a backend raises when a model cannot be loaded."""


class Logger:
    """What Triton's log got."""

    lines: ClassVar[list[str]] = []
    log_warn = log_info = staticmethod(lines.append)


def make_triton_utils() -> ModuleType:
    utils = ModuleType("triton_python_backend_utils")
    error = type(
        "TritonError",
        (),
        {"INVALID_ARG": 3, "INTERNAL": 1, "__init__": lambda self, *a: setattr(self, "args", a)},
    )
    utils.__dict__.update(
        Tensor=object,
        TritonModelException=TritonModelException,
        TritonError=error,
        Logger=Logger,
        InferenceResponse=lambda tensors, error=None: SimpleNamespace(tensors=tensors, error=error),
    )
    return utils


def load_backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`model.py` as Triton's stub imports it, with a stand-in library."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", make_triton_utils())
    monkeypatch.setitem(sys.modules, "tensorrt", make_trt())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", make_trt("tensorrt_rtx", "1.7.1"))
    # Afresh, because each keeps the Triton module that it found; no later test finds this one.
    for name in ("tensorrt", "onnxruntime"):
        monkeypatch.delitem(sys.modules, f"server.backends.{name}.model", raising=False)
    module = importlib.import_module("server.backends.tensorrt.model")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend with a stand-in GPU too."""
    module = load_backend(monkeypatch)
    monkeypatch.setattr(module, "DeviceMemory", Memory)
    monkeypatch.setattr(module, "describe_device", lambda _: ("NVIDIA L4", "8.9"))
    return module


def model_args(folder: Path, *, kind: str = "GPU", **config: Any) -> dict[str, str]:
    tensors = {"data_type": "TYPE_FP32", "dims": [-1]}
    (folder / "1").mkdir(exist_ok=True)
    return {
        "model_config": json.dumps(
            {
                "name": "face_swapper",
                "max_batch_size": 8,
                "input": [{"name": "x", **tensors, "dims": [3]}],
                "output": [{"name": "y", **tensors}],
                **config,
            }
        ),
        "model_repository": str(folder),
        "model_version": "1",
        "model_instance_kind": kind,
        "model_instance_device_id": "0",
    }


def request(values: Any) -> Any:
    tensor = SimpleNamespace(name=lambda: "x", values=array(values), is_cpu=lambda: False)
    return SimpleNamespace(
        inputs=lambda: [tensor],
        requested_output_names=lambda: ["y"],
        is_cancelled=lambda: False,
    )


def rtx_config(folder: Path, **more: str) -> dict[str, Any]:
    parameters = {"engine_flavour": "tensorrt_rtx", "runtime_cache": str(folder / "rtx"), **more}
    return {
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        "default_model_filename": "model.rtx.plan",
        "optimization": {"cuda": {"graphs": True}},
    }


def write_rtx_plan(folder: Path) -> Path:
    return write_plan(
        folder / "1",
        filename="model.rtx.plan",
        flavour="tensorrt_rtx",
        tensorrt_version="1.7.1.116",
    )


def test_a_batch_of_requests_is_joined_run_and_split(backend: Any, tmp_path: Path) -> None:
    model, args = backend.TritonPythonModel(), model_args(tmp_path)
    write_plan(tmp_path / "1")
    model.initialize(args)
    responses = model.execute([request([[1, 2, 3]]), request([[4, 5, 6], [7, 8, 9]])])
    np.testing.assert_array_equal(responses[0].tensors[0].values, [[2, 3, 4]])
    np.testing.assert_array_equal(responses[1].tensors[0].values, [[5, 6, 7], [8, 9, 10]])


def test_a_request_outside_the_profile_fails_alone(backend: Any, tmp_path: Path) -> None:
    model, args = backend.TritonPythonModel(), model_args(tmp_path)
    write_plan(tmp_path / "1")
    model.initialize(args)
    good, bad = model.execute([request([[1, 2, 3]]), request([[1, 2, 3, 4, 5]])])
    assert good.error is None
    assert "takes [1, 2] to [8, 4]" in bad.error.args[0]
    assert bad.error.args[1] == 3, "INVALID_ARG: the client can do something about it"


def test_an_rtx_plan_is_loaded_with_its_own_library_and_keeps_its_kernels(
    backend: Any, tmp_path: Path
) -> None:
    args = model_args(tmp_path, **rtx_config(tmp_path))
    path = write_rtx_plan(tmp_path)
    for _ in range(2):
        model = backend.TritonPythonModel()
        model.initialize(args)
        (response,) = model.execute([request([[1, 2, 3]])])
        np.testing.assert_array_equal(response.tensors[0].values, [[2, 3, 4]])
    kept = runtime_cache_path(tmp_path / "rtx", path.read_bytes(), "NVIDIA L4", "1.7.1")
    assert kept.read_bytes() == b"kernels"


def test_without_a_named_folder_kernels_go_to_the_shared_cache(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "shared"))
    write_rtx_plan_args = model_args(tmp_path, **rtx_config(tmp_path, runtime_cache=""))
    write_rtx_plan(tmp_path)
    backend.TritonPythonModel().initialize(write_rtx_plan_args)
    assert len(list((tmp_path / "shared" / "rtx_runtime").glob("*.kernels"))) == 1


@pytest.mark.parametrize(
    ("arrange", "sentence"),
    [
        ({"kind": "CPU"}, "TensorRT needs KIND_GPU"),
        ({"data": b"other"}, r"cannot be loaded by tensorrt 11.4.0 \(magic tag does not match\)"),
        ({"missing": True}, "model.plan is missing: run `python build_engines.py"),
        ({"no_library": True}, "the Python package tensorrt is not installed"),
        ({"output": [{"name": "z", "data_type": "TYPE_FP32", "dims": [3]}]}, "has no output z"),
        ({"flavour": "tensorrt_rtx"}, "and this server has only TensorRT 11.4.0"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_sentence(
    backend: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrange: dict[str, Any],
    sentence: str,
) -> None:
    config = {"output": arrange["output"]} if "output" in arrange else {}
    args = model_args(tmp_path, kind=arrange.get("kind", "GPU"), **config)
    if "missing" not in arrange:
        flavour = arrange.get("flavour", "tensorrt")
        write_plan(tmp_path / "1", arrange.get("data", b"good"), flavour=flavour)
    if "no_library" in arrange:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TritonModelException, match=f"^face_swapper: .*{sentence}") as caught:
        backend.TritonPythonModel().initialize(args)
    assert "\n" not in str(caught.value)


UNTIL_PLAN = {"parameters": {"onnx_until_plan": {"string_value": "1"}}}


class OnnxModel:
    """Stands in for the `onnxruntime` backend."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return ["onnx"] * len(requests)


@pytest.fixture
def waiting(backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An instance that was loaded before its plan was there; `look()` is its next look."""
    Logger.lines.clear()
    monkeypatch.setattr(backend, "load_onnx", lambda args: OnnxModel())
    model = backend.TritonPythonModel()
    model.initialize(model_args(tmp_path, **UNTIL_PLAN))

    def look() -> Any:
        model._watch._next_s = 0.0
        return model.execute([request([[1, 2, 3]])])[0]

    return SimpleNamespace(model=model, look=look, folder=tmp_path / "1")


def test_without_a_plan_onnx_runtime_serves_if_it_was_told_to_and_says_so(waiting: Any) -> None:
    assert waiting.look() == "onnx"
    assert len(Logger.lines) == 1
    assert "model.plan is missing" in Logger.lines[0]
    assert Logger.lines[0].endswith("Until then ONNX Runtime runs the model.")


def test_an_instance_changes_over_when_its_plan_appears(waiting: Any) -> None:
    assert waiting.look() == "onnx"
    (waiting.folder / "model.plan").write_bytes(b"good")
    assert waiting.look() == "onnx", "the manifest is not there yet: a builder is at work"
    write_plan(waiting.folder)
    np.testing.assert_array_equal(waiting.look().tensors[0].values, [[2, 3, 4]])
    assert "from now on" in Logger.lines[-1]
    assert waiting.model._watch is None


def test_a_plan_that_does_not_load_is_reported_once_and_taken_when_it_is_replaced(
    waiting: Any,
) -> None:
    path = write_plan(waiting.folder, tensorrt_version="10.13.0")
    assert [waiting.look(), waiting.look()] == ["onnx", "onnx"]
    assert len(Logger.lines) == 2
    assert "ONNX Runtime goes on running the model: " in Logger.lines[1]
    assert "run `python build_engines.py" in Logger.lines[1]
    write_plan(waiting.folder)
    os.utime(manifest_path(path), ns=(1, 1))
    np.testing.assert_array_equal(waiting.look().tensors[0].values, [[2, 3, 4]])


def test_a_missing_plan_is_looked_for_once_in_a_while(tmp_path: Path) -> None:
    looks: list[float] = []
    now = [100.0]

    def find() -> Path:
        looks.append(now[0])
        raise PlanMissing("not yet")

    watch = plans.PlanWatch(find, every_s=10.0, clock=lambda: now[0])
    for step in range(30):
        now[0] = 100.0 + step
        assert watch.appeared() is None
    assert looks == [110.0, 120.0]


def test_the_onnxruntime_backend_itself_takes_over(backend: Any, tmp_path: Path) -> None:
    text = (
        '<ir_version: 9, opset_import: ["" : 18]>'
        "g (float[B, 3] x) => (float[B, 3] y) { y = Neg(x) }"
    )
    args = model_args(tmp_path, kind="CPU", **UNTIL_PLAN)
    onnx.save(onnx.parser.parse_model(text), tmp_path / "1" / plans.ONNX_FILENAME)
    assert hasattr(backend.load_onnx(args), "execute")


def test_the_backends_modules_are_the_ones_tested(backend: Any) -> None:
    assert backend.choose_plan is plans.choose_plan
    assert backend.ModelSettings is common.ModelSettings
