"""Taking a file in: streamed to the disk, counted on the way, looked at in another process.

What came of an upload whose size is known stays when the connection breaks, and is gone on with by
`Content-Range: bytes FIRST-LAST/SIZE`; how much is here is the file's own size, so nothing about
it can be lost.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from starlette.requests import ClientDisconnect

from frameswap_gateway.admission import admit_upload
from frameswap_gateway.folder import new_key
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.problems import Problem
from frameswap_gateway.records import Asset
from frameswap_gateway.workers import TaskFailed, WorkerDied

__all__ = ["UploadPart", "clean_name", "read_part", "take_upload"]

_BUFFER_BYTES: Final = 1 << 20
_LOOK_S: Final = 20.0
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class UploadPart:
    """What a request brings.

    start: of the whole file. length: bytes, None where it is not said. size: of the whole file,
    None where that is not said.
    """

    start: int
    length: int | None
    size: int | None


def read_part(content_length: str | None, content_range: str | None) -> UploadPart:
    """Raises Problem for headers that contradict each other."""
    length = None
    if content_length is not None:
        if not (content_length.isascii() and content_length.isdecimal()):
            raise Problem("bad-request", "Content-Length is a number of bytes")
        length = int(content_length)
    if content_range is None:
        return UploadPart(0, length, length)
    found = _RANGE.fullmatch(content_range.strip())
    if found is None:
        raise Problem("bad-request", "Content-Range is `bytes FIRST-LAST/SIZE`")
    first, last, size = map(int, found.groups())
    if not first <= last < size or (length is not None and length != last - first + 1):
        raise Problem("bad-request", "Content-Range does not fit itself or Content-Length")
    return UploadPart(first, last - first + 1, size)


def clean_name(name: str) -> str:
    """A file's name to show: its last part, without what no name should have."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(mark for mark in last if mark.isprintable())[:_LONGEST_NAME]


async def take_upload(
    gateway: Gateway, owner: str, id: str, part: UploadPart, body: AsyncIterator[bytes], name: str
) -> Asset:
    """Take a part of a file, or all of it; the asset is ready when all is here.

    Raises:
        Problem: too large, not where the earlier part ended, no picture, no room.
    """
    turn = (owner, id)
    if turn in gateway.uploading:
        raise Problem("upload-running", "this file is being uploaded by another request")
    known = await gateway.ask(gateway.store.get_asset, owner, id)
    if part.start:
        asset = _going_on(gateway, known, part)
        room = await admit_upload(gateway, owner, 0)
    else:
        replaced = known.size if known is not None else 0
        room = await admit_upload(gateway, owner, max(0, (part.size or 0) - replaced))
        now_s = time.time()
        asset = Asset(
            owner=owner, id=id, key=new_key(), name=clean_name(name), size=part.size or 0,
            created_s=now_s, used_s=now_s,
        )  # fmt: skip
    if turn in gateway.uploading:
        raise Problem("upload-running", "this file is being uploaded by another request")
    gateway.uploading[turn] = asset.key
    try:
        replaces = None if part.start else known
        return await _take(gateway, asset, part, body, replaces=replaces, room=room)
    finally:
        del gateway.uploading[turn]


def _going_on(gateway: Gateway, known: Asset | None, part: UploadPart) -> Asset:
    received = 0 if known is None or known.is_ready else gateway.folder.received(known.key)
    if known is None or known.is_ready or known.size != part.size or received != part.start:
        raise Problem(
            "wrong-offset",
            f"{received} bytes of this file are here: go on from there, and say the same size",
            received=received,
        )
    return known


async def _take(
    gateway: Gateway, asset: Asset, part: UploadPart, body: AsyncIterator[bytes], *,
    replaces: Asset | None, room: int,
) -> Asset:  # fmt: skip
    # What comes in one piece and is short is sent again, and not gone on with.
    is_piece = part.length != part.size or part.start > 0
    keeps = part.size is not None and (is_piece or part.size > _BUFFER_BYTES)
    if keeps:
        await gateway.ask(gateway.store.put_asset, asset)
        if replaces is not None:
            # Jobs that read the earlier content keep its file until they end.
            _forget_file(gateway, replaces)
    most = min(gateway.settings.limits.asset_bytes, room) if part.length is None else part.length
    try:
        written = await _write(gateway, asset, part.start, most, body)
    except (ClientDisconnect, asyncio.CancelledError):
        if not keeps:
            gateway.folder.remove_asset(asset.key)
        raise
    except Problem:
        await _discard(gateway, asset, has_row=keeps)
        raise
    if part.length is not None and written < part.length:
        if not keeps:
            gateway.folder.remove_asset(asset.key)
        raise Problem("bad-request", "the body is shorter than its headers say")
    size = part.start + written if part.size is None else part.size
    asset = replace(asset, size=size)
    if part.start + written < size:
        await asyncio.to_thread(_sync, gateway.folder.asset(asset.key))
        return asset
    return await _look(gateway, asset, has_row=keeps)


async def _write(
    gateway: Gateway, asset: Asset, start: int, most: int, body: AsyncIterator[bytes]
) -> int:
    """Write at most so many bytes; returns how many came."""
    path = gateway.folder.asset(asset.key)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    written, waiting = 0, bytearray()
    try:
        async for chunk in body:
            waiting += chunk
            if written + len(waiting) > most:
                raise Problem("too-large", f"the body is longer than {most} bytes")
            if len(waiting) >= _BUFFER_BYTES:
                written += await _flush(gateway, file, waiting, start + written)
    finally:
        try:
            # What came before a connection broke is worth keeping.
            written += await _flush(gateway, file, waiting, start + written)
        finally:
            os.close(file)
    return written


async def _flush(gateway: Gateway, file: int, waiting: bytearray, at: int) -> int:
    data = bytes(waiting)
    waiting.clear()
    try:
        done = 0
        while done < len(data):
            done += await asyncio.to_thread(os.pwrite, file, data[done:], at + done)
    except OSError as error:
        raise Problem(
            "storage-full", "the gateway's disk is full: try again later", retry_after_s=60
        ) from error
    gateway.metrics.uploaded.inc(len(data))
    return len(data)


def _sync(path: Path) -> None:
    """Have a file on the disk, whoever wrote it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


async def _look(gateway: Gateway, asset: Asset, *, has_row: bool) -> Asset:
    """Have a worker say what it is.

    Raises:
        Problem: neither photo nor video, or one that a reader should not be shown.
    """
    limits = gateway.settings.limits
    path = str(gateway.folder.asset(asset.key))
    shown = asset.name or "the file"
    try:
        looking = gateway.probes.run(
            "look", path=path, photo_pixels=limits.photo_pixels, names={path: shown},
            video_pixels=limits.video_pixels, timeout_s=_LOOK_S,
        )  # fmt: skip
        # The disk is as slow as the look, and neither waits for the other.
        found, _ = await asyncio.gather(looking, asyncio.to_thread(_sync, Path(path)))
    except TaskFailed as failure:
        await _discard(gateway, asset, has_row=has_row)
        raise Problem("not-a-picture", failure.text, cause=failure.code) from failure
    except WorkerDied as death:
        gateway.metrics.deaths.inc()
        await _discard(gateway, asset, has_row=has_row)
        raise Problem(
            "not-a-picture", f"{shown} cannot be read safely: it is damaged, or made to do harm"
        ) from death
    asset = replace(asset, **found)
    await gateway.ask(gateway.store.put_asset, asset)
    return asset


async def _discard(gateway: Gateway, asset: Asset, *, has_row: bool) -> None:
    if has_row:
        await gateway.ask(gateway.store.delete_asset, asset.owner, asset.id)
    gateway.folder.remove_asset(asset.key)


def _forget_file(gateway: Gateway, asset: Asset) -> None:
    if not asset.is_ready:
        gateway.folder.remove_asset(asset.key)
