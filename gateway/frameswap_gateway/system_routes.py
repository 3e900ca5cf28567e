"""What a deployment can do, how it is, who one is to it, and its page."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from frameswap.encoders import ENCODERS
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, PlainTextResponse

from frameswap_gateway.documents import problems
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.licences import licence_of
from frameswap_gateway.problems import Problem
from frameswap_gateway.tokens import COOKIE, SESSION_S
from frameswap_gateway.wishes import AREAS, KEEPS, MASKS, ORDERS
from frameswap_gateway.work import MEDIA_TYPES
from frameswap_gateway.workers import TaskFailed, WorkerDied

__all__ = ["ROUTER", "Described"]

ROUTER: Final = APIRouter()
PAGE: Final = Path(__file__).parent / "page"
_PAGE_TYPES: Final = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}  # fmt: skip
_DESCRIBE_S: Final = 90.0
_FRESH_S: Final = 300.0


class Described:
    """What the servers said of themselves, asked again now and then."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._said: dict[str, Any] | None = None
        self._said_s = 0.0
        self._turn = asyncio.Lock()

    async def get(self) -> dict[str, Any]:
        """Raises Problem where no server answers."""
        async with self._turn:
            if self._said is None or time.monotonic() - self._said_s > _FRESH_S:
                try:
                    self._said = await self._gateway.lanes["short"].run(
                        "describe", timeout_s=_DESCRIBE_S
                    )
                except (TaskFailed, WorkerDied) as failure:
                    if self._said is None:
                        raise Problem(
                            "server-unreachable", f"no server answers now: {failure}",
                            retry_after_s=5,
                        ) from failure  # fmt: skip
                self._said_s = time.monotonic()
            return self._said


class Token(BaseModel):
    token: str = Field(max_length=1000)


class SessionView(BaseModel):
    """wanted: whether this gateway asks for tokens. owner: who you are to it; null: nobody yet."""

    wanted: bool
    owner: str | None


@ROUTER.get("/v1/capabilities", tags=["system"],
            responses=problems("bad-token", "server-unreachable"))  # fmt: skip
async def get_capabilities(request: Request) -> dict[str, Any]:
    """What this deployment swaps with, what that may be used for, and how much it takes."""
    gateway: Gateway = request.app.state.gateway
    said = await request.app.state.described.get()
    limits = gateway.settings.limits
    licence = licence_of(said["swapper"])
    has_points = said["landmarker"] is not None
    masks = [name for name in MASKS if (name != "hull" or has_points)
             and (name != "own" or said["gives_mask"])]  # fmt: skip
    return {
        "version": version("frameswap-gateway"),
        "swapper": {
            "name": said["swapper"], "licence": licence.name, "allows": licence.allows,
            "source_kind": said["source_kind"], "mark": said["provenance"],
            "averages_photos": said["source_kind"] == "identity",
        },
        "landmarker": said["landmarker"],
        "persons": said["persons"],
        "options": {
            "masks": masks, "keep": list(KEEPS) if has_points else [],
            "areas": list(AREAS) if has_points else [],
            "face_order": list(ORDERS), "pose_limit": has_points,
        },
        "codecs": {
            name: [suffix for suffix in ENCODERS[name].suffixes if suffix in MEDIA_TYPES]
            for name in said["codecs"]
        },
        "limits": {
            "asset_bytes": limits.asset_bytes, "photo_pixels": limits.photo_pixels,
            "video_pixels": limits.video_pixels, "video_frames": limits.video_frames,
            "user_bytes": limits.user_bytes, "user_jobs": limits.user_jobs,
            "kept_s": limits.kept_s, "live_sessions": limits.live_sessions,
        },
    }  # fmt: skip


@ROUTER.get("/v1/session", tags=["system"], responses=problems())
async def get_session(request: Request) -> SessionView:
    """Who you are to this gateway."""
    tokens = request.app.state.gateway.tokens
    return SessionView(wanted=tokens.wanted, owner=request.scope["owner"])


@ROUTER.post(
    "/v1/session", tags=["system"], status_code=204,
    responses=problems("bad-request", "bad-token", "too-large", "not-possible"),
)  # fmt: skip
async def post_session(request: Request, wanted: Token) -> Response:
    """Give a token, and get a cookie: for browsers, which send no token with a picture."""
    gateway: Gateway = request.app.state.gateway
    owner = gateway.tokens.owner_of(wanted.token)
    if gateway.tokens.wanted and owner is None:
        raise Problem("bad-token", "this token is not known here: ask who runs this gateway")
    response = Response(status_code=204)
    if owner is not None:
        response.set_cookie(
            COOKIE, gateway.tokens.cookie_for(owner), max_age=int(SESSION_S), httponly=True,
            samesite="strict", secure=gateway.settings.secure_cookies,
        )  # fmt: skip
    return response


@ROUTER.delete("/v1/session", tags=["system"], status_code=204, responses=problems())
async def delete_session() -> Response:
    """Forget the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE)
    return response


@ROUTER.get("/healthz", tags=["system"], response_class=PlainTextResponse,
            responses=problems("stopping"))  # fmt: skip
async def get_healthz(request: Request) -> str:
    """That the process answers, and every part of it runs."""
    if any(task.done() for task in request.app.state.background):
        raise Problem("stopping", "a part of this gateway has ended: start it again")
    return "ok\n"


@ROUTER.get("/readyz", tags=["system"], response_class=PlainTextResponse,
            responses=problems("stopping"))  # fmt: skip
async def get_readyz(request: Request) -> str:
    """That it takes jobs. They wait where no server answers, so it does not ask for one."""
    gateway: Gateway = request.app.state.gateway
    if gateway.is_stopping:
        raise Problem("stopping", "this gateway takes no jobs now", retry_after_s=5)
    await gateway.ask(gateway.store.count_states)
    return "ready\n"


@ROUTER.get("/metrics", tags=["system"], response_class=PlainTextResponse,
            responses=problems("bad-token"))  # fmt: skip
async def get_metrics(request: Request) -> Response:
    """For Prometheus; asks for a token where the rest does."""
    text = generate_latest(request.app.state.gateway.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@ROUTER.get("/", include_in_schema=False)
async def get_page() -> Response:
    return _page_file("index.html")


@ROUTER.get("/page/{name}", include_in_schema=False)
async def get_page_file(name: str) -> Response:
    return _page_file(name)


def _page_file(name: str) -> Response:
    # Only what is in the folder is sent: a name is looked up, and never joined to a path.
    for path in PAGE.iterdir():
        if path.name == name and path.suffix in _PAGE_TYPES:
            headers = {"Cache-Control": "no-cache"}
            return FileResponse(path, media_type=_PAGE_TYPES[path.suffix], headers=headers)
    raise Problem("not-found", f"there is no {name} here")
