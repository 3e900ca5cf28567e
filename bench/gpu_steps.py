"""The steps of a served ensemble without Triton: where a batch's time goes, on the host and after.

    python -m bench.gpu_steps --repository out/gpu_work/repository_fp16 --processes 1 5

Processes under one MPS daemon load the ensemble as the `pipeline` backend does, each an instance,
and run 1080p batches, one face a frame, as fast as they can. Printed for each number of processes
and each batch size: frames a second of all of them; milliseconds of a batch in one of them, of
which the host was busy (and in which network), and waited for the GPU. `--mixed` runs batches of
every size in turn instead, and prints the slowest of each size: what a first run costs, and what
goes on costing. `--profile` prints Python's own profile of the host's part.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import multiprocessing
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from google.protobuf import json_format

from bench.scenes import Scene
from graphs.contract import OPTION_COUNT
from server.mps import end_daemon, find_control, start_daemon
from server.one_process import pipeline_config
from server.repository import read_repository

ENSEMBLE: Final = "swap_faces_i420"
OUTPUTS: Final = ("swapped_frame", "faces", "verdicts")
LIMIT_S: Final = 300.0
SIZES: Final = (1, 2, 4, 8, 16)


class Instance:
    """One instance of the ensemble, as the `pipeline` backend loads it.

    Attributes:
        spent: seconds of the host in each network so far.
    """

    def __init__(self, repository: Path) -> None:
        # The backend's modules ask Triton's stub for little more than its tensor type.
        sys.modules.setdefault(
            "triton_python_backend_utils",
            SimpleNamespace(  # type: ignore[arg-type]
                Tensor=None,
                TritonModelException=RuntimeError,
                Logger=SimpleNamespace(log_info=print),
            ),
        )
        model = importlib.import_module("server.backends.pipeline.model")
        read = read_repository(repository, "cuda", [ENSEMBLE])
        config = json_format.MessageToDict(
            pipeline_config(read.configs[ENSEMBLE], read, 1), preserving_proto_field_name=True
        )
        settings = model.ModelSettings.from_config(config, default_filename="")
        self.memory = model.DeviceMemory(None, 0)
        args = {"model_instance_kind": "GPU", "model_instance_device_id": "0"}
        steps = [model.load_step(text, args, self.memory)
                 for text in model.read_steps(settings.parameters)]  # fmt: skip
        self.spent: dict[str, float] = {}
        for step, text in zip(steps, model.read_steps(settings.parameters), strict=True):
            self._time(step.step, Path(text.folder).name)
        self.network = model.PipelineNetwork(steps)

    def _time(self, step: Any, name: str) -> None:
        inner = step.network.run

        def run(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - start

        step.network.run = run

    def inputs(self, batch: int, *, own: bool) -> dict[str, Any]:
        scene = Scene("one face", own=own)
        arrays = {
            "frame": np.repeat(scene.i420()[None], batch, axis=0),
            "source": np.repeat(scene.source()[None], batch, axis=0),
            "options": np.zeros((batch, OPTION_COUNT), np.float32),
        }
        self.memory.begin()
        return {name: self.memory.place(array) for name, array in arrays.items()}

    def run(self, inputs: Mapping[str, Any]) -> tuple[float, float]:
        """Seconds of launching and of waiting."""
        start = time.perf_counter()
        made = self.network.run(inputs, OUTPUTS, len(inputs["frame"]))
        launched = time.perf_counter()
        self.memory.finish()
        del made
        return launched - start, time.perf_counter() - launched


def _work(number: int, options: argparse.Namespace, barrier: Any, queue: Any) -> None:
    instance = Instance(options.repository)
    found: dict[str, Any] = {}
    own = options.own
    feeds = {size: instance.inputs(size, own=own) for size in SIZES}
    instance.memory.finish()
    if options.mixed:
        barrier.wait(LIMIT_S)
        order = np.random.default_rng(number).permutation(np.repeat(SIZES, options.rounds))
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for size in order:
            times[int(size)].append(sum(instance.run(feeds[int(size)])) * 1e3)
        found = {
            str(size): {"first": round(rows[0], 1), "second": round(rows[1], 1),
                        "median": round(float(np.median(rows)), 1),
                        "later, most": round(max(rows[2:]), 1)}
            for size, rows in times.items()
        }  # fmt: skip
        queue.put(found)
        return
    for batch in options.batches:
        for _ in range(4):
            instance.run(feeds[batch])
        barrier.wait(LIMIT_S)
        instance.spent.clear()
        end, rows = time.perf_counter() + options.seconds, []
        while time.perf_counter() < end:
            rows.append(instance.run(feeds[batch]))
        took = time.perf_counter() - end + options.seconds
        launched, waited = (np.mean(column) * 1e3 for column in zip(*rows, strict=True))
        found[str(batch)] = {
            "frames a second": round(batch * len(rows) / took, 1),
            "launching": round(float(launched), 2),
            "waiting": round(float(waited), 2),
            "steps": {n: round(s / len(rows) * 1e3, 2) for n, s in instance.spent.items()},
        }
        barrier.wait(LIMIT_S)
    if options.profile and number == 0:
        profile = cProfile.Profile()
        for _ in range(20):
            profile.runcall(instance.run, feeds[options.batches[-1]])
        pstats.Stats(profile).sort_stats("tottime").print_stats(22)
    queue.put(found)


def measure(processes: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each process found."""
    context = multiprocessing.get_context("spawn")
    queue, barrier = context.Queue(), context.Barrier(processes)
    workers = [context.Process(target=_work, args=(n, options, barrier, queue))
               for n in range(processes)]  # fmt: skip
    for worker in workers:
        worker.start()
    try:
        return [queue.get(timeout=LIMIT_S) for _ in workers]
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repository", type=Path, default=Path("out/gpu_work/repository_fp16"))
    parser.add_argument("--own", action="store_true", help="it holds the project's own network")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--batches", type=int, nargs="+", default=[16])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mixed", action="store_true", help="sizes in turn, the slowest of each")
    parser.add_argument("--rounds", type=int, default=20, help="of --mixed")
    parser.add_argument("--profile", action="store_true", help="Python's own")
    parser.add_argument("--output", type=Path, default=Path("out/gpu_steps.json"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        environment = start_daemon(Path(folder), find_control())
        os.environ.update(environment)
        try:
            everything = {count: measure(count, options) for count in options.processes}
        finally:
            end_daemon(environment)
    for count, found in everything.items():
        if options.mixed:
            print(f"{count} processes: {json.dumps(found[0])}")
            continue
        for batch in found[0]:
            rate = sum(each[batch]["frames a second"] for each in found)
            one = found[0][batch]
            print(
                f"{count} processes, batch {batch}: {rate:.0f} frames a second; launching "
                f"{one['launching']} ms, waiting {one['waiting']} ms; {one['steps']}"
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
