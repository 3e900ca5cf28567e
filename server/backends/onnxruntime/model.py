"""ONNX Runtime as a Python-based Triton backend, with the names of NVIDIA's C++ one.

A model folder holds `model.onnx` (or `default_model_filename`). Read from its config, as NVIDIA's
backend does: `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode`,
`enable_mem_arena`, `enable_mem_pattern`, any `session.*` entry, `optimization.graph.level`, and
`optimization.execution_accelerators.gpu_execution_accelerator` (`cuda`, `tensorrt`). The parameters
of this project's own (bounds, face rows, passthrough) are described in `common.py`.

Where `intra_op_thread_count` is absent an instance uses half of the cores that its process may use
(its CPU set and its container's quota), and its threads do not spin while they wait: several models
share those cores.

KIND_CPU runs on NumPy views of Triton's shared memory. KIND_GPU keeps every tensor on the device.
A provider that is asked for and missing fails the load.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils

from graphs.contract import (
    PARAMETER_LOW_PRIORITY,
    PARAMETER_RECORD_RUNS,
    PARAMETER_SESSION_PER_SIZE,
)
from server.backends.common import ModelSettings
from server.backends.device import (
    DeviceMemory,
    limit_rows,
    padded_sizes,
    row_padding,
    warm_inputs,
)
from server.backends.failures import explain
from server.backends.recording import RecordedRun
from server.backends.serving import RequestLoop
from server.backends.sessions import accelerators, check_providers, load_session, provider_entry
from server.backends.triton_arrays import HostMemory


class HostNetwork:
    """A session on the CPU."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run NumPy arrays; the outputs are NumPy arrays that own ONNX Runtime's memory."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))


class DeviceNetwork:
    """Sessions on one CUDA device, bound to raw device pointers on the memory's stream.

    ONNX Runtime keeps one cuDNN plan a convolution and makes it anew whenever the input's shape
    changes (core/providers/cuda/nn/conv.cc, `Conv::UpdateState`); a batch size that alternates
    would do so for the whole network each time. So a network with convolutions gets a session for
    each batch size, at the price of its weights in each.

    Args:
        open_session: loads the network once more, with the sizes of named axes fixed.
        memory: where the arrays are.
        per_size: a session for each batch size.
        turn: a context that runs are launched in, where the sessions are on another stream than the
            memory's.
    """

    def __init__(
        self,
        open_session: Callable[[Mapping[str, int]], ort.InferenceSession],
        memory: DeviceMemory,
        *,
        per_size: bool,
        turn: AbstractContextManager[None] = nullcontext(),  # noqa: B008  (has no state)
    ) -> None:
        self._open_session = open_session
        self._turn = turn
        self._per_size = per_size
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._recorded: dict[int, RecordedRun] = {}
        self._memory = memory
        self._run_options = ort.RunOptions()
        # The request loop waits once a batch, for its own stream; a run need not wait for itself.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run device arrays; the outputs are views of ONNX Runtime's own device memory."""
        size = _rows(inputs)
        if size in self._recorded:
            return self._recorded[size].run(inputs, outputs)
        return self._run_session(self._session_for(size), inputs, outputs)

    def record(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> None:
        """From now on replay a recording for inputs of these shapes, one batch size.

        Raises:
            RuntimeError: CUDA does not let this run be recorded; the process is then no longer fit
                to run anything (`recording`).
        """
        memory, size = self._memory, _rows(inputs)
        named = {
            axis: length
            for name, shape in self._named_shapes.items()
            for axis, length in zip(shape, inputs[name].shape, strict=True)
            if isinstance(axis, str)
        }
        session = self._sessions[size] = self._open_session(named)
        plain = self._run_session(session, inputs, outputs)
        given, made = (
            {name: memory.empty_like(array) for name, array in arrays.items()}
            for arrays in (inputs, plain)
        )
        for name, array in inputs.items():
            memory.put(given[name], array)
        binding = self._bind(session, given)
        for name, array in made.items():
            place = array.dtype.type, array.shape, array.data.ptr
            binding.bind_output(name, "cuda", memory.device_id, *place)

        def launch() -> None:
            session.run_with_iobinding(binding, self._run_options)

        # Once more without recording: nothing may be allocated by CUDA while it records.
        launch()
        memory.finish()
        replay, graph = memory.record(launch)
        self._recorded[size] = RecordedRun(
            memory, given, made, replay, kept=(session, binding, graph)
        )

    @cached_property
    def _named_shapes(self) -> Mapping[str, Sequence[int | str]]:
        """Input name to shape, with the names of axes that no session here has fixed."""
        return {entry.name: entry.shape for entry in self._open_session({}).get_inputs()}

    def _run_session(
        self, session: ort.InferenceSession, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> dict[str, Any]:
        binding = self._bind(session, inputs)
        for name in outputs:
            binding.bind_output(name, "cuda", self._memory.device_id)
        with self._turn:
            session.run_with_iobinding(binding, self._run_options)
        return {
            name: self._memory.wrap(value.data_ptr(), value.shape(), value.data_type(), value)
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        }

    def _bind(self, session: ort.InferenceSession, inputs: Mapping[str, Any]) -> Any:
        binding, device = session.io_binding(), self._memory.device_id
        for name, array in inputs.items():
            binding.bind_input(name, "cuda", device, array.dtype.type, array.shape, array.data.ptr)
        return binding

    def _session_for(self, size: int) -> ort.InferenceSession:
        key = size if self._per_size else 0
        if key not in self._sessions:
            self._sessions[key] = self._open_session({})
        return self._sessions[key]


def _rows(inputs: Mapping[str, Any]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def open_loop(args: Mapping[str, str], memory: Any = None) -> RequestLoop:
    """Load a model's network and make the loop that runs it.

    Args:
        args: as `TritonPythonModel.initialize` gets them.
        memory: where the arrays are, shared with other networks; None makes one.

    Raises:
        ValueError, RuntimeError: it cannot be loaded.
    """
    config = json.loads(args["model_config"])
    settings = ModelSettings.from_config(config, default_filename="model.onnx")
    path = Path(args["model_repository"]) / args["model_version"] / settings.model_filename
    if not path.is_file():
        raise ValueError(f"{path} is missing; build it with build_engines.py")
    if args["model_instance_kind"] == "GPU":
        device = memory or DeviceMemory(pb_utils.Tensor, int(args["model_instance_device_id"]))
        return _open_on_device(path, limit_rows(settings), device)
    check_providers(accelerators(settings), on_gpu=False)
    session = load_session(path, settings, ["CPUExecutionProvider"])
    return RequestLoop(
        settings, HostNetwork(session), memory or HostMemory(pb_utils.Tensor), pb_utils
    )


def _open_on_device(path: Path, settings: ModelSettings, memory: DeviceMemory) -> RequestLoop:
    entries = accelerators(settings) or [{"name": "cuda"}]
    check_providers(entries, on_gpu=True)
    # Finds the CUDA and cuDNN that pip installed, where the system has none.
    ort.preload_dlls()
    device_id, stream = memory.device_id, memory.stream_ptr
    turn: AbstractContextManager[None] = nullcontext()
    if settings.number(PARAMETER_LOW_PRIORITY):
        turn = side = memory.side_stream()
        stream = side.ptr
    providers = [
        provider_entry(entry["name"], entry.get("parameters", {}), device_id, stream)
        for entry in entries
    ]
    if all(entry["name"] != "cuda" for entry in entries):
        # What TensorRT does not take runs on the same device.
        providers.append(provider_entry("cuda", {}, device_id, stream))
    network = DeviceNetwork(
        lambda named: load_session(
            path, settings, [*providers, "CPUExecutionProvider"], sizes=named
        ),
        memory,
        per_size=bool(settings.number(PARAMETER_SESSION_PER_SIZE)),
        turn=turn,
    )
    sizes = padded_sizes(settings)
    memory.begin()
    for rows in sizes:
        given = warm_inputs(settings, rows, memory)
        if settings.number(PARAMETER_RECORD_RUNS):
            network.record(given, settings.computed_outputs)
        network.run(given, settings.computed_outputs, rows)
    memory.finish()
    return RequestLoop(settings, network, memory, pb_utils, padded_rows=row_padding(sizes))


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network; an exception here is the model's load error.

        Args:
            args: `model_config` (JSON), `model_repository` (the model's folder), `model_version`,
                `model_instance_kind`, `model_instance_device_id`.
        """
        name = json.loads(args["model_config"])["name"]
        try:
            self._loop = open_loop(args)
        except Exception as error:
            # ONNX Runtime's errors and CuPy's have no other base; each becomes one sentence.
            on_gpu = args["model_instance_kind"] == "GPU"
            device_id = int(args["model_instance_device_id"]) if on_gpu else None
            told = explain(error, device_id)
            raise pb_utils.TritonModelException(f"{name}: {told}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch; one response a request."""
        return self._loop.execute(requests)

    def finalize(self) -> None:
        """Let the sessions go while CUDA still answers; at interpreter exit it no longer does."""
        del self._loop
        gc.collect()
