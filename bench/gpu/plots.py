"""The report's pictures, drawn from results.json where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.gpu.cells import CUDA, SHARES, SWEEP, rate_name, sweep_name
from bench.gpu.load import IN_FLIGHT
from bench.gpu.results import Results

PARTS: Final = ("queue", "input", "infer", "output")
ENGINES: Final = {
    "float16": "engine alone, batch {}",
    "float32 (TF32)": "engine alone, float32 (TF32), batch {}",
}
NO_PLOTS: Final = (
    "no plots were drawn: matplotlib is not installed here; copy the output folder to a machine "
    "that has it and run python -m bench.gpu --report-only --output FOLDER there"
)


def draw_plots(results: Results, folder: Path) -> list[str]:
    """Write a PNG for each picture that has data; returns their names."""
    if importlib.util.find_spec("matplotlib") is None:
        print(NO_PLOTS, flush=True)
        return []
    from matplotlib.figure import Figure

    pictures: dict[str, Callable[[Results, Any], bool]] = {
        "concurrency.png": _concurrency,
        "request_rate.png": _request_rate,
        "engine.png": _engine,
        "time.png": _time,
        "gpu_use.png": _gpu_use,
    }
    drawn = []
    for name, draw in pictures.items():
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        if draw(results, figure):
            figure.savefig(folder / name, dpi=110)
            drawn.append(name)
    return drawn


def _concurrency(results: Results, figure: Any) -> bool:
    """Frames a second and p99 over requests in flight."""
    cells = [(n, results.value(sweep_name(n))) for n in sorted(SWEEP)]
    known = [(n, value) for n, value in cells if value]
    if len(known) < 2:
        return False
    axes = figure.subplots()
    in_flight = [n for n, _ in known]
    axes.plot(in_flight, [v["per second"] for _, v in known], "o-", color="C0")
    axes.set_xscale("log", base=2)
    axes.set_xticks(in_flight, [str(n) for n in in_flight])
    axes.set_xlabel(f"requests in flight (one face, 1080p, {CUDA})")
    axes.set_ylabel("frames a second", color="C0")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    right.plot(in_flight, [v["p99 ms"] for _, v in known], "s--", color="C1")
    right.set_ylabel("p99, ms", color="C1")
    right.set_ylim(bottom=0)
    return True


def _request_rate(results: Results, figure: Any) -> bool:
    """Latency over the rate at which requests come, at random moments."""
    known = [value for s in sorted(SHARES) if (value := results.value(rate_name(s)))]
    if len(known) < 2:
        return False
    axes = figure.subplots()
    rates = [value["per second"] for value in known]
    for percentile, mark in ((50, "o-"), (95, "^-"), (99, "s-")):
        axes.plot(rates, [v[f"p{percentile} ms"] for v in known], mark, label=f"p{percentile}")
    axes.set_xlabel("frames a second (Poisson arrivals)")
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    return True


def _engine(results: Results, figure: Any) -> bool:
    """Faces a second of the swapper alone over the batch size."""
    axes, any_drawn = None, False
    for label, pattern in ENGINES.items():
        known = [(b, rate) for b in (1, 2, 4, 8, 16) if (rate := results.rate(pattern.format(b)))]
        if known:
            axes = axes or figure.subplots()
            axes.plot([b for b, _ in known], [rate for _, rate in known], "o-", label=label)
            any_drawn = True
    if axes is not None:
        axes.set_xlabel("batch size")
        axes.set_ylabel("faces a second, swapper alone")
        axes.set_ylim(bottom=0)
        axes.legend()
    return any_drawn


def _time(results: Results, figure: Any) -> bool:
    """Milliseconds of a request in each model's queue, input, inference and output."""
    cells = [(n, results.value(sweep_name(n))) for n in sorted(SWEEP)]
    known = [(n, value["models"]) for n, value in cells if value and value.get("models")]
    if not known:
        return False
    # An ensemble's own row is the sum of its steps; in one process there is no other row.
    every = list(known[-1][1])
    models = [name for name in every if not name.startswith("swap_faces")] or every
    columns = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(columns, models, strict=False):
        labels = [str(n) for n, _ in known]
        bottom = [0.0] * len(known)
        for part in PARTS:
            heights = [rows.get(model, {}).get(f"{part} ms", 0.0) for _, rows in known]
            axes.bar(labels, heights, bottom=bottom, label=part)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        axes.set_title(model, fontsize=9)
        axes.set_xlabel("in flight")
    columns[0].set_ylabel("ms of a request")
    columns[0].legend(fontsize=8)
    return True


def _gpu_use(results: Results, figure: Any) -> bool:
    """NVML's utilisation over one load."""
    names = [sweep_name(IN_FLIGHT), sweep_name(4), rate_name(50)]
    known = [(name, series) for name in names
             if (series := (results.value(name) or {}).get("gpu series"))]  # fmt: skip
    if not known:
        return False
    axes = figure.subplots()
    for name, series in known:
        axes.plot([s for s, _ in series], [busy for _, busy in series], label=name)
    axes.set_xlabel("seconds")
    axes.set_ylabel("GPU busy, %")
    axes.set_ylim(0, 105)
    axes.legend(fontsize=8)
    return True
