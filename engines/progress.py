"""What a person is told meanwhile: sentences, and the compiler's progress as one line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

Announce = Callable[[str], None]
"""Told, one sentence at a time, what a person may want to know meanwhile."""

_WIDTH: Final = 24


class CompileProgress(Protocol):
    """Told what the compiler is doing, from any of its threads; phases nest by name."""

    def start(self, phase: str, parent: str | None, steps: int) -> None: ...

    def advance(self, phase: str, step: int) -> bool:
        """Step `step` of `phase` is done. Returning False cancels the compilation."""
        ...

    def finish(self, phase: str) -> None: ...


@dataclass
class _Phase:
    steps: int
    done: int = 0


class ProgressBar:
    """A `CompileProgress` on a terminal, silent anywhere else: the innermost phase, in one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """`phase`, a part of `parent`, begins; it has `steps` steps."""
        with self._lock:
            self._phases[phase] = _Phase(steps)
            self._draw()

    def advance(self, phase: str, step: int) -> bool:
        """Step `step` is done; True lets the compiler go on."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase].done = step + 1
                self._draw()
        return True

    def finish(self, phase: str) -> None:
        """`phase` is over; after the last one the line is blank again."""
        with self._lock:
            self._phases.pop(phase, None)
            self._draw()

    def _draw(self) -> None:
        if not self._shown:
            return
        if not self._phases:
            self._stream.write("\r\x1b[K")
        else:
            name, phase = list(self._phases.items())[-1]
            filled = _WIDTH * min(phase.done, phase.steps) // max(phase.steps, 1)
            bar = "#" * filled + "." * (_WIDTH - filled)
            self._stream.write(f"\r\x1b[K[{bar}] {name[:60]} {phase.done}/{phase.steps}")
        self._stream.flush()
