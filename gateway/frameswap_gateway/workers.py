"""The gateway's side of its worker processes: start them, hand tasks out, bury the dead."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from frameswap_gateway.settings import Servers

__all__ = ["Handle", "Runner", "TaskFailed", "WorkerDied", "WorkerPool", "describe_servers"]

LOG: Final = logging.getLogger(__name__)
_LINE_BYTES: Final = 16 << 20
"""Of an answer: the persons of a long film, with their embeddings, are the longest."""
_START_S: Final = 60.0
_STOP_S: Final = 5.0

OnEvent = Callable[[dict[str, Any]], Awaitable[None]]


class TaskFailed(Exception):
    """A worker says that it could not; code and sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class WorkerDied(Exception):
    """A worker is gone, or was too slow, and its task is not done."""


@dataclass
class Handle:
    """One task under way; `cancel` may be called at any time.

    send: brings the task something; returns when the worker's pipe has room again.
    """

    is_canceled: bool = False
    on_cancel: Callable[[], None] = lambda: None
    send: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None

    def cancel(self) -> None:
        self.is_canceled = True
        self.on_cancel()


class Runner(Protocol):
    """Who does tasks: `WorkerPool`, or, in tests of the rest, something without processes."""

    @property
    def free(self) -> int: ...
    async def run(
        self, task: str, *, on_event: OnEvent | None = None, handle: Handle | None = None,
        names: Mapping[str, str] | None = None, timeout_s: float | None = None, **arguments: Any,
    ) -> dict[str, Any]: ...  # fmt: skip
    async def close(self) -> None: ...


def describe_servers(servers: Servers) -> dict[str, Any]:
    """As JSON, for a worker."""
    described = asdict(servers)
    security = described["security"]
    for name in ("ca", "certificate", "key"):
        security[name] = None if security[name] is None else str(security[name])
    return described


class _Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tell(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        with suppress(ConnectionError):
            await self.process.stdin.drain()

    async def answer(self) -> dict[str, Any]:
        """The next line. Raises WorkerDied."""
        assert self.process.stdout is not None
        try:
            line = await self.process.stdout.readline()
        except ValueError as error:
            raise WorkerDied("a worker's answer has no end") from error
        if not line:
            code = await self.process.wait()
            raise WorkerDied(f"a worker ended with {code}")
        return dict(json.loads(line))

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class WorkerPool:
    """So many processes, started when they are first wanted, and again after they died.

    Args:
        count: most at a time.
        servers: what they swap with; None for those that look only.
        memory_bytes: of address space for each.
        niceness: how far they stand back behind others.
    """

    def __init__(
        self, count: int, *, servers: Servers | None, memory_bytes: int, niceness: int = 0
    ) -> None:
        self._settings = {
            "servers": None if servers is None else describe_servers(servers),
            "memory_bytes": memory_bytes,
            "may_write": servers is not None,
            "niceness": niceness,
        }
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._room = asyncio.Semaphore(count)
        self._taken = 0
        self._numbers = itertools.count(1)

    @property
    def free(self) -> int:
        return self._count - self._taken

    async def warm_up(self) -> None:
        """Start them all, so that the first request need not wait."""
        missing = self._count - len(self._idle) - len(self._busy)
        started = await asyncio.gather(*(self._start() for _ in range(missing)))
        self._idle += started

    async def run(
        self, task: str, *, on_event: OnEvent | None = None, handle: Handle | None = None,
        names: Mapping[str, str] | None = None, timeout_s: float | None = None, **arguments: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Have a worker do a task.

        Args:
            names: what to call a path in sentences for the user.
            timeout_s: after so long the worker is killed.

        Raises:
            TaskFailed: it said so.
            WorkerDied: it is gone, or was too slow.
        """
        self._taken += 1
        try:
            async with self._room:
                worker = self._idle.pop() if self._idle else await self._start()
                self._busy.add(worker)
                try:
                    message = {"task": task, "names": names or {}, **arguments}
                    async with asyncio.timeout(timeout_s):
                        answer = await self._converse(
                            worker, message, on_event, handle or Handle()
                        )
                    self._idle.append(worker)
                    return answer
                except TaskFailed:
                    self._idle.append(worker)
                    raise
                except TimeoutError as error:
                    await worker.end()
                    raise WorkerDied(f"a worker took more than {timeout_s} s") from error
                except BaseException:
                    await worker.end()
                    raise
                finally:
                    self._busy.discard(worker)
        finally:
            self._taken -= 1

    async def close(self) -> None:
        """Kill them: what they have written down is whole."""
        await asyncio.gather(*(worker.end() for worker in (*self._idle, *self._busy)))
        self._idle.clear()

    async def _converse(
        self, worker: _Worker, message: dict[str, Any], on_event: OnEvent | None, handle: Handle
    ) -> dict[str, Any]:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        sent: set[asyncio.Task[None]] = set()

        def cancel() -> None:
            sent.add(loop.create_task(worker.tell({"cancel": number})))

        await worker.tell({"number": number, **message})
        handle.on_cancel = cancel
        handle.send = lambda more: worker.tell({"to": number, **more})
        if handle.is_canceled:
            cancel()
        try:
            while True:
                answer = await worker.answer()
                if "event" in answer:
                    if on_event is not None:
                        await on_event(answer["event"])
                elif "failed" in answer:
                    raise TaskFailed(answer["failed"]["code"], answer["failed"]["text"])
                else:
                    return dict(answer["done"])
        finally:
            handle.on_cancel, handle.send = lambda: None, None
            await asyncio.gather(*sent)

    async def _start(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "frameswap_gateway.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
        )  # fmt: skip
        worker = _Worker(process)
        try:
            await worker.tell(self._settings)
            async with asyncio.timeout(_START_S):
                await worker.answer()
        except BaseException:
            await worker.end()
            raise
        return worker
