"""/v1/live: a camera's pictures in, swapped ones out, over one WebSocket.

    client  {"source": ["face"], "options": {...}}        once, text
    server  {"ready": true}
    client  number (4 bytes, the highest first) + JPEG    as often as it likes, binary
    server  number, faces found (1 byte) + JPEG           for the newest of them, binary

A picture that is not taken yet when the next one comes is dropped, so the delay stays that of one
picture. The number comes back with it: the client knows when it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.job_requests import Name, Options
from frameswap_gateway.problems import Problem, problem_response
from frameswap_gateway.work import worker_wishes
from frameswap_gateway.workers import Handle, TaskFailed, WorkerDied

__all__ = ["ROUTER"]

ROUTER: Final = APIRouter()
_BAD: Final = 1008
_BUSY: Final = 1013
_PICTURE_BYTES: Final = 2 << 20
_MOST_PIXELS: Final = 1920 * 1080
_FIRST_S: Final = 10.0


class LiveRequest(BaseModel):
    """Whose face is put in."""

    model_config = ConfigDict(extra="forbid", strict=True)
    source: list[Name] = Field(min_length=1, max_length=16)
    options: Options = Options()


@ROUTER.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    """One camera."""
    gateway: Gateway = socket.app.state.gateway
    await socket.accept()
    try:
        if gateway.live.free < 1 or gateway.is_stopping:
            raise Problem("too-many", "all live places are taken: try again later")
        wishes = await _read_request(gateway, socket)
        gateway.metrics.live.inc()
        try:
            await _swap(gateway, socket, wishes)
        finally:
            gateway.metrics.live.dec()
    except Problem as problem:
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_text(bytes(problem_response(None, problem).body).decode())
            await socket.close(_BUSY if problem.code == "too-many" else _BAD, problem.code)
    except WebSocketDisconnect:
        pass


async def _read_request(gateway: Gateway, socket: WebSocket) -> dict[str, Any]:
    """What the worker is told.

    Raises:
        Problem: it is none, or the source is not there.
    """
    try:
        async with asyncio.timeout(_FIRST_S):
            text = await socket.receive_text()
        wanted = LiveRequest.model_validate_json(text)
    except (TimeoutError, KeyError, ValidationError) as error:
        raise Problem("not-possible", "first comes a text: {\"source\": [\"ID\"]}") from error
    paths = {}
    for id in wanted.source:
        asset = await gateway.ask(gateway.store.get_asset, socket.scope["owner"], id)
        if asset is None or asset.kind != "photo":
            raise Problem("not-possible", f"there is no uploaded photo {id}")
        paths[id] = str(gateway.folder.asset(asset.key))
    asked = wanted.model_dump()
    swap = {"source": asked["source"], "source_face": None}
    return worker_wishes({"swaps": [swap], "options": asked["options"]}, paths, ())


async def _swap(gateway: Gateway, socket: WebSocket, wishes: dict[str, Any]) -> None:
    handle = Handle()

    async def on_event(event: dict[str, Any]) -> None:
        if "ready" in event:
            await socket.send_text(json.dumps(event))
            return
        head = int(event["frame"]).to_bytes(4, "big") + bytes([min(255, event["faces"])])
        await socket.send_bytes(head + base64.b64decode(event["jpeg"]))

    taking = asyncio.create_task(_take(socket, handle))
    try:
        await gateway.live.run(
            "live", on_event=on_event, handle=handle, wishes=wishes, most_pixels=_MOST_PIXELS
        )
    except TaskFailed as failure:
        if failure.code != "canceled":
            raise Problem.of_job(failure.code, failure.text) from failure
    except WorkerDied as death:
        gateway.metrics.deaths.inc()
        raise Problem("not-possible", "a picture could not be read: start again") from death
    except RuntimeError as error:
        # Sent to a socket that was closed meanwhile.
        raise WebSocketDisconnect from error
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


async def _take(socket: WebSocket, handle: Handle) -> None:
    """Hand pictures on until the client goes."""
    try:
        while True:
            data = await socket.receive_bytes()
            if 4 < len(data) <= _PICTURE_BYTES and handle.send is not None:
                number = int.from_bytes(data[:4], "big")
                jpeg = base64.b64encode(data[4:]).decode()
                await handle.send({"frame": number, "jpeg": jpeg})
    except (WebSocketDisconnect, KeyError):
        pass
    finally:
        handle.cancel()
