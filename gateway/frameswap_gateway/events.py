"""Server-sent events of a job.

Each is the whole job, and its id the job's revision: who was away, even over a restart of the
gateway, is told how things are now, and misses nothing but numbers that are out of date.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.records import Job
from frameswap_gateway.views import show_job

__all__ = ["stream_events"]

HEARTBEAT_S: Final = 15.0
_PAUSE_S: Final = 0.2
"""Between two events: a fast job changes more often than anybody can see."""


async def stream_events(gateway: Gateway, job: Job, seen: int) -> AsyncIterator[str]:
    """Events newer than `seen`, to the last one."""
    listener = gateway.feed.listen(job.key)
    try:
        # Tells proxies and the page at once that the stream is there.
        yield ": here\nretry: 2000\n\n"
        current: Job | None = job
        while current is not None:
            if current.revision > seen:
                seen = current.revision
                yield f"event: job\nid: {seen}\ndata: {show_job(current).model_dump_json()}\n\n"
            if current.is_final or gateway.is_stopping:
                return
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await listener.wait()
            except TimeoutError:
                yield ": still here\n\n"
            await asyncio.sleep(_PAUSE_S)
            listener.clear()
            current = await gateway.ask(gateway.store.get_job, job.owner, job.id)
    finally:
        gateway.feed.leave(job.key, listener)
