"""What one worker keeps from task to task: its connection, and the word to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from frameswap import (
    FaceSwapper,
    JobEvent,
    JobStopped,
    Security,
    ServerNotReady,
    ServerUnreachable,
    Tally,
    VideoJob,
)

__all__ = ["Bench"]

_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.5

OnEvent = Callable[[Mapping[str, Any]], None]


class Bench:
    """One worker's; `cancel` and `bring` are called by another thread than the rest."""

    def __init__(self, servers: Mapping[str, Any] | None) -> None:
        self._servers = servers
        self._swapper: FaceSwapper | None = None
        self._number = self._canceled = 0
        self._stops = threading.Event()
        self._job: VideoJob | None = None
        self._newest: dict[str, Any] | None = None
        self._came = threading.Condition()
        self.tell: OnEvent = lambda event: None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._swapper is not None:
            self._swapper.close()

    def begin(self, number: int, tell: OnEvent) -> None:
        with self._came:
            self._number, self.tell, self._newest = number, tell, None
            self._stops.clear()
            if number == self._canceled:
                self._stops.set()

    def bring(self, number: int, message: dict[str, Any]) -> None:
        """Something for the task that runs; it takes the place of what was not taken yet."""
        with self._came:
            if number == self._number:
                self._newest = message
                self._came.notify()

    def newest(self) -> dict[str, Any]:
        """Wait for it. Raises JobStopped."""
        with self._came:
            while self._newest is None:
                self.check()
                self._came.wait(_LOOK_S)
            message, self._newest = self._newest, None
        self.check()
        return message

    def cancel(self, number: int) -> None:
        """Stop a task, which may not have begun; a late word about another is not for this one."""
        with self._came:
            self._canceled = number
            if number != self._number:
                return
            self._stops.set()
        if self._job is not None:
            self._job.cancel()

    def check(self) -> None:
        """Raise JobStopped if the task is to stop."""
        if self._stops.is_set():
            raise JobStopped

    @property
    def swapper(self) -> FaceSwapper:
        """The connection; at the first use, servers that do not answer yet are waited for."""
        if self._swapper is None:
            assert self._servers is not None  # tasks that look only do not ask
            settings = self._servers
            security = dict(settings["security"])
            paths = ("ca", "certificate", "key")
            security |= {name: Path(security[name]) for name in paths if security[name]}
            until = time.monotonic() + settings["reconnect_s"]
            while self._swapper is None:
                self.check()
                try:
                    self._swapper = FaceSwapper(
                        settings["address"],
                        timeout_s=settings["timeout_s"],
                        transport=settings["transport"],
                        in_flight=settings["in_flight"],
                        reconnect_s=settings["reconnect_s"],
                        security=Security(**security),
                    )
                except (ServerUnreachable, ServerNotReady):
                    if time.monotonic() > until:
                        raise
                    time.sleep(_AGAIN_S)
        return self._swapper

    def run(self, job: VideoJob) -> Tally:
        """A video job to its end, telling how far it is."""
        self._job = job
        try:
            self.check()
            job.start()
            for event in job.events():
                self.tell(_describe(event))
            return job.result()
        finally:
            self._job = None


def _describe(event: JobEvent) -> dict[str, Any]:
    rate = event.frames / event.elapsed_s if event.elapsed_s > 0 else 0.0
    left_s = max(0, event.total - event.frames) / rate if event.total and rate else None
    told: dict[str, Any] = {"frames": event.frames, "rate": round(rate, 2), "left_s": left_s}
    if event.total:
        told["total"] = event.total
    if event.note:
        told["note"] = event.note
    return told
