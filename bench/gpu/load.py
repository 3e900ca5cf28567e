"""perf_analyzer against the server: runs that end, figures that say what they are of."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.gpu.modes import ENSEMBLE
from bench.gpu.sampler import (
    METRICS_PERIOD_S,
    Sampler,
    endpoint_facts,
    find_probe,
    gpu_facts,
    metrics_probe,
)
from bench.gpu.serving import ServerKeeper, statistics, statistics_between
from bench.perf_windows import WINDOWS, read_table, window_s, window_words
from bench.scenes import Scene
from graphs.contract import OPTION_COUNT

IN_FLIGHT: Final = 96
"""A batch of 16 for each of five instances, and one that waits: they are always full."""
PROBE_REQUESTS: Final = 64
SECONDS: Final = 6.0
PROBE_LIMIT_S: Final = 45.0
FIXED_SHAPES: Final = ("options", "faces")
"""Inputs whose shape the configs fix: perf_analyzer is told the others'."""


@dataclass(frozen=True)
class Request:
    """What is sent again and again.

    name: of the folder that it is written to. arrays: input name to array, without a batch axis.
    output_bytes: of the largest output.
    """

    name: str
    arrays: Mapping[str, NDArray[Any]]
    output_bytes: int
    model: str = ENSEMBLE

    def write(self, folder: Path) -> list[str]:
        """Write one raw file an input; returns perf_analyzer's arguments for them."""
        folder.mkdir(parents=True, exist_ok=True)
        shapes: list[str] = []
        for name, array in self.arrays.items():
            np.ascontiguousarray(array).tofile(folder / name)
            if name not in FIXED_SHAPES:
                shapes += ["--shape", f"{name}:{','.join(map(str, array.shape))}"]
        return ["--input-data", str(folder), *shapes]


def scene_request(scene: Scene, model: str = ENSEMBLE) -> Request:
    """A frame with its sources, as the ensemble and the detector take it."""
    frame = scene.i420()
    arrays: dict[str, NDArray[Any]] = {
        "frame": frame,
        "source": scene.source(),
        "options": np.zeros(OPTION_COUNT, np.float32),
    }
    # Crops and matrices of few faces are smaller than half of a megabyte each.
    return Request(scene.name, arrays, max(frame.size, scene.slots << 20), model)


def last_words(*outputs: str) -> str:
    """What a program said of its failure: without the options that it lists after it."""
    lines = [line.strip() for text in outputs for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("-") and len(line) < 400]
    told = [line for line in kept if "error" in line.lower() or "fail" in line.lower()]
    return "; ".join((told or kept[-3:])[:3])[:400]


@dataclass(frozen=True)
class LoadTest:
    """perf_analyzer against the server that the keeper runs.

    binary, environment: the program. folder: for its files. seconds: what counts of a run.
    """

    binary: Path
    environment: Mapping[str, str]
    folder: Path
    keeper: ServerKeeper
    seconds: float = SECONDS

    def run(
        self,
        request: Request,
        *,
        memory: str = "cuda",
        concurrency: int = IN_FLIGHT,
        rate: float | None = None,
        seconds: float | None = None,
        probe: int = PROBE_REQUESTS,
        batch: int = 1,
        endpoint: bool = False,
    ) -> dict[str, Any]:
        """A short run tells the rate (and warms up), a second one of about `seconds` counts.

        The short one sends a number of requests; its rate is that of its median latency, because
        perf_analyzer's own of such a run is too low (`bench.perf_windows` says why).

        Args:
            memory: "cuda", "system" or "none" (gRPC bytes).
            concurrency: requests in flight, where no rate is given.
            rate: requests a second, sent at random (Poisson) moments.
            batch: frames that one request holds.
            endpoint: read the server's own metrics too; it renews them every ten seconds.

        Returns:
            Frames a second, latencies in ms, each model's statistics, the GPU's facts.

        Raises:
            RuntimeError: perf_analyzer failed or did not end; its own last words.
        """
        load = ["--concurrency-range", str(concurrency)]
        if rate is not None:
            load = ["--request-rate-range", f"{rate:.1f}", "--request-distribution", "poisson"]
            # Without it four threads wait for an answer each: 206 a second were sent of 385.
            load.append("--async")
        folder = self.folder / request.name.replace(" ", "_")
        words = [*request.write(folder), "-b", str(batch), *load]
        if memory != "none":
            size = str(request.output_bytes * batch)
            words += ["--shared-memory", memory, "--output-shared-memory-size", size]
        found = rate or 0.0
        if rate is None:
            count = ["--request-count", str(max(probe, concurrency))]
            first = self._once(request.model, [*words, *count], PROBE_LIMIT_S)
            found = concurrency / max(first["p50 ms"] / 1e3, 1e-4)
        wanted = self.seconds if seconds is None else seconds
        window = window_s(found, in_flight=1 if rate else concurrency, seconds=wanted)
        words += window_words(window)
        # 64 frames of 3 MB in flight over gRPC alone took longer than 26 s to begin.
        limit_s = 30 + 3 * WINDOWS * window
        before = statistics(self.keeper.server.grpc_url)
        metrics = metrics_probe(str(self.keeper.server.doors.metrics_url)) if endpoint else None
        with Sampler(find_probe()) as gpu, Sampler(metrics, METRICS_PERIOD_S) as told:
            facts: dict[str, Any] = self._once(request.model, words, limit_s)
        after = statistics(self.keeper.server.grpc_url)
        return {
            **facts,
            **({"batch": batch} if batch > 1 else {}),
            **({"in flight": concurrency} if rate is None else {"asked per second": rate}),
            "seconds": round(WINDOWS * window, 1),
            "models": statistics_between(before, after),
            **gpu_facts(gpu),
            **(endpoint_facts(told) if endpoint else {}),
        }

    def _once(self, model: str, words: Sequence[str], limit_s: float) -> dict[str, float]:
        table = self.folder / "perf.csv"
        table.unlink(missing_ok=True)
        # It may start the server again, on the same ports.
        self.keeper.clear_regions()
        command = [
            str(self.binary), "-m", model, "-u", self.keeper.server.grpc_url, "-i", "grpc",
            *words, "-f", str(table),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s,
                env={**self.environment, **self.keeper.environment}, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"perf_analyzer was stopped after {limit_s:.0f} s") from error
        if not table.exists():
            raise RuntimeError(f"perf_analyzer failed: {last_words(done.stdout, done.stderr)}")
        figures = read_table(table.read_text())
        # Its table may be of a run that it gave up: whoever reads the figures should know.
        return figures | ({"exit code": done.returncode} if done.returncode else {})
