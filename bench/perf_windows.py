"""perf_analyzer by windows of time: how long they are, what asks for them, what it wrote.

Its other way, `--request-count`, divides by whole seconds, because it looks once a second whether
all requests were answered (2.51: 750 a second of 3,000 requests where windows of time find 895).
"""

from __future__ import annotations

import csv
from typing import Final

WINDOWS: Final = 3
"""perf_analyzer wants three windows that agree; it is told to take any for agreeing."""
LONGEST_WINDOW_S: Final = 8.0


def window_s(rate: float, *, in_flight: int, seconds: float) -> float:
    """How long each of the windows should be: `seconds` in all, or two rounds of requests each.

    Args:
        rate: requests a second, about.
    """
    return min(max(seconds / WINDOWS, 2 * in_flight / rate), LONGEST_WINDOW_S)


def window_words(window: float) -> list[str]:
    """perf_analyzer's arguments for the windows, of `window` seconds each."""
    return [
        "--measurement-interval", f"{1e3 * window:.0f}", "--max-trials", str(WINDOWS),
        # any three windows agree: a search for stable ones may end without a table
        "--stability-percentage", "999",
    ]  # fmt: skip


def read_table(text: str) -> dict[str, float]:
    """The figures of perf_analyzer's CSV: requests a second, milliseconds of latency and of parts.

    Raises:
        ValueError: there is no row of figures.
    """
    row = next(iter(csv.DictReader(text.splitlines())), None)
    if row is None or not row.get("Inferences/Second"):
        raise ValueError("perf_analyzer wrote a table without figures")
    kept = {
        "per second": round(float(row["Inferences/Second"]), 2),
        **{f"p{p} ms": round(float(row[f"p{p} latency"]) / 1e3, 2) for p in (50, 90, 95, 99)},
    }
    parts = ("Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input",
             "Server Compute Infer", "Server Compute Output", "Client Recv")  # fmt: skip
    for name in parts:
        if row.get(name):
            kept[f"{name.lower()} ms"] = round(float(row[name]) / 1e3, 2)
    return kept
