"""The promises of the project beside what was measured, each with its floor and its aim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.gpu.cells import (
    BATCHES,
    CUDA,
    FOLLOWED,
    GFLOP_A_FACE,
    STREAMS,
    SWEEP,
    THREADS,
    TWO_STEPS,
    engine_name,
    followed_name,
    peers_name,
    rate_name,
    streams_name,
    two_steps_name,
)
from bench.gpu.cells import sweep_name as sweep
from bench.gpu.load import IN_FLIGHT
from bench.gpu.results import Results

OWN_CLIENTS: Final = tuple(
    f"own client, {transport}, {processes} processes"
    for transport in ("system", "cuda")
    for processes in (1, 2, 4)
)
LEAST_SENT: Final = 0.92
"""Of the requests that a rate asks for: perf_analyzer sends 92.7 to 95 % at random moments."""
ENGINES: Final = tuple(engine_name(batch) for batch in BATCHES)


@dataclass(frozen=True)
class Promise:
    """One row. floor, aim: None for a figure that is only reported. lower: less is better."""

    name: str
    floor: float | None
    aim: float | None
    measured: Callable[[Results], float | None]
    lower: bool = False

    def verdict(self, value: float | None) -> str:
        """One word on `value`."""
        if value is None:
            return "not run"
        if self.floor is None or self.aim is None:
            return ""
        sign = -1 if self.lower else 1
        if sign * value >= sign * self.aim:
            return "aim reached"
        return "floor reached" if sign * value >= sign * self.floor else "MISSED"


def best_rate(results: Results) -> float | None:
    """Frames a second of one face over CUDA shared memory, the best of the sweep."""
    return results.best([sweep(n) for n in SWEEP])


def share(top: float | None, bottom: float | None, scale: float = 100) -> float | None:
    """`scale * top / bottom`, None when one of them was not measured."""
    return scale * top / bottom if top and bottom else None


def _of_matrix(results: Results) -> float | None:
    teraflops = share(best_rate(results), 1000, GFLOP_A_FACE)
    return share(teraflops, results.rate("matrix rate, TFLOP/s"))


def _fact(cell: str, key: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        value = (results.value(cell) or {}).get(key)
        return float(value) if isinstance(value, int | float) else None

    return read


def _best_busy(results: Results) -> float | None:
    """Of the cell with the best rate."""
    cells = [sweep(n) for n in SWEEP if results.has(sweep(n))]
    best = max(cells, key=lambda cell: results.rate(cell) or 0, default="")
    return _fact(best, "gpu busy %")(results)


def _p99_at_half(results: Results) -> float | None:
    """Only where that many requests were really sent."""
    name = rate_name(50)
    asked, sent = _fact(name, "asked per second")(results), results.rate(name)
    if asked is None or sent is None or sent < LEAST_SENT * asked:
        return None
    return _fact(name, "p99 ms")(results)


def _against_one_face(cell: str, scale: float) -> Callable[[Results], float | None]:
    """With as many requests in flight."""
    return lambda results: share(results.rate(cell), results.rate(sweep(IN_FLIGHT)), scale)


def _streams(processes: int) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        many = results.rate(streams_name(processes, apart=True))
        return share(many, results.rate(streams_name(processes, apart=False)))

    return read


def _times_peers(*, spared: bool) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        names = [peers_name(threads, spared=spared) for threads in THREADS]
        return share(best_rate(results), results.best(names), 1)

    return read


def promises() -> list[Promise]:
    """Every promise, in the order of the project's table."""
    rows = [
        Promise("frames a second, CUDA shared memory", 600, 1000, best_rate),
        Promise("  system shared memory", None, None,
                lambda r: r.rate("one face, system shared memory")),
        Promise("  gRPC bytes", None, None, lambda r: r.rate("one face, gRPC bytes")),
        Promise("  found and swapped in two requests", 700, 850,
                lambda r: r.best([two_steps_name(*shape) for shape in TWO_STEPS])),
        Promise("% of the matrix rate", 28, 45, _of_matrix),
        Promise("% of the engine alone", 70, 90,
                lambda r: share(best_rate(r), r.best(list(ENGINES)))),
        Promise("times the peers' way", 4, 8, _times_peers(spared=False)),
        Promise("  spared what its pictures do not need", None, None, _times_peers(spared=True)),
        Promise("GPU busy, % (NVML)", 92, 97, _best_busy),
        Promise("p99 at half of the best rate, ms", 60, 30, _p99_at_half, True),
        Promise("frames a second, own client", 400, 800, lambda r: r.best(list(OWN_CLIENTS))),
        Promise("frames a second, own client, faces followed", 650, 900,
                lambda r: r.best([followed_name(*shape) for shape in FOLLOWED])),
        Promise("4 faces a frame: faces a second, % of 1 face", 90, 110,
                _against_one_face(f"four faces, {CUDA}", 400)),
        Promise("4K against 1080p, %", 60, 85, _against_one_face(f"4K, one face, {CUDA}", 100)),
        Promise("no face, times one face", 2, 4, _against_one_face(f"no face, {CUDA}", 1)),
        Promise("one face of four slots, % of one slot", 90, 100,
                _against_one_face(f"one face of four slots, {CUDA}", 100)),
        Promise("64 streams, % of one stream a process, 4 client processes", 95, 100,
                _streams(STREAMS[0][0])),
        Promise("64 streams, % of one stream, 1 client process", None, None,
                _streams(STREAMS[1][0])),
    ]  # fmt: skip
    return rows


def promise_table(results: Results) -> list[str]:
    """Markdown."""
    lines = ["| promise | floor | aim | measured | |", "|---|---|---|---|---|"]
    for row in promises():
        value = row.measured(results)
        floor, aim = ("" if bound is None else f"{bound:g}" for bound in (row.floor, row.aim))
        shown = "" if value is None else f"{value:.1f}"
        lines.append(f"| {row.name} | {floor} | {aim} | {shown} | {row.verdict(value)} |")
    return lines
