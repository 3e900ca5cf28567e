"""Jobs from the table to the workers and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from frameswap_gateway.folder import new_key
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.problems import Problem, is_full_disk
from frameswap_gateway.records import LANES, Job, Lane
from frameswap_gateway.work import MEDIA_TYPES, worker_wishes
from frameswap_gateway.workers import Handle, TaskFailed, WorkerDied

__all__ = ["Scheduler"]

LOG: Final = logging.getLogger(__name__)
LEASE_S: Final = 30.0
_RENEW_S: Final = 10.0
_LOOK_AGAIN_S: Final = 2.0
SEGMENT_FRAMES: Final = 100
"""A job that loses its process does at most so many frames again."""
_MOST_NOTES: Final = 50
ROOM_S: Final = 3600.0
"""How long a job waits for room on the disk, and what it has done keeps some of it."""
_ROOM_AGAIN_S: Final = 10.0
"""A job that is too large even for the room that there is does not fill it again at once."""
_NO_ROOM: Final = "the gateway's disk was full: the job goes on where it was when there is room"


class Scheduler:
    """Claims jobs as workers are free, and writes down what becomes of them.

    A job is done when its row says so; its output has its name a moment before. Whoever claims a
    job that an earlier process left finds the journal, or the whole output, in the job's folder.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._holder = new_key()
        self._running: dict[str, Handle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._short_of_room: dict[str, tuple[Job, float]] = {}
        self._room_again_s = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        gateway = self._gateway
        renewed_s = time.monotonic()
        while True:
            gateway.wake.clear()
            try:
                await self._give_up_without_room()
                for lane in LANES:
                    await self._fill(lane)
                if time.monotonic() - renewed_s > _RENEW_S:
                    renewed_s = time.monotonic()
                    until_s = time.time() + LEASE_S
                    await gateway.ask(
                        gateway.store.renew, self._holder, tuple(self._running), until_s=until_s
                    )
            except Problem as problem:
                LOG.warning("%s", problem)
            # Not `wait_for`: in Python 3.11 it forgets a cancel that comes with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await gateway.wake.wait()

    async def cancel(self, job: Job) -> Job:
        """Stop a job: at once where it waits, else when its frames have stopped."""
        gateway = self._gateway
        handle = self._running.get(job.key)
        if handle is None:
            return await self._end_canceled(job)
        changed = await gateway.change(job, is_canceling=True)
        handle.cancel()
        return changed or job

    async def stop(self) -> None:
        """Give what runs back to the table; whole segments stay."""
        self._gateway.begin_to_stop()
        for runner in self._gateway.lanes.values():
            await runner.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fill(self, lane: Lane) -> None:
        gateway = self._gateway
        while gateway.lanes[lane].free > 0 and not gateway.is_stopping:
            if self._short_of_room and not self._has_room():
                return
            job = await gateway.ask(
                gateway.store.claim, lane, holder=self._holder, now_s=time.time(), lease_s=LEASE_S
            )
            if job is None:
                return
            gateway.feed.tell(job.key)
            # Before anything is awaited, so that a cancel finds it.
            handle = self._running[job.key] = Handle(is_canceled=job.is_canceling)
            task = asyncio.create_task(self._work(job, handle))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # Lets the task take its worker, which `free` then knows.
            await asyncio.sleep(0)

    async def _work(self, job: Job, handle: Handle) -> None:
        try:
            await self._attempt(job, handle)
        except Problem as problem:
            # The table cannot be written: the lease runs out, and the job is claimed again.
            LOG.warning("job %s: %s", job.key, problem)
        except Exception:
            LOG.exception("job %s failed by a fault of the gateway", job.key)
            await self._fail(job, "internal-error", "the gateway failed at this job; see its log")
        finally:
            del self._running[job.key]
            self._gateway.wake.set()

    async def _attempt(self, job: Job, handle: Handle) -> None:
        gateway = self._gateway
        if job.attempts > gateway.settings.limits.attempts:
            await self._fail(
                job, "worker-died",
                f"{job.attempts - 1} processes died with this job: its file is damaged, or it "
                f"needs more memory than there is",
            )  # fmt: skip
            return

        async def on_event(event: dict[str, Any]) -> None:
            await self._take_event(job, event)

        try:
            gateway.folder.job(job.key).mkdir(mode=0o700, exist_ok=True)
            done = await gateway.lanes[job.lane].run(
                job.kind, on_event=on_event, handle=handle, **self._arguments(job)
            )
        except TaskFailed as failure:
            if failure.code == "canceled":
                await self._end_canceled(job)
            elif failure.code == "storage-full":
                await self._wait_for_room(job, handle)
            else:
                await self._fail(job, failure.code, failure.text)
        except WorkerDied as death:
            await self._bury(job, handle, death)
        except OSError as error:
            if not is_full_disk(error):
                raise
            await self._wait_for_room(job, handle)
        else:
            await self._succeed(job, done)

    async def _bury(self, job: Job, handle: Handle, death: WorkerDied) -> None:
        gateway = self._gateway
        if gateway.is_stopping:
            # It was killed by us: that is none of the job's attempts.
            await gateway.change(job, state="queued", attempts=job.attempts - 1)
        elif handle.is_canceled:
            await self._end_canceled(job)
        else:
            LOG.warning("job %s: %s", job.key, death)
            gateway.metrics.deaths.inc()
            await gateway.change(job, state="queued")

    async def _end_canceled(self, job: Job) -> Job:
        self._short_of_room.pop(job.key, None)
        # First, because on a full disk the table needs some of that room.
        self._gateway.folder.remove_job(job.key)
        canceled = await self._gateway.change(job, state="canceled", completed_s=time.time())
        return canceled or job

    async def _wait_for_room(self, job: Job, handle: Handle) -> None:
        """Give a job that filled the disk back to the table, with what it has done."""
        if handle.is_canceled:
            await self._end_canceled(job)
            return
        LOG.warning("job %s: %s", job.key, _NO_ROOM)
        _, since_s = self._short_of_room.setdefault(job.key, (job, time.monotonic()))
        self._room_again_s = time.monotonic() + _ROOM_AGAIN_S
        if time.monotonic() - since_s > ROOM_S:
            await self._fail_without_room(job)
            return
        known = await self._gateway.ask(self._gateway.store.get_job, job.owner, job.id)
        notes = _add_note(() if known is None else known.notes, _NO_ROOM)
        # That is none of the job's attempts.
        await self._gateway.change(job, state="queued", attempts=job.attempts - 1, notes=notes)

    def _has_room(self) -> bool:
        return time.monotonic() >= self._room_again_s and self._gateway.folder.has_room_for(0)

    async def _give_up_without_room(self) -> None:
        for key, (job, since_s) in list(self._short_of_room.items()):
            if self._has_room():
                return
            if key not in self._running and time.monotonic() - since_s > ROOM_S:
                await self._fail_without_room(job)

    async def _fail_without_room(self, job: Job) -> None:
        """Who has waited for too long: what it has done is room for the others."""
        await self._fail(
            job, "storage-full",
            "the gateway's disk stayed full for an hour: try again when there is room",
        )  # fmt: skip

    def _arguments(self, job: Job) -> dict[str, Any]:
        """What the worker is told."""
        folder = self._gateway.folder
        paths = {id: str(folder.asset(key)) for id, key in job.files.items()}
        target = job.request["target"]
        given: dict[str, Any] = {
            "target": paths[target],
            "folder": str(folder.job(job.key)),
            "names": {**{path: id for id, path in paths.items()},
                      str(folder.job(job.key)): "the job"},
        }  # fmt: skip
        if job.kind == "faces":
            return {**given, "every_s": job.request["every_s"]}
        wishes = worker_wishes(job.request, paths, job.persons)
        given |= {"wishes": wishes, "suffix": job.result["suffix"]}
        if job.kind == "video":
            given["segment_frames"] = SEGMENT_FRAMES
        return given

    async def _take_event(self, job: Job, event: dict[str, Any]) -> None:
        gateway = self._gateway
        changes = dict(event)
        note = changes.pop("note", None)
        known = await gateway.ask(gateway.store.get_job, job.owner, job.id)
        if known is None:
            return
        gateway.metrics.frames.inc(max(0, event.get("frames", 0) - known.frames))
        if note:
            changes["notes"] = _add_note(known.notes, note)
        # On a full disk the next event says what this one did; the job itself may still have room.
        with suppress(Problem):
            await gateway.change(job, **changes)

    async def _succeed(self, job: Job, done: dict[str, Any]) -> None:
        gateway = self._gateway
        self._short_of_room.pop(job.key, None)
        known = await gateway.ask(gateway.store.get_job, job.owner, job.id)
        notes = [*(known.notes if known else ()), *done.pop("notes", [])]
        outputs = {}
        for name in done.pop("outputs"):
            suffix = name[name.rindex("."):]
            outputs[name] = MEDIA_TYPES.get(suffix, "application/x-ndjson")
        frames = done.get("summary", {}).get("frames") or (known.total if known else 0)
        await gateway.change(
            job, state="succeeded", completed_s=time.time(), left_s=0.0, notes=notes,
            outputs=outputs, frames=frames, total=frames, result={**job.result, **done},
        )  # fmt: skip
        size = gateway.folder.job_bytes(job.key)
        gateway.result_bytes[job.owner] = gateway.result_bytes.get(job.owner, 0) + size

    async def _fail(self, job: Job, code: str, text: str) -> None:
        self._short_of_room.pop(job.key, None)
        self._gateway.folder.remove_job(job.key)
        await self._gateway.change(
            job, state="failed", completed_s=time.time(), error={"code": code, "message": text}
        )


def _add_note(notes: Sequence[str], note: str) -> list[str]:
    return [*notes, *([] if note in notes else [note])][:_MOST_NOTES]
