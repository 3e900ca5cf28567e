"""The report: promises, tables, where the time goes, and everything that was and was not run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.gpu.cells import (
    GFLOP_A_FACE,
    OWN_SCENES,
    PRICE_MODE,
    PRICES,
    SHARES,
    TABLE_BATCHES,
    engine_name,
    mode_name,
    own_name,
    price_engine_name,
    price_name,
    rate_name,
    sweep_name,
    table_name,
)
from bench.gpu.devices import roofline
from bench.gpu.extras import EXTRA_HEAD, NOTE, extra_table
from bench.gpu.load import IN_FLIGHT
from bench.gpu.modes import DEFAULT_MODE, ENSEMBLE, MODES
from bench.gpu.promises import best_rate, promise_table, share
from bench.gpu.repositories import OWN
from bench.gpu.results import Results, without_series
from bench.gpu.tuning import TUNING_PREFIX, tuning_report

MINUTE_FRAMES: Final = 1800
"""Frames of a minute of video at 30 a second."""
LOAD_COLUMNS: Final = ("per second", "p50 ms", "p95 ms", "p99 ms", "gpu busy %",
                       "gpu samples below 50 %", "gpu lowest MHz", "endpoint busy %",
                       "gpu memory GiB", "endpoint memory GiB")  # fmt: skip
PART_COLUMNS: Final = ("mean batch", "queue ms", "input ms", "infer ms", "output ms")
MODEL_COLUMNS: Final = ("ms a run", "ms to launch", "ms of kernels", "kernels and copies")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Markdown; None is shown as an empty cell."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append(f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |")
    return lines


def make_report(
    results: Results,
    planned: Sequence[str],
    *,
    models: Mapping[str, Any] | None = None,
    plots: Sequence[str] = (),
) -> str:
    """Markdown.

    Args:
        planned: names of all cells, so that what was not run is named.
        models: what `bench.gpu_models` wrote.
        plots: file names beside the report.
    """
    host = ", ".join(f"{key} {value}" for key, value in results.host.items())
    lines = ["# The ensemble on a GPU", "", host or "host unknown", ""]
    lines += ["inswapper_128's architecture with random weights: it swaps no face.", ""]
    lines += promise_table(results)
    for title, body in (
        ("CPU, CUDA, TensorRT", _reference_table(results)),
        ("Correctness, in the run that was timed", _values(results, ("GPU against CPU",
                                                                    "streams apart"))),
        ("Ceilings", _roofline(results)),
        ("Load", _loads(results, planned)),
        ("Where a request's time goes", _parts(results)),
        ("Server modes", _modes(results)),
        ("The price of more pixels", _prices(results)),
        ("An occluder, a parser, an enhancer", _extras(results)),
        ("The project's own network", _own_network(results)),
        ("Each graph alone on the device", _models(models)),
        ("Tuning", tuning_report(results, results.host.get("mode", DEFAULT_MODE))),
        ("Plots", [f"![{name.removesuffix('.png')}]({name})\n" for name in plots]),
        ("Every cell", _cells(results)),
        ("Not run", _not_run(results, planned)),
    ):  # fmt: skip
        if body:
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _reference_table(results: Results) -> list[str]:
    """GPU use, ms a frame, frames a second, minutes per minute of 1080p; by batch."""
    rows: list[Sequence[Any]] = []
    for name in ("CPU", "CUDA fp32", "CUDA fp16", "TensorRT fp16"):
        for batch in sorted(TABLE_BATCHES):
            cell = table_name(name, batch)
            value = results.value(cell)
            if value is None:
                rows.append((name, batch, None, f"not run: {results.reason(cell)}", *[None] * 3))
                continue
            rate = value["per second"]
            used = 0 if name == "CPU" else value.get("gpu busy %", value.get("gpu"))
            minutes = MINUTE_FRAMES / rate / 60
            run = value["models"].get(ENSEMBLE, {}).get("mean batch")
            shown = (f"{1e3 / rate:.2f}", f"{rate:.1f}", f"{minutes:.3f}")
            rows.append((name, batch, run, used, *shown))
    head = ("", "batch", "as it was run", "GPU use, %", "ms a frame", "frames a second",
            "minutes per minute of 1080p")  # fmt: skip
    note = (
        "One face a frame. Batch: frames of one request; one request in flight for each instance, "
        "so that none is joined with another. Milliseconds a frame are the inverse of frames a "
        "second. A minute: 1,800 frames."
    )
    return [*table(head, rows), "", note]


def _roofline(results: Results) -> list[str]:
    rate, moved = best_rate(results), results.value("bytes a face")
    matrix, copy = results.rate("matrix rate, TFLOP/s"), results.rate("copy rate, GB/s")
    if rate is None or moved is None or matrix is None or copy is None:
        return []
    facts = roofline(rate, gflop=GFLOP_A_FACE, matrix=matrix, copy=copy, moved=moved)
    facts = {"TFLOP/s of a matrix product": matrix, "GB/s of a copy": copy, **moved, **facts}
    return table(("", ""), facts.items())


def _loads(results: Results, planned: Sequence[str]) -> list[str]:
    rows = []
    for name in dict.fromkeys([*planned, *results.cells]):
        value = results.value(name)
        of_a_load = isinstance(value, Mapping) and "p99 ms" in value
        if of_a_load and not name.startswith(TUNING_PREFIX):
            rows.append((name, *(value.get(key) for key in LOAD_COLUMNS)))
    if not rows:
        return []
    told = {
        str(value[key])
        for cell in results.cells.values()
        if isinstance(value := cell.get("value"), Mapping)
        for key in ("gpu", "endpoint")
        if key in value
    }
    note = (
        "GPU busy: NVML's utilisation, ten times a second, from the first busy sample to the last "
        "less a tenth at either end; the endpoint is the server's own metrics."
    )
    return [*table(("load", *LOAD_COLUMNS), rows), "", note, *sorted(told)]


def _parts(results: Results) -> list[str]:
    rows = []
    for cell in (sweep_name(IN_FLIGHT), sweep_name(4), table_name("CUDA fp16", 1),
                 rate_name(SHARES[0])):  # fmt: skip
        for model, parts in (results.value(cell) or {}).get("models", {}).items():
            rows.append((cell, model, *(parts.get(key) for key in PART_COLUMNS)))
    return table(("load", "model", *PART_COLUMNS), rows) if rows else []


def _modes(results: Results) -> list[str]:
    rows = []
    for name in MODES:
        cell = mode_name(name)
        value = results.value(cell)
        if value is None and cell in results.cells:
            rows.append((name, f"not run: {results.reason(cell)}", None, None))
        elif value is not None:
            rows.append((name, *(value.get(key) for key in ("per second", "p99 ms", "gpu busy %"))))
    first = results.value(sweep_name(IN_FLIGHT))
    if rows and first:
        kept = (first.get(key) for key in ("per second", "p99 ms", "gpu busy %"))
        rows.insert(0, (f"headline: {results.host.get('mode', 'default')}", *kept))
    head = ("mode", f"frames/s, {IN_FLIGHT} in flight", "p99 ms", "GPU busy %")
    return table(head, rows) if rows else []


def _prices(results: Results) -> list[str]:
    rows = []
    first = next(iter(PRICES))
    engine, served = results.rate(price_engine_name(first)), results.rate(price_name(first))
    for name in PRICES:
        alone, whole = results.rate(price_engine_name(name)), results.rate(price_name(name))
        if alone is None and whole is None:
            continue
        shares = (share(alone, engine), share(whole, served))
        shown = (None if each is None else f"{each:.1f}" for each in shares)
        rows.append((name, alone, whole, *shown))
    if not rows:
        return []
    head = ("", "engine, faces/s at batch 8", "ensemble, faces/s", "engine, % of 128",
            "ensemble, % of 128")  # fmt: skip
    note = f"Served as {PRICE_MODE}, {IN_FLIGHT} requests in flight."
    return [*table(head, rows), "", note]


def _extras(results: Results) -> list[str]:
    rows = extra_table(results)
    return [*table(EXTRA_HEAD, rows), "", NOTE] if rows else []


def _own_network(results: Results) -> list[str]:
    """Faces a second of the graph alone, frames a second of the ensemble."""
    names = [engine_name(batch, f", {OWN}") for batch in (1, 8, 16)]
    names += [own_name(scene) for scene in OWN_SCENES] + [own_name("one face", PRICE_MODE)]
    rows = [(name, results.rate(name)) for name in names if results.rate(name) is not None]
    return table(("", "a second"), rows) if rows else []


def _models(models: Mapping[str, Any] | None) -> list[str]:
    if not models:
        return []
    rows, on_host = [], []
    for name, value in models.items():
        if "error" in value:
            rows.append((name, value["error"], *[None] * (len(MODEL_COLUMNS) - 1)))
        elif "nodes a run" in value:
            kinds = json.dumps(value["kinds"])
            on_host.append((name, value["nodes a run"], value["us a run"], kinds))
        else:
            rows.append((name, *(value.get(key) for key in MODEL_COLUMNS)))
    lines = table(("graph", *MODEL_COLUMNS), rows)
    if on_host:
        lines += ["", *table(("graph", "nodes on the CPU", "us a run", "kinds"), on_host)]
    return lines


def _values(results: Results, names: Sequence[str]) -> list[str]:
    rows = [
        (name, json.dumps(results.value(name)) if results.has(name) else results.reason(name))
        for name in names
    ]
    return table(("", ""), rows)


def _cells(results: Results) -> list[str]:
    rows = []
    for name, cell in results.cells.items():
        if "value" in cell:
            rows.append((name, json.dumps(without_series(cell["value"]))))
        else:
            rows.append((name, results.reason(name)))
    return table(("cell", "value"), rows)


def _not_run(results: Results, planned: Sequence[str]) -> list[str]:
    names = dict.fromkeys([*planned, *results.late])
    return [f"- {name}: {results.reason(name)}" for name in names if not results.has(name)]
