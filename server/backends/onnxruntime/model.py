"""ONNX Runtime as a Python-based Triton backend, with the names of NVIDIA's C++ one.

A model folder holds `model.onnx` (or `default_model_filename`). Read from its config, as NVIDIA's
backend does: `intra_op_thread_count`, `inter_op_thread_count`, `execution_mode`,
`enable_mem_arena`, `enable_mem_pattern`, any `session.*` entry, `optimization.graph.level`, and
`optimization.execution_accelerators.gpu_execution_accelerator` (`cuda`, `tensorrt`). The parameters
of this project's own (bounds, face rows, passthrough) are described in `common.py`.

Where `intra_op_thread_count` is absent an instance uses the cores that its process may use, and
its threads do not spin while they wait: several models share those cores.

KIND_CPU runs on NumPy views of Triton's shared memory. KIND_GPU keeps every tensor on the device.
A provider that is asked for and missing fails the load.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from frameswap_backend.common import ModelSettings
from frameswap_backend.device import (
    DeviceMemory,
    limit_rows,
    padded_sizes,
    row_padding,
    warm_inputs,
)
from frameswap_backend.serving import RequestLoop
from frameswap_backend.triton_arrays import HostMemory

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

# NVIDIA's backend takes ONNX Runtime's C enumerations as numbers; Python's options are words.
CUDA_NUMBERS = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}


class HostNetwork:
    """A session on the CPU."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run NumPy arrays; the outputs are NumPy arrays that own ONNX Runtime's memory."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))


class DeviceNetwork:
    """A session on one CUDA device, bound to raw device pointers on the memory's stream."""

    def __init__(self, session: ort.InferenceSession, memory: DeviceMemory) -> None:
        self._session = session
        self._memory = memory
        self._run_options = ort.RunOptions()
        # The request loop waits once a batch, for its own stream; a run need not wait for itself.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        """Run device arrays; the outputs are views of ONNX Runtime's own device memory."""
        device = self._memory.device_id
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cuda", device, array.dtype.type, array.shape, array.data.ptr)
        for name in outputs:
            binding.bind_output(name, "cuda", device)
        self._session.run_with_iobinding(binding, self._run_options)
        return {
            name: self._memory.wrap(value.data_ptr(), value.shape(), value.data_type(), value)
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        }


class TritonPythonModel:
    """The class that Triton's Python backend looks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network; an exception here is the model's load error.

        Args:
            args: `model_config` (JSON), `model_repository` (the model's folder), `model_version`,
                `model_instance_kind`, `model_instance_device_id`.
        """
        config = json.loads(args["model_config"])
        self._settings = settings = ModelSettings.from_config(config, default_filename="model.onnx")
        folder = Path(args["model_repository"]) / args["model_version"]
        path = folder / settings.model_filename
        if not path.is_file():
            raise pb_utils.TritonModelException(
                f"{path} is missing: build the model repository with build_engines.py."
            )
        try:
            if args["model_instance_kind"] == "GPU":
                self._load_on_device(path, int(args["model_instance_device_id"]))
            else:
                session = load_session(path, settings, ["CPUExecutionProvider"])
                memory = HostMemory(pb_utils.Tensor)
                self._loop = RequestLoop(settings, HostNetwork(session), memory, pb_utils)
        except (ValueError, RuntimeError) as error:
            raise pb_utils.TritonModelException(f"{settings.name}: {error}") from error

    def _load_on_device(self, path: Path, device_id: int) -> None:
        self._settings = settings = limit_rows(self._settings)
        accelerators = settings.optimization.get("execution_accelerators", {}).get(
            "gpu_execution_accelerator", []
        ) or [{"name": "cuda"}]
        names = [entry["name"] for entry in accelerators]
        check_providers(names)
        # Finds the CUDA and cuDNN that pip installed, where the system has none.
        ort.preload_dlls()
        memory = DeviceMemory(pb_utils.Tensor, device_id)
        providers = [
            provider_entry(entry["name"], entry.get("parameters", {}), device_id, memory.stream_ptr)
            for entry in accelerators
        ]
        if "cuda" not in names:
            # What TensorRT does not take runs on the same device.
            providers.append(provider_entry("cuda", {}, device_id, memory.stream_ptr))
        session = load_session(path, settings, [*providers, "CPUExecutionProvider"])
        network = DeviceNetwork(session, memory)
        sizes = padded_sizes(settings)
        memory.begin()
        for rows in sizes:
            network.run(warm_inputs(settings, rows, memory), settings.computed_outputs, rows)
        memory.finish()
        self._loop = RequestLoop(
            settings, network, memory, pb_utils, padded_rows=row_padding(sizes)
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer one batch; one response a request."""
        return self._loop.execute(requests)


def check_providers(names: Sequence[str]) -> None:
    """Refuse accelerators that this ONNX Runtime was built without.

    Raises:
        ValueError: names the provider and the package that brings it.
    """
    available = ort.get_available_providers()
    for name in names:
        if name not in PROVIDERS:
            raise ValueError(
                f"the execution accelerator {name!r} is not known; use {' or '.join(PROVIDERS)}."
            )
        if PROVIDERS[name] not in available:
            raise ValueError(
                f"this ONNX Runtime {ort.__version__} has no {PROVIDERS[name]} (it has "
                f"{', '.join(available)}); install onnxruntime-gpu, or serve the cpu variant."
            )


def provider_entry(
    name: str, parameters: Mapping[str, str], device_id: int, stream: int
) -> tuple[str, dict[str, str]]:
    """Translate one accelerator of a config into ONNX Runtime's provider and its options."""
    options = {"device_id": str(device_id), "user_compute_stream": str(stream)}
    for key, value in parameters.items():
        words = CUDA_NUMBERS.get(key, ())
        if key == "precision_mode":
            options["trt_fp16_enable"] = "1" if value.upper() == "FP16" else "0"
            options["trt_int8_enable"] = "1" if value.upper() == "INT8" else "0"
        elif key == "max_workspace_size_bytes":
            options["trt_max_workspace_size"] = value
        elif value.isdigit() and int(value) < len(words):
            options[key] = words[int(value)]
        else:
            options[key] = value
    return PROVIDERS[name], options


def usable_cores() -> int:
    """Return the cores that this process may use (its CPU set)."""
    return len(os.sched_getaffinity(0))


def load_session(
    path: Path, settings: ModelSettings, providers: Sequence[Any]
) -> ort.InferenceSession:
    """Load a network with the config's options, on the first of the providers.

    Raises:
        ValueError: a parameter cannot be read, or the first provider did not start.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = settings.number("intra_op_thread_count") or usable_cores()
    options.inter_op_num_threads = settings.number("inter_op_thread_count") or 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if settings.number("execution_mode"):
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    for key, attribute in (
        ("enable_mem_arena", "enable_cpu_mem_arena"),
        ("enable_mem_pattern", "enable_mem_pattern"),
    ):
        value = settings.number(key)
        if value is not None:
            setattr(options, attribute, bool(value))
    for key, text in settings.parameters.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, text)
    level = settings.optimization.get("graph", {}).get("level", 0)
    options.graph_optimization_level = {
        -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    }.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    session = ort.InferenceSession(path, options, providers=list(providers))
    session.disable_fallback()
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if first not in session.get_providers():
        raise ValueError(
            f"{first} did not start, although this ONNX Runtime has it; check that the driver, "
            "CUDA and cuDNN are the versions that it was built for."
        )
    unknown = set(settings.computed_outputs) - {entry.name for entry in session.get_outputs()}
    if unknown:
        raise ValueError(f"{path} has no output {', '.join(sorted(unknown))}; build it again.")
    return session
