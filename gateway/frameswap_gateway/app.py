"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from frameswap_gateway import asset_routes, job_routes, live, system_routes
from frameswap_gateway.documents import add_shared
from frameswap_gateway.folder import Folder
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.guard import Guard
from frameswap_gateway.problems import Problem, problem_response
from frameswap_gateway.retention import keep_house
from frameswap_gateway.scheduler import Scheduler
from frameswap_gateway.settings import Servers, Settings
from frameswap_gateway.sqlite_store import SqliteStore
from frameswap_gateway.system_routes import Described
from frameswap_gateway.tokens import Tokens, check_exposure
from frameswap_gateway.webhooks import Webhooks
from frameswap_gateway.workers import WorkerPool

__all__ = ["build_app", "build_gateway", "describe_api"]

LOG: Final = logging.getLogger(__name__)
_PROBE_BYTES: Final = 3 << 30
_WORKER_BYTES: Final = 12 << 30
"""Of address space: what a process has mapped, several times what it uses."""
_PROBES: Final = 2
_NICE: Final = 5
"""Of films: somebody waits for a photo."""
_OF_STATUS: Final = {404: "not-found", 405: "method-not-allowed"}


def build_gateway(settings: Settings, servers: Servers) -> Gateway:
    """A gateway with SQLite, a folder and worker processes.

    Raises:
        BadOptions: no tokens where others reach it, or a folder that cannot be used.
    """
    check_exposure(settings.host, settings.tokens)
    folder = Folder(settings.folder)
    limits = settings.limits

    def pool(count: int, niceness: int = 0) -> WorkerPool:
        return WorkerPool(
            count, servers=servers, memory_bytes=_WORKER_BYTES, niceness=niceness
        )

    return Gateway(
        settings=settings,
        folder=folder,
        store=SqliteStore(folder.table),
        tokens=Tokens(settings.tokens, key=folder.session_key),
        probes=WorkerPool(_PROBES, servers=None, memory_bytes=_PROBE_BYTES),
        lanes={"short": pool(limits.short_workers), "long": pool(limits.long_workers, _NICE)},
        live=pool(limits.live_sessions),
    )


def build_app(gateway: Gateway) -> ASGIApp:
    """The application, which runs the gateway's jobs as long as it is up."""
    app = _routes()
    app.state.gateway = gateway
    app.state.described = Described(gateway)
    app.state.scheduler = scheduler = Scheduler(gateway)
    app.state.background = []

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # The folder's lock says that no other gateway lives: what it had is anybody's.
        try:
            await gateway.ask(gateway.store.release, "*")
        except Problem as problem:
            # Their leases run out by themselves.
            LOG.warning("%s", problem)
        works = [scheduler.run(), keep_house(gateway), Webhooks(gateway).run()]
        app.state.background += [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in app.state.background:
                task.cancel()
            await asyncio.gather(*app.state.background, return_exceptions=True)
            await scheduler.stop()
            await gateway.close()

    app.router.lifespan_context = life
    return Guard(app, gateway)


def describe_api() -> dict[str, Any]:
    """The OpenAPI 3.1 description, which gateway/openapi.json holds."""
    return dict(_routes().openapi())


def _routes() -> FastAPI:
    app = FastAPI(
        title="frameswap gateway",
        version=version("frameswap-gateway"),
        summary="Swap faces in photos and videos.",
        # Their pages would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        # What generated clients call their functions.
        generate_unique_id_function=lambda route: route.name,
    )
    for routes in (asset_routes, job_routes, system_routes, live):
        app.include_router(routes.ROUTER)
    app.add_exception_handler(Problem, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_status)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            add_shared(described())
        return described()

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _tell_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(request, error)


async def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = "/".join(str(part) for part in first["loc"])
    code = "bad-request" if first["type"] == "json_invalid" else "not-possible"
    return problem_response(request, Problem(code, f"{where}: {first['msg']}"))


async def _tell_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _OF_STATUS.get(error.status_code, "bad-request")
    problem = Problem(code, str(error.detail), headers=error.headers)
    return problem_response(request, problem)
