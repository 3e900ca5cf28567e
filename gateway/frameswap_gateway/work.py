"""From what a client asks for to what a worker is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from frameswap import FrameswapError
from frameswap.encoders import check_options, check_video_output
from frameswap.photo import check_photo_output

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.job_requests import SwapWishes
from frameswap_gateway.problems import Problem, error_code
from frameswap_gateway.records import Asset
from frameswap_gateway.wishes import read_wishes
from frameswap_gateway.workers import TaskFailed, WorkerDied

__all__ = [
    "MEDIA_TYPES",
    "check_wishes",
    "find_person",
    "inputs_of",
    "output_suffix",
    "run_quickly",
    "worker_wishes",
]

MEDIA_TYPES: Final = {
    ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4",
    ".mov": "video/quicktime", ".mkv": "video/x-matroska", ".webm": "video/webm",
    ".gif": "image/gif",
}  # fmt: skip
_PHOTO_SUFFIXES: Final = (".jpg", ".png", ".webp")
_VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".gif")
_QUICK_S: Final = 60.0
_MOST_WAITING: Final = 16
_NO_OUTPUT: Final = {"codec": None, "quality": None, "preset": None, "audio": "auto"}
_WHOLE: Final = {"start_s": None, "end_s": None}


def output_suffix(request: Mapping[str, Any], target: Asset) -> str:
    """Raises Problem for a format that does not fit the target."""
    wanted = request.get("output", {}).get("format")
    possible = _PHOTO_SUFFIXES if target.kind == "photo" else _VIDEO_SUFFIXES
    if wanted is None:
        if target.media_type in ("image/png", "image/webp") and target.kind == "photo":
            return f".{target.media_type.removeprefix('image/')}"
        return possible[0]
    if f".{wanted}" not in possible:
        raise Problem(
            "not-possible",
            f"a {target.kind} is written as {', '.join(possible)}, not as .{wanted}",
        )
    return f".{wanted}"


def worker_wishes(
    request: Mapping[str, Any],
    paths: Mapping[str, str],
    persons: Sequence[Sequence[float] | None],
) -> dict[str, Any]:
    """What `read_wishes` reads.

    Args:
        request: as JobRequest or PreviewRequest has it, with all defaults.
        paths: of each upload, by its id.
        persons: for each swap, whom it replaces; empty where nobody is named.
    """
    references = persons or [None] * len(request["swaps"])
    return {
        "sources": [
            {
                "paths": [paths[id] for id in each["source"]],
                "face": each["source_face"],
                "reference": reference,
            }
            for each, reference in zip(request["swaps"], references, strict=True)
        ],
        "options": request["options"],
        "output": request.get("output", _NO_OUTPUT),
        "part": request.get("part", _WHOLE),
        "require_face": request.get("require_face", False),
    }


def check_wishes(request: Mapping[str, Any], target: Asset) -> str:
    """The suffix of the output.

    Raises:
        Problem: the client library would refuse these options, or cannot write such a file.
    """
    suffix = output_suffix(request, target)
    paths = {id: id for each in request["swaps"] for id in each["source"]}
    try:
        wishes = read_wishes(worker_wishes(request, paths, ()))
        if target.kind == "photo":
            check_photo_output(Path(f"result{suffix}"))
        else:
            check_video_output(Path(f"result{suffix}"), wishes.encoding)
            if wishes.encoding.codec is not None:
                check_options(wishes.encoding.codec, wishes.encoding)
    except FrameswapError as error:
        raise Problem("not-possible", str(error), cause=error_code(error)) from error
    return suffix


async def inputs_of(
    gateway: Gateway, owner: str, wishes: SwapWishes
) -> tuple[Asset, dict[str, Asset], list[Sequence[float] | None]]:
    """The target, every upload by its id, and whom each swap replaces.

    Raises:
        Problem: one of them is not there.
    """
    ids = {wishes.target, *(id for each in wishes.swaps for id in each.source)}
    assets = {}
    for id in sorted(ids):
        asset = await gateway.ask(gateway.store.get_asset, owner, id)
        if asset is None or not asset.is_ready:
            raise Problem("not-possible", f"there is no whole upload {id}: PUT /v1/assets/{id}")
        assets[id] = asset
    for id in sorted(ids - {wishes.target}):
        if assets[id].kind != "photo":
            raise Problem("not-possible", f"{id} is a video: a source is a photo")
    persons: list[Sequence[float] | None] = []
    for each in wishes.swaps:
        if each.replaces is not None:
            persons.append(
                await find_person(gateway, owner, each.replaces.faces, each.replaces.person)
            )
    return assets[wishes.target], assets, persons


async def find_person(gateway: Gateway, owner: str, id: str, number: int) -> Sequence[float]:
    """The numbers that a person is known by.

    Raises:
        Problem: nobody looked, or there is no such person.
    """
    job = await gateway.ask(gateway.store.get_job, owner, id)
    if job is None or job.kind != "faces" or job.state != "succeeded":
        raise Problem("not-possible", f"{id} is no finished search for faces: POST /v1/faces")
    for person in job.result["persons"]:
        if person["number"] == number:
            return list(person["embedding"])
    raise Problem("not-possible", f"{id} found no person {number}")


async def run_quickly(
    gateway: Gateway, target: Asset, *, at_s: float, longest: int,
    wishes: Mapping[str, Any] | None, names: Mapping[str, str],
) -> tuple[bytes, int | None]:  # fmt: skip
    """One frame as a JPEG, and how many faces were found in it.

    Raises:
        Problem: it cannot be shown, or too many ask.
    """
    lane = gateway.lanes["short"]
    if lane.free <= -_MOST_WAITING:
        raise Problem("too-many", "too many pictures are asked for: again soon", retry_after_s=2)
    output = gateway.folder.preview()
    path = str(gateway.folder.asset(target.key))
    try:
        done = await lane.run(
            "frame", target=path, is_video=target.kind == "video", at_s=at_s, longest=longest,
            wishes=wishes, output=str(output),
            names={**names, path: target.name or target.id}, timeout_s=_QUICK_S,
        )  # fmt: skip
        return await asyncio.to_thread(output.read_bytes), done["faces"]
    except TaskFailed as failure:
        raise Problem.of_job(failure.code, failure.text) from failure
    except WorkerDied as death:
        gateway.metrics.deaths.inc()
        raise Problem("not-possible", "the frame could not be shown: it took too long") from death
    finally:
        output.unlink(missing_ok=True)
