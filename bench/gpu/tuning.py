"""A sweep over instances, batch size and queue delay: what is best here, and how to serve it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bench.gpu.cells import Bench, Cell
from bench.gpu.load import IN_FLIGHT
from bench.gpu.modes import DEFAULT_DELAY_US, DEFAULT_MODE, ENSEMBLE, MODES, Mode
from bench.gpu.results import Results
from bench.gpu.serving import REQUESTS_IN_FLIGHT, Setup
from engines.targets import TARGETS

LATENCY_RATE: Final = 450.0
"""Requests a second at random moments: half of what an H100 serves at best."""
TUNING_PREFIX: Final = "tune: "
COLUMNS: Final = ("per second", "p99 ms", "at a rate: per second", "at a rate: p50 ms",
                  "at a rate: p99 ms", "alone: p50 ms")  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """One choice: instances of every model, largest batch, microseconds that a queue may wait."""

    instances: int
    batch: int
    delay_us: int

    @property
    def label(self) -> str:
        return f"{self.instances} instances, batch {self.batch}, delay {self.delay_us} us"

    @property
    def name(self) -> str:
        """Of its cell."""
        return TUNING_PREFIX + self.label

    def counts(self, mode: Mode) -> dict[str, int]:
        return dict.fromkeys(mode.models, self.instances)


def choices() -> list[Tuning]:
    """All of them; those that differ from the headline's in one thing come first."""
    base = Tuning(MODES[DEFAULT_MODE].instances, TARGETS["cuda"].max_batch_size, DEFAULT_DELAY_US)
    every = [
        Tuning(instances, batch, delay)
        for instances in (1, 2, 3, 4, 5)
        for batch in (8, 16)
        for delay in (0, 4000, DEFAULT_DELAY_US)
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
        max_batch_size=None if choice.batch == TARGETS["cuda"].max_batch_size else choice.batch,
        delay_us=choice.delay_us,
    )
    return Cell(choice.name, measure, setup)


def measure(bench: Bench) -> dict[str, Any]:
    """Throughput with many requests in flight, and latency at a rate and of one alone."""
    many = bench.scene("one face", concurrency=IN_FLIGHT, seconds=4.0)
    some = bench.scene("one face", rate=LATENCY_RATE, seconds=4.0)
    alone = bench.scene("one face", concurrency=1, probe=16, seconds=2.0)
    return {
        "per second": many["per second"],
        "p99 ms": many["p99 ms"],
        "models": many["models"],
        "at a rate: per second": some["per second"],
        "at a rate: p50 ms": some["p50 ms"],
        "at a rate: p99 ms": some["p99 ms"],
        "alone: p50 ms": alone["p50 ms"],
    }


def best_choices(results: Results) -> dict[str, Tuning]:
    """For throughput (most frames a second) and for latency (least p99 at the rate)."""
    measured = [(choice, results.value(choice.name)) for choice in choices()]
    known = [(choice, value) for choice, value in measured if value and COLUMNS[-1] in value]
    if not known:
        return {}
    return {
        "throughput": max(known, key=lambda pair: pair[1]["per second"])[0],
        "latency": min(known, key=lambda pair: pair[1]["at a rate: p99 ms"])[0],
    }


def serve_command(choice: Tuning, mode: Mode) -> str:
    """What serves a choice."""
    batch = "" if choice.batch == TARGETS["cuda"].max_batch_size else f" --batch {choice.batch}"
    words = [
        f"python build_engines.py --target cuda --swapper inswapper_128{batch} &&",
        f"frameswap serve --target cuda --models {ENSEMBLE} encode_source_bgr",
    ]
    words += [f"--{name.replace('_', '-')}" for name in mode.arguments]
    words += [f"--instances {model}={count}" for model, count in choice.counts(mode).items()]
    words += [f"--queue-delay-us {choice.delay_us}", f"--requests-in-flight {REQUESTS_IN_FLIGHT}"]
    return " ".join(words)


def tuning_report(results: Results, mode: str = DEFAULT_MODE) -> list[str]:
    """Markdown: every choice measured, the best two, and what serves them."""
    best = best_choices(results)
    if not best:
        return []
    lines = [
        f"| choice | frames/s, {IN_FLIGHT} in flight | p99 ms | "
        f"frames/s of {LATENCY_RATE:g} at random | p50 ms | p99 ms | p50 ms of one alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for choice in choices():
        value = results.value(choice.name)
        shown = [str((value or {}).get(key, "not run")) for key in COLUMNS]
        lines.append(f"| {choice.label} | {' | '.join(shown)} |")
    for purpose, choice in best.items():
        lines += ["", f"Best for {purpose}: {choice.label}", ""]
        lines += ["```sh", serve_command(choice, MODES[mode].single()), "```"]
    return lines
