"""Telling somebody's server that a job has ended: a POST of the job object, signed.

Source: Standard Webhooks 1.0 (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, and
`webhook-signature: v1,` with the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
from typing import Final

import httpx2

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import Job
from frameswap_gateway.views import show_job

__all__ = ["Webhooks", "sign"]

LOG: Final = logging.getLogger(__name__)
DELAYS_S: Final = (5.0, 30.0, 120.0, 600.0, 3600.0)
_LOOK_S: Final = 1.0
_ANSWER_S: Final = 10.0


def sign(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    digest = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhooks:
    """Sends what waits in the table; after a restart the tries are counted anew."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tried: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        # No redirect is followed, and no proxy asked: the host is one that was allowed.
        async with httpx2.AsyncClient(timeout=_ANSWER_S, trust_env=False) as client:
            while True:
                try:
                    for job in await self._gateway.ask(self._gateway.store.waiting_webhooks):
                        await self._try(client, job)
                except Problem as problem:
                    LOG.warning("%s", problem)
                await asyncio.sleep(_LOOK_S)

    async def _try(self, client: httpx2.AsyncClient, job: Job) -> None:
        tries, next_s = self._tried.get(job.key, (0, 0.0))
        if time.monotonic() < next_s:
            return
        url = job.request["webhook"]["url"]
        body = show_job(job).model_dump_json().encode()
        timestamp = int(time.time())
        id = f"{job.key}-{job.revision}"
        signature = sign(self._gateway.settings.webhook_secret, id, timestamp, body)
        headers = {
            "content-type": "application/json", "webhook-id": id,
            "webhook-timestamp": str(timestamp), "webhook-signature": signature,
        }  # fmt: skip
        try:
            answer = await client.post(url, content=body, headers=headers)
            trouble = "" if answer.is_success else f"it answered {answer.status_code}"
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            trouble = str(error) or type(error).__name__
        if not trouble or tries >= len(DELAYS_S):
            self._tried.pop(job.key, None)
            state = "failed" if trouble else "sent"
            await self._gateway.ask(self._gateway.store.finish_webhook, job.key, state)
        else:
            self._tried[job.key] = (tries + 1, time.monotonic() + DELAYS_S[tries])
        if trouble:
            LOG.warning("webhook of job %s: %s", job.key, trouble)
