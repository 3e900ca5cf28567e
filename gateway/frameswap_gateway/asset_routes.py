"""/v1/assets: files that clients bring."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import FileResponse, JSONResponse

from frameswap_gateway.documents import BYTES, FILES, problems
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.job_requests import AssetList, AssetView, Name, Seconds
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import Asset
from frameswap_gateway.uploads import read_part, take_upload
from frameswap_gateway.views import show_asset
from frameswap_gateway.work import run_quickly

__all__ = ["ROUTER", "find_asset", "send_file"]


class _File(FileResponse):
    """In fewer pieces: each is read in another thread, and waits for it."""

    chunk_size = 1 << 20



ROUTER: Final = APIRouter(prefix="/v1/assets", tags=["assets"])
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))")
_SAYS_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file", "content": FILES},
    206: {"description": "A part of it", "content": FILES},
    304: {"description": "As it was"},
    **problems("bad-token", "not-found", "upload-incomplete", "range-not-satisfiable",
               "not-possible"),
}  # fmt: skip
_SAYS_JPEG: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The picture",
          "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
}  # fmt: skip


@ROUTER.get("", responses=problems("bad-token"))
async def list_assets(request: Request) -> AssetList:
    """What you have uploaded, the newest first."""
    gateway: Gateway = request.app.state.gateway
    assets = await gateway.ask(gateway.store.list_assets, request.scope["owner"])
    return AssetList(assets=[_show(gateway, asset) for asset in assets])


@ROUTER.put(
    "/{id}",
    status_code=201,
    response_model=AssetView,
    responses={
        202: {"description": "A part has come; go on behind `received`", "model": AssetView},
        **problems(
            "bad-request", "bad-token", "wrong-offset", "upload-running", "precondition-failed",
            "too-large", "not-a-picture", "not-possible", "too-many", "storage-full",
        ),
    },
    openapi_extra={"requestBody": {"required": True, "content": BYTES}},
)  # fmt: skip
async def put_asset(
    request: Request,
    id: Name,
    name: Annotated[str, Query(max_length=1000, description="What you call the file.")] = "",
) -> Response:
    """Upload a photo or video: the bytes themselves. An id that is used again is replaced.

    With `Content-Range: bytes FIRST-LAST/SIZE` a part of it, in order. `If-None-Match: *` refuses
    to replace.
    """
    gateway: Gateway = request.app.state.gateway
    owner = request.scope["owner"]
    headers = request.headers
    if headers.get("if-none-match", "").strip() == "*":
        known = await gateway.ask(gateway.store.get_asset, owner, id)
        if known is not None and known.is_ready:
            raise Problem("precondition-failed", f"there is an upload {id} already")
    part = read_part(headers.get("content-length"), headers.get("content-range"))
    asset = await take_upload(gateway, owner, id, part, request.stream(), name)
    body = _show(gateway, asset).model_dump()
    return JSONResponse(
        body, status_code=201 if asset.is_ready else 202,
        headers={"Location": f"/v1/assets/{id}", **_tag(asset)},
    )  # fmt: skip


@ROUTER.get("/{id}/info", responses=problems("bad-token", "not-found", "not-possible"))
async def get_asset_info(request: Request, id: Name) -> AssetView:
    """What an upload is, and how much of it is here."""
    gateway: Gateway = request.app.state.gateway
    asset = await gateway.ask(gateway.store.get_asset, request.scope["owner"], id)
    if asset is None:
        raise Problem("not-found", f"there is no upload {id}")
    return _show(gateway, asset)


@ROUTER.head("/{id}", response_class=Response, responses=_SAYS_FILE, operation_id="head_asset")
@ROUTER.get("/{id}", response_class=Response, responses=_SAYS_FILE, operation_id="get_asset")
async def get_asset(request: Request, id: Name) -> Response:
    """The file again; with `Range`, a part of it."""
    gateway: Gateway = request.app.state.gateway
    asset = await find_asset(gateway, request.scope["owner"], id)
    return send_file(
        request, gateway.folder.asset(asset.key), tag=asset.key, media_type=asset.media_type,
        name=asset.name or id,
    )  # fmt: skip


@ROUTER.delete(
    "/{id}", status_code=204,
    responses=problems("bad-token", "not-found", "upload-running", "not-possible"),
)  # fmt: skip
async def delete_asset(request: Request, id: Name) -> None:
    """Remove an upload; jobs that read it already go on."""
    gateway: Gateway = request.app.state.gateway
    owner = request.scope["owner"]
    if (owner, id) in gateway.uploading:
        raise Problem("upload-running", "this file is being uploaded: end that first")
    asset = await gateway.ask(gateway.store.get_asset, owner, id)
    if asset is None:
        raise Problem("not-found", f"there is no upload {id}")
    await gateway.ask(gateway.store.delete_asset, owner, id)
    if asset.key not in await gateway.ask(gateway.store.keys_in_use):
        gateway.folder.remove_asset(asset.key)


@ROUTER.get(
    "/{id}/frame", response_class=Response,
    responses={**_SAYS_JPEG, **problems(
        "bad-token", "not-found", "upload-incomplete", "not-a-picture", "not-possible",
        "too-many", "server-unreachable", "server-timeout",
    )},
)  # fmt: skip
async def get_frame(
    request: Request,
    id: Name,
    at_s: Annotated[Seconds, Query(description="The moment, seconds.")] = 0.0,
    longest_px: Annotated[int, Query(ge=64, le=4096)] = 1280,
) -> Response:
    """One frame of a video, or the photo, as a JPEG."""
    gateway: Gateway = request.app.state.gateway
    asset = await find_asset(gateway, request.scope["owner"], id)
    picture, _ = await run_quickly(
        gateway, asset, at_s=at_s, longest=longest_px, wishes=None, names={}
    )
    return Response(picture, media_type="image/jpeg")


async def find_asset(gateway: Gateway, owner: str, id: str) -> Asset:
    """An upload that is all there.

    Raises:
        Problem: it is not.
    """
    asset = await gateway.ask(gateway.store.get_asset, owner, id)
    if asset is None:
        raise Problem("not-found", f"there is no upload {id}: PUT /v1/assets/{id} makes one")
    if not asset.is_ready:
        received = gateway.folder.received(asset.key)
        raise Problem(
            "upload-incomplete",
            f"{received} of {asset.size} bytes of {id} are here: send the rest",
            received=received,
            headers={"Upload-Offset": str(received), "Upload-Length": str(asset.size)},
        )  # fmt: skip
    return asset


def send_file(request: Request, path: Path, *, tag: str, media_type: str, name: str) -> Response:
    """A file, whole or a part.

    Raises:
        Problem: it is gone, or a range behind its end.
    """
    if not path.is_file():
        raise Problem("not-found", "the file is gone: it was kept as long as was promised")
    etag = f'"{tag}"'
    given = request.headers.get("if-none-match", "")
    if given.strip() == "*" or etag in [each.strip() for each in given.split(",")]:
        return Response(status_code=304, headers={"ETag": etag})
    _check_range(request, path.stat().st_size)
    return _File(
        path, media_type=media_type, filename=name,
        headers={"ETag": etag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"},
    )  # fmt: skip


def _check_range(request: Request, size: int) -> None:
    """Leave one range that makes sense, or none: a server may answer the whole."""
    text = request.headers.get("range")
    if text is None:
        return
    found = _RANGE.fullmatch(text.strip())
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        request.scope["headers"] = [
            (key, value) for key, value in request.scope["headers"] if key != b"range"
        ]
    elif (found[1] and int(found[1]) >= size) or (found[3] and int(found[3]) == 0):
        raise Problem(
            "range-not-satisfiable", f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip


def _show(gateway: Gateway, asset: Asset) -> AssetView:
    received = asset.size if asset.is_ready else gateway.folder.received(asset.key)
    return show_asset(asset, received)


def _tag(asset: Asset) -> dict[str, str]:
    return {"ETag": f'"{asset.key}"'} if asset.is_ready else {}
