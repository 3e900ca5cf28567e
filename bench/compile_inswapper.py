"""Compile the architecture-identical inswapper_128 in float16 and print its time and memory.

    python -m bench.compile_inswapper --compute-capability 8.9

The network has random weights: it is generated, never downloaded, and swaps no face. Authoring
and compiling run in a process each, so that the peak memory of one does not hide the other's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from bench import random_inswapper
from engines.compilers import CompiledPlan, CompileOptions, choose_compiler
from engines.devices import parse_compute_capability
from engines.errors import EngineError
from engines.precision import to_fp16
from engines.profiles import AxisRange, ProfileLimits, ShapeRange, make_profile, planned_memory
from engines.shapes import check_elements
from graphs import face_swapper
from networks.swappers import SWAPPERS


class Stopwatch:
    """Prints a line a step: its seconds, and the most memory this process has held so far."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def tell(self, step: str) -> None:
        now = time.perf_counter()
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        seconds = now - self._started
        print(f"{step:<32} {seconds:7.1f} s   peak host memory {peak_mib:6,} MiB", flush=True)
        self._started = now


def author(path: Path, precision: str) -> None:
    """Write the typed face_swapper graph to `path`."""
    watch = Stopwatch()
    network = random_inswapper.build()
    watch.tell("generate the network")
    graph = face_swapper.build(SWAPPERS["inswapper_128"], network)
    watch.tell("author face_swapper")
    if precision == "fp16":
        graph = to_fp16(graph)
        watch.tell("type it as float16")
    path.write_bytes(graph.SerializeToString(deterministic=True))


def compile_plan(
    path: Path,
    profile: Mapping[str, ShapeRange],
    devices: Sequence[str],
    optimization_level: int | None,
) -> CompiledPlan:
    """Compile the graph in `path`; the plan's bytes stay behind, their number comes back."""
    watch = Stopwatch()
    options = CompileOptions(optimization_level=optimization_level)
    plan = choose_compiler().compile(
        path.read_bytes(), profile=profile, compute_capabilities=devices, options=options
    )
    watch.tell(f"compile for {', '.join(devices)}")
    return replace(plan, data=str(len(plan.data)).encode())


def in_its_own_process(work: Any, *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def report(path: Path, arguments: argparse.Namespace) -> None:
    """Author, check, compile; then say what the plan takes."""
    devices = [parse_compute_capability(text) for text in arguments.compute_capability or ["8.9"]]
    choose_compiler().check_devices(devices)
    in_its_own_process(author, path, arguments.precision)
    graph = onnx.load(path)
    limits = ProfileLimits(
        batch=AxisRange(1, arguments.max_batch, arguments.max_batch),
        faces=AxisRange(1, 1, arguments.max_faces),
    )
    profile = make_profile(graph, limits)
    shapes = check_elements(graph, {name: sizes.max for name, sizes in profile.items()})
    plan = in_its_own_process(compile_plan, path, profile, devices, arguments.optimization_level)
    memory = planned_memory(shapes, plan.activation_bytes, plan.weight_bytes)
    print(f"{plan.flavour} {plan.version}, {arguments.precision}")
    print(f"ONNX {path.stat().st_size / 1e6:,.1f} MB, plan {int(plan.data) / 1e6:,.1f} MB")
    print(
        f"GPU memory of one instance at {arguments.max_batch} frames of {arguments.max_faces} "
        f"faces: {memory.total_bytes() / 2**20:,.0f} MiB"
    )
    for name, size in vars(memory).items():
        print(f"  {name:<18} {size / 2**20:10,.1f} MiB")
    print(f"  largest tensor     {shapes.largest.elements:,} elements {list(shapes.largest.shape)}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--compute-capability", action="append", help="of the GPU; may be given more than once"
    )
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16")
    parser.add_argument("--max-batch", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--max-faces", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--optimization-level", type=int, help="(default: the compiler's own)")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report(Path(folder) / "face_swapper.onnx", arguments)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
