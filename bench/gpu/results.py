"""Cells by name, kept in a file after each: what was measured, what failed, what was not run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SAME_RUN: Final = ("GPU", "driver", "mode", "instances", "queue delay us", "onnxruntime", "graphs")
"""What must agree before two runs' cells may stand in one table."""


class NotRun(Exception):
    """A cell cannot be measured here; the text says why."""


@dataclass
class Results:
    """The cells of one machine.

    path: the file. deadline: `time.monotonic()` after which no cell is begun.
    host: what the figures were measured on. cells: name to value, error or reason.
    late: names of the cells that time did not allow in this run.
    """

    path: Path
    deadline: float
    host: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether the cell has a value."""
        return "value" in self.cells.get(name, {})

    def value(self, name: str) -> Any:
        """The cell's value, None when it has none."""
        return self.cells.get(name, {}).get("value")

    def rate(self, name: str) -> float | None:
        """What a cell counts a second, whatever else it holds."""
        value = self.value(name)
        if isinstance(value, Mapping):
            value = value.get("per second")
        return float(value) if value is not None else None

    def best(self, names: list[str]) -> float | None:
        """The highest rate of these cells."""
        return max((rate for name in names if (rate := self.rate(name))), default=None)

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """The cell's value, from an earlier run or measured now; None when late or failed."""
        if self.has(name):
            return self.value(name)
        if time.monotonic() > self.deadline:
            self.late.append(name)
            return None
        start = time.perf_counter()
        cell: dict[str, Any]
        try:
            cell = {"value": work()}
        except NotRun as reason:
            cell = {"not run": str(reason)}
        except Exception as error:
            # Whatever a cell runs into: the others are still to be measured.
            cell = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        cell["seconds"] = round(time.perf_counter() - start, 1)
        self.cells[name] = cell
        self.save()
        print(f"{name}: {json.dumps(without_series(cell))[:400]}", flush=True)
        return cell.get("value")

    def reason(self, name: str) -> str:
        """Why the cell has no value."""
        cell = self.cells.get(name, {})
        if "error" in cell:
            return f"failed: {cell['error']}"
        return str(cell.get("not run", "out of time, or not asked for; run again to go on"))

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"host": self.host, "cells": self.cells, "late": self.late}, indent=1)
        partial = self.path.with_suffix(".part")
        partial.write_text(text)
        partial.replace(self.path)


def without_series(value: Any) -> Any:
    """The same without what is only for plots."""
    if isinstance(value, Mapping):
        return {key: without_series(part) for key, part in value.items() if key != "gpu series"}
    return value


def load_results(path: Path, deadline: float, host: Mapping[str, Any] | None = None) -> Results:
    """The file's results, to go on with; afresh when another machine or mode measured them.

    Args:
        host: what this machine is; None takes the file's word, for a report alone.
    """
    if not path.exists():
        return Results(path, deadline, dict(host or {}))
    kept = json.loads(path.read_text())
    known = kept.get("host", {})
    if host is None:
        return Results(path, deadline, known, kept["cells"], kept.get("late", []))
    differing = [key for key in SAME_RUN if known.get(key) != host.get(key)]
    if differing:
        aside = path.with_suffix(".earlier.json")
        path.replace(aside)
        what = "; ".join(f"{key} {known.get(key)}, now {host.get(key)}" for key in differing)
        print(f"starting afresh, {aside} was measured with other means: {what}", flush=True)
        return Results(path, deadline, dict(host))
    return Results(path, deadline, dict(host), kept["cells"])
