"""Can a served graph's run be recorded as one CUDA graph, and what would that save?

    python -m bench.gpu_graphs --repository out/gpu_work/repository_fp16 --only landmarker aligner

Each graph is loaded with its shapes fixed, so that ONNX Runtime folds what depends on them, run,
and recorded by a capture of the stream. Printed: milliseconds to launch and to run either way, how
many nodes the recording has, whether any reads or writes the host's memory (which ONNX Runtime
reuses after a run: such a recording must not be replayed), and how far a replay's outputs are from
a plain run's. A run that waits for the device cannot be recorded; CUDA's error is printed, and the
process ends with it, because ONNX Runtime's next call would meet the same error: so each graph is
tried in a process of its own.
"""

from __future__ import annotations

import argparse
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
from server.backends.recording import check_nodes

RUNS: Final = 30
LIMIT_S: Final = 90.0


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
    nodes = check_nodes(int(graph.graph))
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
