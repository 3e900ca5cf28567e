"""A sweep over instances, batch size and queue delay: what is best here, and what to write down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bench.gpu.cells import Bench, Cell
from bench.gpu.modes import DEFAULT_MODE, MODES, Mode
from bench.gpu.results import Results
from bench.gpu.serving import Setup, config_lines
from engines.variants import CUDA_MAX_BATCH_SIZE

THROUGHPUT_IN_FLIGHT: Final = 64
LATENCY_IN_FLIGHT: Final = 4


@dataclass(frozen=True)
class Tuning:
    """One choice: instances of every model, largest batch, microseconds that a queue may wait."""

    instances: int
    batch: int
    delay_us: int

    @property
    def name(self) -> str:
        return f"tune: {self.instances} instances, batch {self.batch}, delay {self.delay_us} us"

    def counts(self, mode: Mode) -> dict[str, int]:
        return dict.fromkeys(mode.models, self.instances)


def choices() -> list[Tuning]:
    """All of them; those that differ from the deployed one in one thing come first."""
    base = Tuning(3, CUDA_MAX_BATCH_SIZE, 0)
    every = [
        Tuning(instances, batch, delay)
        for instances in (1, 2, 3)
        for batch in (8, 16)
        for delay in (0, 500, 2000)
    ]

    def distance(choice: Tuning) -> int:
        return (
            (choice.instances != base.instances)
            + (choice.batch != base.batch)
            + (choice.delay_us != base.delay_us)
        )

    return sorted(every, key=lambda choice: (distance(choice), choice.instances, choice.delay_us))


def tune_cells(mode: str) -> list[Cell]:
    """A cell, and a server's start, a choice; the mode's own instances do not count."""
    return [_cell(choice, MODES[mode].single()) for choice in choices()]


def _cell(choice: Tuning, mode: Mode) -> Cell:
    setup = Setup(
        mode=mode.name,
        instances=tuple(choice.counts(mode).items()) if choice.instances > 1 else (),
        max_batch_size=choice.batch,
        delay_us=choice.delay_us,
    )
    return Cell(choice.name, measure, setup)


def measure(bench: Bench) -> dict[str, Any]:
    """Throughput with many requests in flight, and latency with few."""
    many = bench.scene("one face", concurrency=THROUGHPUT_IN_FLIGHT, seconds=4.0)
    few = bench.scene("one face", concurrency=LATENCY_IN_FLIGHT, seconds=3.0)
    return {
        "per second": many["per second"],
        "p99 ms": many["p99 ms"],
        "models": many["models"],
        "few: per second": few["per second"],
        "few: p50 ms": few["p50 ms"],
        "few: p99 ms": few["p99 ms"],
    }


def best_choices(results: Results) -> dict[str, Tuning]:
    """For throughput (most frames a second) and for latency (least p99 with few in flight)."""
    measured = [(choice, results.value(choice.name)) for choice in choices()]
    known = [(choice, value) for choice, value in measured if value]
    if not known:
        return {}
    return {
        "throughput": max(known, key=lambda pair: pair[1]["per second"])[0],
        "latency": min(known, key=lambda pair: pair[1]["few: p99 ms"])[0],
    }


def tuning_report(results: Results, mode: str = DEFAULT_MODE) -> list[str]:
    """Markdown: every choice measured, the best two, and the lines to write into the configs."""
    best = best_choices(results)
    if not best:
        return []
    lines = [
        f"| choice | frames/s, {THROUGHPUT_IN_FLIGHT} in flight | p99 ms | "
        f"frames/s, {LATENCY_IN_FLIGHT} in flight | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    columns = ("per second", "p99 ms", "few: per second", "few: p50 ms", "few: p99 ms")
    for choice in choices():
        value = results.value(choice.name)
        shown = [str(value[key]) for key in columns] if value else ["not run"] * len(columns)
        lines.append(f"| {choice.name.removeprefix('tune: ')} | {' | '.join(shown)} |")
    for purpose, choice in best.items():
        lines += ["", f"Best for {purpose}: {choice.name.removeprefix('tune: ')}", "", "```"]
        lines += config_lines(
            counts=choice.counts(MODES[mode]), max_batch_size=choice.batch, delay_us=choice.delay_us
        )
        lines.append("```")
    return lines
