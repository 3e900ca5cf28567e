"""/v1/jobs, /v1/faces, /v1/previews: what is done with the files."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from frameswap_gateway.admission import admit_job
from frameswap_gateway.asset_routes import find_asset, send_file
from frameswap_gateway.documents import FILES, problems
from frameswap_gateway.events import stream_events
from frameswap_gateway.folder import new_key
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.job_requests import (
    FacesRequest,
    JobList,
    JobRequest,
    JobView,
    Name,
    PreviewRequest,
)
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import Job
from frameswap_gateway.views import show_job
from frameswap_gateway.work import check_wishes, inputs_of, run_quickly, worker_wishes

__all__ = ["ROUTER"]

ROUTER: Final = APIRouter(prefix="/v1", tags=["jobs"])
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,4})(?:$|[,;\s])")
_MOST_WAIT_S: Final = 60
_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "It ended within `Prefer: wait=n`", "model": JobView},
    202: {"description": "It waits or runs", "model": JobView},
}
_PROBLEMS: Final = problems(
    "bad-request", "bad-token", "job-differs", "too-large", "not-a-picture", "not-possible",
    "no-face-found", "several-faces-found", "too-many", "stopping", "server-timeout",
    "storage-full",
)  # fmt: skip
_SAYS_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file", "content": FILES},
    206: {"description": "A part of it", "content": FILES},
    304: {"description": "As it was"},
    **problems("bad-token", "not-found", "not-finished", "range-not-satisfiable", "not-possible"),
}
Prefer = Annotated[
    str | None,
    Header(max_length=200, description="`wait=30` answers when the job has ended, or after 30 s."),
]
OutputName = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,40}\.[a-z0-9]{1,5}$")]


@ROUTER.post("/jobs", status_code=202, response_model=JobView,
             responses={**_ACCEPTED, **_PROBLEMS})  # fmt: skip
async def post_job(request: Request, wanted: JobRequest, prefer: Prefer = None) -> Response:
    """Swap a photo or a video."""
    return await _begin_swap(request, new_key(), wanted, prefer)


@ROUTER.put("/jobs/{id}", status_code=202, response_model=JobView,
            responses={**_ACCEPTED, **_PROBLEMS})  # fmt: skip
async def put_job(
    request: Request, id: Name, wanted: JobRequest, prefer: Prefer = None
) -> Response:
    """The same under a name of yours: asked for twice, it is one job."""
    return await _begin_swap(request, id, wanted, prefer)


@ROUTER.post("/faces", status_code=202, response_model=JobView,
             responses={**_ACCEPTED, **_PROBLEMS})  # fmt: skip
async def post_faces(request: Request, wanted: FacesRequest, prefer: Prefer = None) -> Response:
    """Look who is in a file: a job whose `result.persons` has a picture of each."""
    gateway: Gateway = request.app.state.gateway
    owner = request.scope["owner"]
    target = await _ready(gateway, owner, wanted.target)
    await admit_job(gateway, owner, 0)
    job = Job(
        owner=owner, id=new_key(), key=new_key(), kind="faces", lane="short",
        request=wanted.model_dump(), files={target.id: target.key}, created_s=time.time(),
    )  # fmt: skip
    return await _begin(request, job, prefer)


@ROUTER.post(
    "/previews", response_class=Response,
    responses={
        200: {"description": "The picture; `Faces-Found` says how many were seen",
              "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        **_PROBLEMS, **problems("server-unreachable"),
    },
)  # fmt: skip
async def post_preview(request: Request, wanted: PreviewRequest) -> Response:
    """One frame as the job would make it, as a JPEG."""
    gateway: Gateway = request.app.state.gateway
    owner = request.scope["owner"]
    target, assets, persons = await inputs_of(gateway, owner, wanted)
    asked = wanted.model_dump()
    check_wishes(asked, target)
    paths = {id: str(gateway.folder.asset(asset.key)) for id, asset in assets.items()}
    picture, faces = await run_quickly(
        gateway, target, at_s=wanted.at_s, longest=wanted.longest_px,
        wishes=worker_wishes(asked, paths, persons),
        names={path: assets[id].name or id for id, path in paths.items()},
    )  # fmt: skip
    return Response(picture, media_type="image/jpeg", headers={"Faces-Found": str(faces)})


@ROUTER.get("/jobs", responses=problems("bad-token", "not-possible"))
async def list_jobs(
    request: Request,
    before: Annotated[
        float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="`next` of a list.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobList:
    """Your jobs, the newest first."""
    gateway: Gateway = request.app.state.gateway
    jobs = await gateway.ask(
        gateway.store.list_jobs, request.scope["owner"],
        before_s=1e12 if before is None else before, most=limit,
    )  # fmt: skip
    more = f"/v1/jobs?before={jobs[-1].created_s!r}&limit={limit}" if len(jobs) == limit else None
    return JobList(jobs=[show_job(job) for job in jobs], next=more)


@ROUTER.get("/jobs/{id}", responses=problems("bad-token", "not-found", "not-possible"))
async def get_job(request: Request, id: Name) -> JobView:
    """How far a job is."""
    return show_job(await _find(request, id))


@ROUTER.get(
    "/jobs/{id}/events", response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events `job`: the job, with each change, to its end",
              "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **problems("bad-token", "not-found", "not-possible"),
    },
)  # fmt: skip
async def get_events(
    request: Request,
    id: Name,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """What happens, as it does. With `Last-Event-ID` only what is newer; ends with the job."""
    job = await _find(request, id)
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
    return StreamingResponse(
        stream_events(request.app.state.gateway, job, seen),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


@ROUTER.post(
    "/jobs/{id}/cancel", status_code=202, response_model=JobView,
    responses={202: {"description": "It is stopped, or will be when its frames have stopped"},
               **problems("bad-token", "not-found", "not-possible", "storage-full")},
)  # fmt: skip
async def cancel_job(request: Request, id: Name) -> JobView:
    """Stop a job; one that has ended stays as it is."""
    job = await _find(request, id)
    if not job.is_final:
        job = await request.app.state.scheduler.cancel(job)
    return show_job(job)


@ROUTER.delete(
    "/jobs/{id}", status_code=204,
    responses=problems("bad-token", "not-found", "job-running", "not-possible", "storage-full"),
)  # fmt: skip
async def delete_job(request: Request, id: Name) -> None:
    """Remove a job that has ended, and what it made."""
    gateway: Gateway = request.app.state.gateway
    job = await _find(request, id)
    if not job.is_final:
        raise Problem("job-running", f"the job {id} is not at its end: cancel it first")
    await gateway.ask(gateway.store.delete_job, job.key)
    gateway.folder.remove_job(job.key)


@ROUTER.head("/jobs/{id}/outputs/{name}", response_class=Response, responses=_SAYS_FILE,
             operation_id="head_output")  # fmt: skip
@ROUTER.get("/jobs/{id}/outputs/{name}", response_class=Response, responses=_SAYS_FILE,
            operation_id="get_output")  # fmt: skip
async def get_output(request: Request, id: Name, name: OutputName) -> Response:
    """What a job made; with `Range`, a part of it."""
    gateway: Gateway = request.app.state.gateway
    job = await _find(request, id)
    if name == "newest.jpg" and not job.is_final:
        return send_file(
            request, gateway.folder.job(job.key) / name, tag=f"{job.key}-{job.revision}",
            media_type="image/jpeg", name=name,
        )  # fmt: skip
    if job.state != "succeeded":
        raise Problem("not-finished", f"the job {id} is {job.state}: it has no output")
    if name not in job.outputs:
        raise Problem("not-found", f"the job {id} made no {name}")
    return send_file(
        request, gateway.folder.job(job.key) / name, tag=f"{job.key}-{name}",
        media_type=job.outputs[name], name=str(job.result.get("names", {}).get(name, name)),
    )  # fmt: skip


async def _begin_swap(
    request: Request, id: str, wanted: JobRequest, prefer: str | None
) -> Response:
    gateway: Gateway = request.app.state.gateway
    owner = request.scope["owner"]
    asked = wanted.model_dump()
    known = await gateway.ask(gateway.store.get_job, owner, id)
    if known is not None:
        return await _answer(request, _the_same(known, asked), prefer)
    target, assets, persons = await inputs_of(gateway, owner, wanted)
    suffix = check_wishes(asked, target)
    _check_webhook(gateway, wanted)
    frames = target.frames if target.kind == "video" else 0
    await admit_job(gateway, owner, frames)
    stem = (target.name or id).rpartition(".")[0] or target.name or id
    job = Job(
        owner=owner, id=id, key=new_key(), kind=target.kind,
        lane="short" if target.kind == "photo" else "long", request=asked,
        files={each: asset.key for each, asset in assets.items()}, persons=persons,
        total=target.frames, webhook="waiting" if wanted.webhook else "", created_s=time.time(),
        result={"suffix": suffix, "names": {f"result{suffix}": f"{stem}-swapped{suffix}"}},
    )  # fmt: skip
    return await _begin(request, job, prefer)


def _the_same(known: Job, asked: dict[str, Any]) -> Job:
    if dict(known.request) != asked:
        raise Problem("job-differs", f"there is another job {known.id}: choose another name")
    return known


def _check_webhook(gateway: Gateway, wanted: JobRequest) -> None:
    if wanted.webhook is None:
        return
    hosts = gateway.settings.webhook_hosts
    if (urlsplit(wanted.webhook.url).hostname or "") not in hosts:
        raise Problem(
            "not-possible",
            f"webhooks go to {', '.join(hosts) or 'nobody'} only (--webhook-host)",
        )


async def _begin(request: Request, job: Job, prefer: str | None) -> Response:
    gateway: Gateway = request.app.state.gateway
    listener = gateway.feed.listen(job.key)
    try:
        kept = await gateway.ask(gateway.store.add_job, job)
        if kept.key != job.key:
            kept = _the_same(kept, dict(job.request))
        gateway.wake.set()
        return await _answer(request, kept, prefer)
    finally:
        gateway.feed.leave(job.key, listener)


async def _answer(request: Request, job: Job, prefer: str | None) -> Response:
    """202 with the job; 200, or its problem, where the client waits and it ends in time."""
    found = _WAIT.search(prefer or "")
    if found is not None:
        job = await _wait(request, job, min(int(found[1]), _MOST_WAIT_S))
        if job.state == "failed" and job.error is not None:
            raise Problem.of_job(job.error["code"], job.error["message"])
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if found is not None:
        headers["Preference-Applied"] = f"wait={found[1]}"
    body = show_job(job).model_dump()
    return JSONResponse(body, status_code=200 if job.is_final else 202, headers=headers)


async def _wait(request: Request, job: Job, most_s: float) -> Job:
    gateway: Gateway = request.app.state.gateway
    listener = gateway.feed.listen(job.key)
    loop = asyncio.get_running_loop()
    until = loop.time() + most_s
    try:
        while not job.is_final and not gateway.is_stopping:
            left_s = until - loop.time()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    await listener.wait()
            except TimeoutError:
                break
            listener.clear()
            newer = await gateway.ask(gateway.store.get_job, job.owner, job.id)
            job = newer or job
    finally:
        gateway.feed.leave(job.key, listener)
    return job


async def _find(request: Request, id: str) -> Job:
    gateway: Gateway = request.app.state.gateway
    job = await gateway.ask(gateway.store.get_job, request.scope["owner"], id)
    if job is None:
        raise Problem("not-found", f"there is no job {id}")
    return job


async def _ready(gateway: Gateway, owner: str, id: str) -> Any:
    try:
        return await find_asset(gateway, owner, id)
    except Problem as problem:
        raise Problem("not-possible", problem.sentence) from problem
