"""How far a job is, for a person at a terminal or for a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final, Literal, TextIO

__all__ = ["PROGRESS_FORMS", "Progress", "ProgressForm", "format_duration"]

ProgressForm = Literal["auto", "plain", "json", "none"]
PROGRESS_FORMS: Final[tuple[ProgressForm, ...]] = ("auto", "plain", "json", "none")

TERMINAL_INTERVAL_S: Final = 0.2
LOG_INTERVAL_S: Final = 10.0
JSON_INTERVAL_S: Final = 1.0


class Progress:
    """One line that is rewritten on a terminal; a line every ten seconds elsewhere.

    Args:
        total: frames expected, when known.
        stream: where to; mostly standard error.
        form: "auto" is that; "plain" is lines on a terminal too, "json" a line of JSON a second,
            "none" is silence.
        clock: seconds, growing.
    """

    def __init__(
        self,
        total: int | None,
        stream: TextIO,
        *,
        form: ProgressForm = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._stream = stream
        self._clock = clock
        self._form = form
        self._terminal = form == "auto" and stream.isatty()
        self._started_s = self._shown_s = clock()
        self._wrote = False

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started_s

    def update(self, done: int, *, total: int | None = None) -> None:
        """Say that `done` frames are finished, when it is time to.

        Args:
            total: frames expected, where that is known only now.
        """
        if total is not None:
            self._total = total
        now = self._clock()
        interval = TERMINAL_INTERVAL_S if self._terminal else LOG_INTERVAL_S
        if self._form == "json":
            interval = JSON_INTERVAL_S
        elif self._form == "none":
            return
        if now - self._shown_s < interval:
            return
        self._shown_s = now
        text = self.describe_json(done) if self._form == "json" else self.describe(done)
        # \x1b[K clears what a longer line left behind.
        self._stream.write(f"\r{text}\x1b[K" if self._terminal else f"{text}\n")
        self._stream.flush()
        self._wrote = True

    def clear(self) -> None:
        """Take the terminal's line away again."""
        if self._terminal and self._wrote:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def describe_json(self, done: int) -> str:
        """The same as `describe`, for programs; `total` and `left_s` are null when not known."""
        rate = done / self.elapsed_s if self.elapsed_s > 0 else 0.0
        left_s = max(0, self._total - done) / rate if self._total and rate > 0 else None
        return json.dumps(
            {
                "frames": done,
                "total": self._total,
                "elapsed_s": round(self.elapsed_s, 3),
                "frames_per_s": round(rate, 2),
                "left_s": None if left_s is None else round(left_s, 1),
            }
        )

    def describe(self, done: int) -> str:
        """Frames, rate and time left, as one line."""
        rate = done / self.elapsed_s if self.elapsed_s > 0 else 0.0
        if not self._total:
            return f"{done} frames, {rate:.1f} frames/s"
        share = min(100.0, 100.0 * done / self._total)
        left = max(0, self._total - done) / rate if rate > 0 else None
        remaining = f", {format_duration(left)} left" if left is not None else ""
        return f"{done} of {self._total} frames ({share:.0f} %), {rate:.1f} frames/s{remaining}"


def format_duration(seconds: float) -> str:
    """As 12 s, 3:05 min or 1:02:05 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h"
