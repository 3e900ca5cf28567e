"""TensorRT as a Python-based Triton backend, with the name of NVIDIA's C++ one.

A server without NVIDIA's `libtriton_tensorrt.so` (the one from a wheel) uses this file; where the
library is there, Triton prefers it and this file is never read. A model folder holds `model.plan`
(TensorRT) or `model.rtx.plan` (TensorRT-RTX), as the parameter `engine_flavour` says, or one plan
a compute capability, named in `cc_model_filenames`. TensorRT-RTX does not run on compute
capability 9.0 and 10.0 (H100, B200): such GPUs need TensorRT.

One process, one CUDA context and one execution context an instance. Tensors stay on the device.
`optimization.cuda.graphs` turns on CUDA graphs for shapes that repeat. What TensorRT-RTX compiles
while it loads is kept in `runtime_cache` (a folder; the shared cache where the config names none).

With `onnx_until_plan` "1" an instance without a plan serves `model.cuda.onnx` (build it with
`--target cuda`) through the `onnxruntime` backend, says so in the log, and changes over when the
plan appears. Without it a missing plan fails the load.

Everything that needs no device is in `server.backends.plans` and `.tensorrt_network`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from graphs.contract import PARAMETER_ONNX_UNTIL_PLAN
from server.backends.common import ModelSettings
from server.backends.device import (
    DeviceMemory,
    limit_rows,
    padded_sizes,
    row_padding,
    warm_inputs,
)
from server.backends.failures import explain
from server.backends.plans import (
    ONNX_FILENAME,
    PlanError,
    PlanMissing,
    PlanWatch,
    check_plan,
    choose_plan,
    load_runtime_cache,
    read_flavour,
    runtime_cache_path,
    save_runtime_cache,
)
from server.backends.serving import RequestLoop
from server.backends.tensorrt_network import TensorRTNetwork, load_engine, make_log


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the plan; an exception here is the model's load error.

        Args:
            args: `model_config` (JSON), `model_repository` (the model's folder), `model_version`,
                `model_instance_kind`, `model_instance_device_id`.
        """
        self._plan = plan = InstancePlan(args)
        self._watch: PlanWatch | None = None
        try:
            plan.prepare()
            self._loop: Any = plan.load(plan.find())
        except PlanMissing as missing:
            if plan.settings.parameters.get(PARAMETER_ONNX_UNTIL_PLAN) != "1":
                raise pb_utils.TritonModelException(f"{plan.settings.name}: {missing}") from missing
            pb_utils.Logger.log_warn(f"{missing}. Until then ONNX Runtime runs the model.")
            self._loop = load_onnx(args)
            self._watch = PlanWatch(plan.find)
        except (ValueError, RuntimeError, MemoryError) as error:
            told = explain(error, int(args["model_instance_device_id"]))
            raise pb_utils.TritonModelException(f"{plan.settings.name}: {told}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch; one response a request."""
        if self._watch is not None:
            self._change_over(self._watch)
        answers: list[Any] = self._loop.execute(requests)
        return answers

    def _change_over(self, watch: PlanWatch) -> None:
        """Take the plan once it is there; a plan that does not load leaves ONNX Runtime at it."""
        path = watch.appeared()
        if path is None:
            return
        try:
            self._loop = self._plan.load(path)
        except (ValueError, RuntimeError) as error:
            watch.refuse(path)
            pb_utils.Logger.log_warn(f"ONNX Runtime goes on running the model: {error}")
        else:
            self._watch = None
            pb_utils.Logger.log_info(f"{self._plan.settings.name} runs {path} from now on.")


def open_loop(args: Mapping[str, str], memory: DeviceMemory) -> RequestLoop:
    """Load a model's plan and make the loop that runs it, in a memory shared with other networks.

    Raises:
        PlanError, RuntimeError: it cannot be loaded; a plan that is missing is not waited for.
    """
    plan = InstancePlan(args, memory)
    plan.prepare()
    return plan.load(plan.find())


class InstancePlan:
    """One instance's library, device and plan.

    Args:
        args: as `TritonPythonModel.initialize` gets them.
        memory: where the arrays are; None makes one.
    """

    def __init__(self, args: Mapping[str, str], memory: DeviceMemory | None = None) -> None:
        self._args = args
        self._shared_memory = memory
        self._config = json.loads(args["model_config"])
        settings = ModelSettings.from_config(self._config, default_filename="model.plan")
        self.settings = limit_rows(settings)
        self._folder = Path(args["model_repository"]) / args["model_version"]

    def prepare(self) -> None:
        """Import the library and take the device.

        Raises:
            PlanError: the instance has no GPU, or the library is not installed.
        """
        settings = self.settings
        if self._args["model_instance_kind"] != "GPU":
            raise PlanError("TensorRT needs KIND_GPU; serve the cpu target without a GPU")
        self._flavour = read_flavour(settings.parameters, settings.name)
        self._trt = import_runtime(self._flavour)
        device_id = int(self._args["model_instance_device_id"])
        self._memory = self._shared_memory or DeviceMemory(pb_utils.Tensor, device_id)
        self._device_name, self._compute_capability = describe_device(self._memory.device_id)

    def find(self) -> Path:
        """The plan file of this GPU; raises PlanMissing."""
        return choose_plan(self._folder, self._config, self._flavour, self._compute_capability)

    def load(self, path: Path) -> RequestLoop:
        """Deserialise a plan, warm it up, and make the loop that runs it.

        Raises:
            PlanError, RuntimeError: it cannot be loaded or does not run.
        """
        settings, trt, memory = self.settings, self._trt, self._memory
        check_plan(path, self._flavour, trt.__version__, self._compute_capability)
        plan, log = path.read_bytes(), make_log(trt)
        engine = load_engine(trt, plan, log, settings.name)
        graphs = bool(settings.optimization.get("cuda", {}).get("graphs"))
        sizes = padded_sizes(settings)
        memory.begin()
        rtx = None
        if self._flavour == "tensorrt_rtx":
            kernels = runtime_cache_path(
                runtime_cache_folder(settings), plan, self._device_name, trt.__version__
            )
            rtx = RtxLoader(trt, engine, kernels, graphs)
            context, capture = rtx.context(), None
        else:
            context = engine.create_execution_context()
            capture = capture_graph if graphs else None
        runner = TensorRTNetwork(settings.name, trt, engine, context, memory, log, capture)
        unknown = set(settings.computed_outputs) - set(runner.outputs)
        if unknown:
            raise PlanError(f"{path} has no output {', '.join(sorted(unknown))}: build it again")
        warm_up(runner, settings, sizes, memory)
        if rtx is not None:
            rtx.keep_kernels()
        return RequestLoop(settings, runner, memory, pb_utils, padded_rows=row_padding(sizes))


class RtxLoader:
    """TensorRT-RTX's own: the cache of kernels made at load, and CUDA graphs inside the library."""

    def __init__(self, trt: Any, engine: Any, path: Path, graphs: bool) -> None:
        self._path = path
        self._before = load_runtime_cache(path)
        self._engine = engine
        self._config = runtime_config = engine.create_runtime_config()
        self._runtime_cache = runtime_cache = runtime_config.create_runtime_cache()
        if self._before:
            # Kernels of another driver or GPU are refused by the library, and made again.
            runtime_cache.deserialize(self._before)
        runtime_config.set_runtime_cache(runtime_cache)
        if graphs:
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def context(self) -> Any:
        """The execution context that uses the cache."""
        engine = self._engine
        return engine.create_execution_context(self._config)

    def keep_kernels(self) -> None:
        """Keep what was compiled so far for the next load."""
        runtime_cache = self._runtime_cache
        save_runtime_cache(self._path, self._before, bytes(runtime_cache.serialize()))


def load_onnx(args: Mapping[str, str]) -> Any:
    """The `onnxruntime` backend's model for the same instance, on the file of the `cuda` target."""
    # Here, so that a process that has its plan never loads ONNX Runtime.
    from server.backends.onnxruntime.model import TritonPythonModel as OnnxModel

    config = {**json.loads(args["model_config"]), "default_model_filename": ONNX_FILENAME}
    model = OnnxModel()
    model.initialize({**args, "model_config": json.dumps(config)})
    return model


def import_runtime(flavour: str) -> Any:
    """The library that loads plans of `flavour`.

    Raises:
        PlanError: it is not installed.
    """
    try:
        trt = importlib.import_module(flavour)
    except ImportError:
        trt = None
    if not hasattr(trt, "Runtime"):
        package = "tensorrt-rtx" if flavour == "tensorrt_rtx" else "tensorrt"
        raise PlanError(f"the Python package {package} is not installed in the server's Python")
    return trt


def describe_device(device_id: int) -> tuple[str, str]:
    """Name and compute capability of a CUDA device, like ("NVIDIA RTX 4090", "8.9")."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(device_id)
    return properties["name"].decode(), f"{properties['major']}.{properties['minor']}"


def runtime_cache_folder(settings: ModelSettings) -> Path:
    """The folder that the config names, or the one in the shared cache."""
    named = settings.parameters.get("runtime_cache")
    if named:
        return Path(named)
    from fetching.cache_folder import cache_dir

    return cache_dir() / "rtx_runtime"


def warm_up(
    runner: TensorRTNetwork, settings: ModelSettings, sizes: Sequence[int], memory: DeviceMemory
) -> None:
    """Run every batch size once, on small frames, so that no user waits for the first kernels."""
    for rows in sizes:
        runner.run(warm_inputs(settings, rows, memory), settings.computed_outputs, rows)
    memory.finish()


def capture_graph(enqueue: Callable[[], None]) -> Callable[[], None] | None:
    """Capture what `enqueue` puts on the current stream; None where that cannot be captured."""
    import cupy

    stream = cupy.cuda.get_current_stream()
    stream.begin_capture()
    try:
        enqueue()
    except RuntimeError:
        # The broken capture has to be ended all the same, or the stream stays unusable.
        with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
            stream.end_capture()
        return None
    try:
        graph = stream.end_capture()
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
    return lambda: graph.launch(stream)
