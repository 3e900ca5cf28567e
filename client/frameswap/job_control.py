"""What somebody else may ask of a job while it runs: pause, go on, end early, stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from frameswap.journal import job_folder

__all__ = ["JobControl", "JobStopped", "describe_early_end", "end_early_at_interrupt"]

_PATIENCE_S: Final = 5.0
"""How long frames that are under way at Ctrl-C may take; a server that hangs is not waited for."""

_T = TypeVar("_T")


class JobStopped(Exception):
    """A job was told to stop; nothing is written but its journal."""


class JobControl:
    """The switches of one job; every method may be called from any thread."""

    def __init__(self) -> None:
        self._running = threading.Event()
        self._running.set()
        self._ends = threading.Event()
        self._stops = threading.Event()
        self.on_drained: Callable[[], object] = lambda: None
        """Called when an early end has all its frames: writing the file is not to be hurried."""

    @property
    def is_paused(self) -> bool:
        return not self._running.is_set()

    @property
    def ends_early(self) -> bool:
        """Whether the output is to hold what is done and no more."""
        return self._ends.is_set()

    def pause(self) -> None:
        """Take no further frames; those under way are finished."""
        self._running.clear()

    def go_on(self) -> None:
        self._running.set()

    def end_early(self) -> None:
        """Finish the file with the frames that are done."""
        self._ends.set()
        self._running.set()

    def stop(self) -> None:
        """Stop; what is done stays in the journal, for a next run."""
        self._stops.set()
        self._running.set()

    def check(self) -> None:
        """Raise JobStopped if it is to stop."""
        if self._stops.is_set():
            raise JobStopped

    def watch(self, frames: Iterable[_T]) -> Iterator[_T]:
        """The frames as long as the job is to go on.

        Raises:
            JobStopped: it is not.
        """
        for frame in frames:
            # In slices, because Ctrl-C does not end a wait for an event.
            while not self._running.wait(0.2):
                pass
            self.check()
            if self.ends_early:
                return
            yield frame


@contextmanager
def end_early_at_interrupt(control: JobControl) -> Iterator[None]:
    """Let the first Ctrl-C finish the file with what is done; the second one, or a wait for frames
    that do not come, raises KeyboardInterrupt."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:
        # Ignored, or somebody else's: not ours to change.
        yield
        return
    timer = threading.Timer(_PATIENCE_S, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True

    def end_early(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        control.end_early()
        control.on_drained = timer.cancel
        timer.start()

    signal.signal(signal.SIGINT, end_early)
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, previous)


def describe_early_end(output: Path) -> str:
    """What to tell a person whose job ended early."""
    folder = job_folder(output)
    if not folder.exists():
        return f"stopped: {output} holds the frames so far"
    return (
        f"stopped: {output} holds the frames so far; the same command goes on, or remove "
        f"{folder.name} beside it"
    )
