"""Who is let in, and who is asked to come back later."""

from __future__ import annotations

from typing import Final

from frameswap_gateway.gateway import Gateway
from frameswap_gateway.problems import Problem

__all__ = ["admit_job", "admit_upload"]

_AGAIN_S: Final = 5.0
_LATER_S: Final = 60.0


async def admit_upload(gateway: Gateway, owner: str, size: int) -> int:
    """How many bytes more may come.

    Args:
        size: how many shall; 0 where nobody said it.

    Raises:
        Problem: too many, or too many at a time.
    """
    limits = gateway.settings.limits
    if size > limits.asset_bytes:
        raise Problem(
            "too-large", f"a file has up to {limits.asset_bytes} bytes here, and this has {size}"
        )
    if sum(who == owner for who, _ in gateway.uploading) >= limits.user_uploads:
        raise Problem(
            "too-many", f"up to {limits.user_uploads} uploads run at a time: wait for one to end",
            retry_after_s=_AGAIN_S,
        )  # fmt: skip
    mine, everybodys = await gateway.ask(gateway.store.asset_bytes, owner)
    mine += gateway.result_bytes.get(owner, 0)
    everybodys += sum(gateway.result_bytes.values())
    if mine + size > limits.user_bytes:
        raise Problem(
            "storage-full", f"your files may have {limits.user_bytes} bytes together: delete some"
        )
    if everybodys + size > limits.all_bytes or not gateway.folder.has_room_for(size):
        raise Problem(
            "storage-full", "there is no room for another file now: try again later",
            retry_after_s=_LATER_S,
        )  # fmt: skip
    return min(limits.user_bytes - mine, limits.all_bytes - everybodys)


async def admit_job(gateway: Gateway, owner: str, frames: int) -> None:
    """Raise Problem unless another job may wait; frames: of its video, or 0."""
    limits = gateway.settings.limits
    if gateway.is_stopping:
        raise Problem("stopping", "this gateway stops: ask again soon", retry_after_s=_AGAIN_S)
    if frames > limits.video_frames:
        raise Problem(
            "too-large", f"a video has up to {limits.video_frames} frames here, and this {frames}"
        )
    if not gateway.folder.has_room_for(0):
        raise Problem(
            "storage-full", "there is no room for another job now: try again later",
            retry_after_s=_LATER_S,
        )  # fmt: skip
    mine = await gateway.ask(gateway.store.usage, owner)
    if mine.jobs >= limits.user_jobs:
        raise Problem(
            "too-many", f"{limits.user_jobs} of your jobs wait or run already: let some end first",
            retry_after_s=_AGAIN_S,
        )  # fmt: skip
    if frames and mine.frames + frames > limits.user_frames:
        raise Problem(
            "too-many", f"videos of more than {limits.user_frames} frames together may not wait: "
            f"let some end first", retry_after_s=_LATER_S,
        )  # fmt: skip
    everybodys = await gateway.ask(gateway.store.usage, None)
    if everybodys.jobs >= limits.all_jobs:
        raise Problem(
            "too-many", "too many jobs wait already: ask again soon", retry_after_s=_AGAIN_S
        )
