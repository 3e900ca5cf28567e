"""Can a served graph's run be recorded as one CUDA graph, and what would that save?

    python -m bench.gpu_graphs --repository out/gpu_work/repository_fp16 --only landmarker aligner

Each graph is loaded with its shapes fixed, so that ONNX Runtime folds what depends on them, run,
and recorded by a capture of the stream. Printed: milliseconds to launch and to run either way, how
many nodes the recording has, whether any reads or writes the host's memory (which ONNX Runtime
reuses after a run: such a recording must not be replayed), and how far a replay's outputs are from
a plain run's. A run that waits for the device cannot be recorded; CUDA's error is printed, and the
process ends with it, because ONNX Runtime's next call would meet the same error: so each graph is
tried in a process of its own.

Source: CUDA driver API, graph management (`cuGraphGetNodes`, `cuGraphMemcpyNodeGetParams`).
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty
from typing import Any, Final

import numpy as np

from bench.gpu_models import cases
from graphs.contract import DETECTED_FRAME, SEEN_FRAME

RUNS: Final = 30
LIMIT_S: Final = 90.0
KERNEL, MEMCPY, MEMSET, EMPTY = 0, 1, 2, 5
"""CUgraphNodeType."""
HOST_MEMORY, DEVICE_MEMORY, UNIFIED_MEMORY = 1, 2, 4
"""CUmemorytype."""
_MEMORY_TYPE: Final = 2
"""CU_POINTER_ATTRIBUTE_MEMORY_TYPE."""


class NotReplayable(Exception):
    """Why a recording must not be replayed."""


class _End(ctypes.Structure):
    """One end of a CUDA_MEMCPY3D."""

    _fields_ = (
        ("x", ctypes.c_size_t), ("y", ctypes.c_size_t), ("z", ctypes.c_size_t),
        ("level", ctypes.c_size_t), ("memory_type", ctypes.c_int), ("host", ctypes.c_void_p),
        ("device", ctypes.c_uint64), ("array", ctypes.c_void_p), ("reserved", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t), ("height", ctypes.c_size_t),
    )  # fmt: skip


class _Copy(ctypes.Structure):
    """CUDA_MEMCPY3D."""

    _fields_ = (
        ("source", _End), ("target", _End), ("width", ctypes.c_size_t), ("height", ctypes.c_size_t),
        ("depth", ctypes.c_size_t),
    )  # fmt: skip


def check_nodes(graph: int, driver: Any) -> int:
    """Return how many nodes a CUDA graph has, after a look at each.

    Args:
        graph: a cudaGraph_t.
        driver: libcuda.

    Raises:
        NotReplayable: one is no kernel, no memset and no copy within the device.
    """

    def call(name: str, *arguments: Any) -> None:
        code = getattr(driver, name)(*arguments)
        if code:
            raise NotReplayable(f"{name} answers {code}")

    handle, count = ctypes.c_void_p(graph), ctypes.c_size_t()
    call("cuGraphGetNodes", handle, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    call("cuGraphGetNodes", handle, nodes, ctypes.byref(count))
    for node in nodes:
        kind = ctypes.c_int()
        call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(kind))
        if kind.value == MEMCPY:
            copy = _Copy()
            call("cuGraphMemcpyNodeGetParams", ctypes.c_void_p(node), ctypes.byref(copy))
            for end in (copy.source, copy.target):
                _check_end(end, driver)
        elif kind.value not in (KERNEL, MEMSET, EMPTY):
            raise NotReplayable(f"it has a node of type {kind.value}")
    return count.value


def _check_end(end: _End, driver: Any) -> None:
    kind = end.memory_type
    if kind == UNIFIED_MEMORY:
        asked = ctypes.c_uint()
        code = driver.cuPointerGetAttribute(
            ctypes.byref(asked), _MEMORY_TYPE, ctypes.c_uint64(end.device)
        )
        # The driver does not know plain host memory, and says so with an error.
        kind = HOST_MEMORY if code else asked.value
    if kind != DEVICE_MEMORY:
        raise NotReplayable("it copies from or to the host")


def _timed(run: Callable[[], None], finish: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds to launch one of many runs, and to have it done."""
    finish()
    start = time.perf_counter()
    for _ in range(RUNS):
        run()
    launched = time.perf_counter() - start
    finish()
    return launched / RUNS * 1e3, (time.perf_counter() - start) / RUNS * 1e3


def _fixed_session(model: bytes, feeds: dict[str, Any], providers: list[Any]) -> Any:
    """A session whose named axes have the sizes of the feeds."""
    import onnxruntime as ort

    def load(sizes: dict[str, int]) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        for axis, size in sizes.items():
            options.add_free_dimension_override_by_name(axis, size)
        return ort.InferenceSession(model, options, providers=providers)

    return load(
        {
            axis: size
            for entry in load({}).get_inputs()
            for axis, size in zip(entry.shape, feeds[entry.name].shape, strict=True)
            if isinstance(axis, str)
        }
    )


def record(model: bytes, feeds: dict[str, Any], provider: dict[str, str]) -> str:
    """Record one graph's run of these shapes; a line for a person."""
    import cupy
    import onnxruntime as ort

    ort.preload_dlls()
    stream = cupy.cuda.Stream(non_blocking=True)
    run_options = ort.RunOptions()
    run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    providers = [
        ("CUDAExecutionProvider", {**provider, "user_compute_stream": str(stream.ptr)}),
        "CPUExecutionProvider",
    ]

    session = _fixed_session(model, feeds, providers)
    names = [
        entry.name for entry in session.get_outputs()
        if entry.name not in (DETECTED_FRAME, SEEN_FRAME)
    ]  # fmt: skip
    stream.use()
    given = {entry.name: cupy.asarray(feeds[entry.name]) for entry in session.get_inputs()}

    def bind(outputs: dict[str, Any]) -> Any:
        binding = session.io_binding()
        for name, array in given.items():
            place = array.dtype.type, array.shape, array.data.ptr
            binding.bind_input(name, "cuda", 0, *place)
        for name in names:
            if name in outputs:
                array = outputs[name]
                binding.bind_output(
                    name, "cuda", 0, array.dtype.type, array.shape, array.data.ptr
                )  # fmt: skip
            else:
                binding.bind_output(name, "cuda", 0)
        return binding

    first = bind({})
    session.run_with_iobinding(first, run_options)
    stream.synchronize()
    wanted = {
        name: value.numpy() for name, value in zip(names, first.get_outputs(), strict=True)
    }
    made = {name: cupy.zeros(array.shape, array.dtype) for name, array in wanted.items()}
    binding = bind(made)

    def plain() -> None:
        session.run_with_iobinding(binding, run_options)

    plain()
    before = _timed(plain, stream.synchronize)
    stream.begin_capture()
    plain()
    graph = stream.end_capture()
    nodes = check_nodes(int(graph.graph), ctypes.CDLL("libcuda.so.1"))
    for array in made.values():
        array.fill(0)
    graph.launch(stream)
    stream.synchronize()
    apart = max(
        float(np.nanmax(np.abs(made[name].get().astype(np.float64) - array)))
        for name, array in wanted.items()
    )
    after = _timed(lambda: graph.launch(stream), stream.synchronize)
    return (
        f"launch {before[0]:.2f} ms, run {before[1]:.2f} ms; as one graph of {nodes} nodes: "
        f"{after[0]:.2f} ms, {after[1]:.2f} ms; outputs apart by {apart:.2g}"
    )


def _try(repository: Path, wanted: str, batch: int, queue: Any) -> None:
    try:
        ((_, author, feeds, provider),) = [
            case for case in cases(repository) if case[0] == wanted
        ]  # fmt: skip
        queue.put(record(author(), feeds(batch), provider))
    except Exception:
        queue.put(" ".join(traceback.format_exc(limit=2).split())[-400:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repository", type=Path, default=Path("out/gpu_work/repository_fp16"))
    parser.add_argument("--batches", type=int, nargs="+", default=[16])
    parser.add_argument("--only", nargs="*", help="names of graphs, as bench.gpu_models has them")
    options = parser.parse_args(arguments)
    names = [case[0] for case in cases(options.repository)]
    context = multiprocessing.get_context("spawn")
    for name in options.only or names:
        if name not in names:
            parser.error(f"there is no graph {name!r}; these are: {', '.join(names)}")
        for batch in options.batches:
            queue = context.Queue()
            process = context.Process(
                target=_try, args=(options.repository, name, batch, queue), daemon=True
            )
            process.start()
            try:
                told = queue.get(timeout=LIMIT_S)
            except Empty:
                told = f"no answer within {LIMIT_S:.0f} s"
            print(f"{name}, batch {batch}: {told}", flush=True)
            process.kill()
            process.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
