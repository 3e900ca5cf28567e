"""ONNX Runtime sessions from a Triton config, with the parameters of NVIDIA's backend.

Source: onnxruntime_backend/README.md (model configuration options); ONNX Runtime's documentation
of the CUDA and TensorRT execution providers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from server.backends.common import ModelSettings

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

# NVIDIA's backend takes ONNX Runtime's C enumerations as numbers; Python's options are words.
CUDA_NUMBERS = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}


def accelerators(settings: ModelSettings) -> list[dict[str, Any]]:
    """Return every execution accelerator of a config: `name`, and `parameters` where given."""
    groups = settings.optimization.get("execution_accelerators", {})
    return [entry for key in sorted(groups, reverse=True) for entry in groups[key]]


def check_providers(entries: Sequence[Mapping[str, Any]], *, on_gpu: bool) -> None:
    """Refuse accelerators that this ONNX Runtime was built without.

    Raises:
        ValueError: names the provider and the package that brings it.
    """
    available = ort.get_available_providers()
    for name in [entry["name"] for entry in entries]:
        if name not in PROVIDERS:
            raise ValueError(
                f"the execution accelerator {name!r} is not known; use {' or '.join(PROVIDERS)}"
            )
        if PROVIDERS[name] not in available:
            raise ValueError(
                f"this ONNX Runtime {ort.__version__} has no {PROVIDERS[name]} (it has "
                f"{', '.join(available)}); install onnxruntime-gpu, or serve the cpu target"
            )
        if not on_gpu:
            raise ValueError(f"the execution accelerator {name!r} needs KIND_GPU")


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


def usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Return the cores that this process may use: its CPU set, and a container's quota of time.

    Args:
        quota: control group file that holds microseconds of CPU and the period they are for
            (kernel documentation, cgroup v2, cpu.max).
    """
    cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
    except OSError:
        return cores
    return cores if allowed == "max" else max(1, min(cores, int(allowed) // int(period)))


def default_threads(cores: int) -> int:
    """Return the threads of one session: half of the cores.

    Models of an ensemble work on different frames at once, beside a decoder and an encoder, and
    each operator that is shared out wakes every thread: on two cores, whole 720p jobs ran 23 %
    faster with one thread a model than with two, for 7 % less processor time.
    """
    return max(1, cores // 2)


def load_session(
    path: Path,
    settings: ModelSettings,
    providers: Sequence[Any],
    *,
    sizes: Mapping[str, int] | None = None,
) -> ort.InferenceSession:
    """Load a network with the config's options, on the first of the providers.

    Args:
        sizes: named axes that shall have these sizes and no other; what depends on them is computed
            now, not with each run.

    Raises:
        ValueError: a parameter cannot be read, or the first provider did not start.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    threads = settings.number("intra_op_thread_count")
    options.intra_op_num_threads = threads or default_threads(usable_cores())
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
    for axis, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(axis, size)
    level = settings.optimization.get("graph", {}).get("level", 0)
    options.graph_optimization_level = {
        -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    }.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    # ONNX Runtime's own fallback would hide why a provider does not start, and run on the CPU.
    session = ort.InferenceSession(path, options, providers=list(providers), enable_fallback=0)
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if first not in session.get_providers():
        raise ValueError(
            f"{first} did not start, although this ONNX Runtime has it; check that the driver, "
            "CUDA and cuDNN are the versions that it was built for"
        )
    unknown = set(settings.computed_outputs) - {entry.name for entry in session.get_outputs()}
    if unknown:
        raise ValueError(f"{path} has no output {', '.join(sorted(unknown))}; build it again")
    return session
