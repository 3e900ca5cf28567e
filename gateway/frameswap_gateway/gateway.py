"""The parts of one gateway, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

from frameswap_gateway.folder import Folder
from frameswap_gateway.metrics import Metrics
from frameswap_gateway.records import Job, Lane, Store
from frameswap_gateway.settings import Servers, Settings
from frameswap_gateway.tokens import Tokens
from frameswap_gateway.workers import Runner

__all__ = ["Feed", "Gateway"]

P = ParamSpec("P")
R = TypeVar("R")


class Feed:
    """Who waits for news of a job."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def tell(self, key: str) -> None:
        for event in self._waiting.get(key, ()):
            event.set()

    def tell_all(self) -> None:
        for key in self._waiting:
            self.tell(key)

    def listen(self, key: str) -> asyncio.Event:
        """An event that is set with every change; give it back with `leave`."""
        event = asyncio.Event()
        self._waiting.setdefault(key, set()).add(event)
        return event

    def leave(self, key: str, event: asyncio.Event) -> None:
        listeners = self._waiting[key]
        listeners.discard(event)
        if not listeners:
            del self._waiting[key]


@dataclass
class Gateway:
    """What the routes work with.

    probes: look at uploads, in processes that cannot write. lanes, live:
    those that swap.
    servers: what they swap with. result_bytes: of each user's results, as of the last sweep.
    """

    settings: Settings
    folder: Folder
    store: Store
    tokens: Tokens
    probes: Runner
    lanes: dict[Lane, Runner]
    live: Runner
    servers: Servers | None = None
    metrics: Metrics = field(default_factory=Metrics)
    feed: Feed = field(default_factory=Feed)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    result_bytes: dict[str, int] = field(default_factory=dict)
    uploading: dict[tuple[str, str], str] = field(default_factory=dict)
    is_stopping: bool = False

    def __post_init__(self) -> None:
        self._table_thread = ThreadPoolExecutor(1, "table")

    async def ask(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the store: in the thread that it has for itself, unless it is quick."""
        if getattr(method, "is_quick", False):
            return method(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._table_thread, partial(method, *args, **kwargs))

    def begin_to_stop(self) -> None:
        """Take no more, and let those who listen and wait go."""
        self.is_stopping = True
        self.feed.tell_all()
        self.wake.set()

    async def change(self, job: Job, **changes: object) -> Job | None:
        """Change a job that is not final, and tell who waits for that."""
        changed = await self.ask(self.store.update, job.key, changes)
        if changed is not None and changed.is_final:
            self.metrics.ended.labels(changed.kind, changed.state).inc()
        self.feed.tell(job.key)
        return changed

    async def close(self) -> None:
        for runner in (self.probes, self.live, *self.lanes.values()):
            await runner.close()
        self._table_thread.shutdown()
        self.store.close()
        self.folder.close()
