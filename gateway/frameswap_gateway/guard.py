"""What stands before every request: whose it is, where it came from, how long it may be.

CORS is closed: no answer carries a header that lets another site read it. A page of another site
can still send requests to this machine, so what changes something must come from our own page, or
from no page; and without tokens only names of this machine are answered to, because a name of
somebody else's can be made to lead here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frameswap_gateway.problems import Problem, problem_response
from frameswap_gateway.tokens import ANYBODY, COOKIE

if TYPE_CHECKING:
    from frameswap_gateway.gateway import Gateway

__all__ = ["Guard"]

_BODY_BYTES: Final = 64 << 10
"""Of everything but an upload: a job's request is a few hundred."""
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        settings = gateway.settings
        self._names = {*_LOOPBACK_NAMES, settings.host.lower(), *map(str.lower, settings.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            if scope["type"] == "http" and not _is_upload(scope):
                receive = await _read_body(scope, receive)
        except Problem as problem:
            if scope["type"] == "websocket":
                await receive()
                # Before the handshake is answered, a close is a refusal: 403.
                await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
                return
            response = problem_response(Request(scope), problem)
            await response(scope, receive, self._noting(scope, send))
            return
        await self._app(scope, receive, self._noting(scope, send))

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        tokens = self._gateway.tokens
        if not tokens.wanted and _host_name(host) not in self._names:
            raise Problem(
                "bad-host", f"this gateway does not answer to {host!r}: use its own address"
            )
        if scope["type"] == "websocket" or scope["method"] not in _SAFE:
            _check_origin(headers, host)
        scope["owner"] = ANYBODY if not tokens.wanted else self._owner(headers)
        if scope["owner"] is None and _needs_owner(scope["path"]):
            raise Problem(
                "bad-token", "give a token: Authorization: Bearer ...",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def _owner(self, headers: Headers) -> str | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._gateway.tokens.owner_of(token.strip())
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return self._gateway.tokens.owner_of_cookie(cookie) if cookie else None

    def _noting(self, scope: Scope, send: Send) -> Send:
        """Send with our headers, and count the answer at its end."""
        began_s = time.perf_counter()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                route = getattr(scope.get("route"), "path", "other")
                metrics = self._gateway.metrics
                metrics.requests.labels(scope["method"], route, status).inc()
                elapsed_s = time.perf_counter() - began_s
                metrics.seconds.labels(scope["method"], route).observe(elapsed_s)

        return noted


def _needs_owner(path: str) -> bool:
    return (path.startswith("/v1/") and path != "/v1/session") or path == "/metrics"


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "PUT" and str(scope["path"]).startswith("/v1/assets/")


def _host_name(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _check_origin(headers: Headers, host: str) -> None:
    origin = headers.get("origin")
    other = origin is not None and urlsplit(origin).netloc.lower() != host
    if other or headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site"):
        raise Problem("other-origin", "a page of another site may not ask for this")


async def _read_body(scope: Scope, receive: Receive) -> Receive:
    """Take a short body in, and hand it on.

    Raises:
        Problem: it is long.
    """
    length = Headers(scope=scope).get("content-length", "0")
    body = b""
    is_whole = scope["method"] in _SAFE
    while not is_whole and int(length if length.isdecimal() else 0) <= _BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        is_whole = not message.get("more_body", False)
        if len(body) > _BODY_BYTES:
            is_whole = False
            break
    if not is_whole:
        raise Problem(
            "too-large", f"a request has at most {_BODY_BYTES} bytes; files go to /v1/assets/"
        )
    was_given = False

    async def again() -> Message:
        nonlocal was_given
        if was_given:
            return await receive()
        was_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
