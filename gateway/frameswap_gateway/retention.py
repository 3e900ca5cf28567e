"""Nothing is kept for ever: what nobody used for a while goes, the oldest first where room is."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import FINAL_STATES

__all__ = ["keep_house", "sweep"]

LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 60.0
_YOUNG_S: Final = 600.0
"""A file without a row may be about to get one."""


async def keep_house(gateway: Gateway) -> None:
    """Sweep once a minute, until it is cancelled."""
    while True:
        try:
            await sweep(gateway, now_s=time.time())
        except (OSError, Problem) as error:
            LOG.warning("sweeping: %s", error)
        await asyncio.sleep(_EVERY_S)


async def sweep(gateway: Gateway, *, now_s: float) -> None:
    """Remove what is too old, then the oldest results as long as all is too much."""
    store, folder, limits = gateway.store, gateway.folder, gateway.settings.limits
    before_s = now_s - limits.kept_s
    for job in await gateway.ask(store.stale_jobs, before_s):
        await gateway.ask(store.delete_job, job.key)
    for asset in await gateway.ask(store.stale_assets, before_s):
        if (asset.owner, asset.id) not in gateway.uploading:
            await gateway.ask(store.delete_asset, asset.owner, asset.id)
    sizes: dict[str, int] = {}
    ended = await gateway.ask(store.stale_jobs, now_s + 1.0)
    _, total = await gateway.ask(store.asset_bytes, "")
    of_job = {job.key: await asyncio.to_thread(folder.job_bytes, job.key) for job in ended}
    total += sum(of_job.values())
    for job in ended:
        if total > limits.all_bytes:
            total -= of_job[job.key]
            await gateway.ask(store.delete_job, job.key)
        else:
            sizes[job.owner] = sizes.get(job.owner, 0) + of_job[job.key]
    gateway.result_bytes = sizes
    known = await gateway.ask(store.keys_in_use)
    known |= set(gateway.uploading.values())
    await asyncio.to_thread(folder.remove_unknown, known, before_s=now_s - _YOUNG_S)
    states = await gateway.ask(store.count_states)
    for state in ("queued", "processing", *FINAL_STATES):
        gateway.metrics.jobs.labels(state).set(states.get(state, 0))
