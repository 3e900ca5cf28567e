"""What the GPU does without a server: products, copies, and the swapper's engine alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime

from bench.gpu_models import swapper_feeds
from engines.configs import CudaOptions

SIDE: Final = 8192
COPY_BYTES: Final = 2 << 30
SECONDS: Final = 1.5
UNWAITED_RUNS: Final = 8


def matrix_rate() -> float:
    """TFLOP/s of a float16 product of two 8192 x 8192 matrices."""
    import torch

    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    elapsed = _seconds_a_run(lambda: left @ right, 40)
    return round(2 * SIDE**3 / elapsed / 1e12, 1)


def copy_rate() -> float:
    """GB/s that a copy within the GPU's memory moves, reading and writing counted."""
    import torch

    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    elapsed = _seconds_a_run(lambda: target.copy_(source), 40)
    return round(2 * COPY_BYTES / elapsed / 1e9, 1)


def _seconds_a_run(work: Callable[[], Any], count: int) -> float:
    import torch

    for _ in range(5):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    elapsed = (time.perf_counter() - start) / count
    torch.cuda.empty_cache()
    return elapsed


def load_cuda() -> None:
    """Have CUDA's and cuDNN's libraries loaded, which ONNX Runtime's provider does not find alone.

    PyTorch brings them where it is installed; else the packages that ONNX Runtime names.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        onnxruntime.preload_dlls()


def check_provider(providers: Sequence[str]) -> None:
    """Refuse a session that fell back: ONNX Runtime takes the CPU with no more than a warning.

    Raises:
        RuntimeError: it does not run on CUDA.
    """
    if "CUDAExecutionProvider" not in providers:
        raise RuntimeError(f"ONNX Runtime runs on {', '.join(providers)} instead of CUDA")


def engine_rate(model: Path, batch: int, *, side: int = 128, own: bool = False) -> float:
    """Faces a second of the served swapper graph alone, float32 crops on the device.

    Runs are launched one after the other, as a server does, and waited for every few.

    Args:
        side: of the crops, pixels.
        own: it is the project's own network, which is not rewritten channels-last.
    """
    import cupy

    load_cuda()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    provider = CudaOptions().parameters(channels_last=not own)
    session = onnxruntime.InferenceSession(
        str(model), settings, providers=[("CUDAExecutionProvider", provider)]
    )
    check_provider(session.get_providers())
    binding = session.io_binding()
    feeds = swapper_feeds(batch, side=side, own=own)
    inputs = {name: cupy.asarray(array) for name, array in feeds.items()}
    output = cupy.empty((batch, 1, 3, side, side), cupy.float32)
    for name, array in inputs.items():
        binding.bind_input(name, "cuda", 0, np.float32, array.shape, array.data.ptr)
    binding.bind_output("swapped_crops", "cuda", 0, np.float32, output.shape, output.data.ptr)
    cupy.cuda.Device().synchronize()
    return faces_a_second(session, binding, batch, cupy.cuda.Device().synchronize)


def faces_a_second(
    session: onnxruntime.InferenceSession, binding: Any, batch: int, wait: Callable[[], Any]
) -> float:
    """Of runs launched one after the other and waited for every few. wait: for the device."""
    unwaited = onnxruntime.RunOptions()
    unwaited.add_run_config_entry("disable_synchronize_execution_providers", "1")
    for _ in range(4):
        session.run_with_iobinding(binding)
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for _ in range(UNWAITED_RUNS):
            session.run_with_iobinding(binding, unwaited)
        wait()
        runs += UNWAITED_RUNS
    return round(runs * batch / (time.perf_counter() - start), 1)


def bytes_a_face(network: onnx.ModelProto, *, batch: int = 8) -> dict[str, float]:
    """MB of memory that one face of a batch moves in float16, by the network's own shapes.

    "least": convolutions and products alone read and write, everything else is fused into them.
    "most": every node reads its inputs and writes its output. Weights are read once a batch.
    """
    shapes = _shapes(network)
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in network.graph.initializer}
    least = most = 0
    for node in network.graph.node:
        moved = sum(shapes.get(name, 0) for name in (*node.input, *node.output))
        most += moved
        least += moved if node.op_type in ("Conv", "Gemm", "MatMul") else 0
    read = sum(weights.values()) / batch
    return {
        "least MB": round(2 * (least + read) / 1e6, 1),
        "most MB": round(2 * (most + read) / 1e6, 1),
    }


def _shapes(network: onnx.ModelProto) -> dict[str, int]:
    """Elements of every tensor that is not a weight."""
    inferred = onnx.shape_inference.infer_shapes(network)
    graph = inferred.graph
    elements = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
        elements[value.name] = int(np.prod(sizes))
    return elements


def roofline(
    faces_per_s: float, *, gflop: float, matrix: float, copy: float, moved: Mapping[str, float]
) -> dict[str, float]:
    """The two ceilings in faces a second, and how much of the lower one was reached.

    Args:
        gflop: of a face. matrix: TFLOP/s. copy: GB/s. moved: of `bytes_a_face`.
    """
    by_products = matrix * 1e3 / gflop
    by_memory = copy * 1e3 / moved["least MB"]
    return {
        "faces a second by products": round(by_products, 1),
        "faces a second by memory, all fused": round(by_memory, 1),
        "faces a second by memory, nothing fused": round(copy * 1e3 / moved["most MB"], 1),
        "% of the lower ceiling": round(100 * faces_per_s / min(by_products, by_memory), 1),
    }
