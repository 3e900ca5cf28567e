"""A disk that is full in the middle of jobs: none is lost, none half published, and those who ask
are told. The last test has a real disk, server and video."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from conftest import WANTED, House, OpenHouse
from frameswap_gateway import scheduler
from frameswap_gateway.folder import Folder
from frameswap_gateway.problems import Problem, is_full_disk
from frameswap_gateway.workers import TaskFailed, WorkerDied

from bench.gateway.running import RunningGateway
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path
from server.launcher import EmbeddedServer
from tests.small_disk import SmallDisk, small_disk

FRAMES = 480
MEBIBYTES = 300
"""The gateway leaves 256 of them free for jobs that run."""
NEAR = 1
"""Levels of a plane: a face's place in two runs may differ by the rounding of a float."""
NO_ROOM = TaskFailed("storage-full", "the gateway's disk is full: try again later")


class Room:
    """Whether the disk has any, as a gateway sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_there = True
        monkeypatch.setattr(Folder, "has_room_for", lambda *_: self.is_there)
        monkeypatch.setattr(scheduler, "_ROOM_AGAIN_S", 0.0)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def begin(house: House, room: Room) -> dict[str, Any]:
    """A job that fills the disk at its beginning, and waits."""
    house.short.gate.clear()
    house.short.script += [NO_ROOM]
    house.client.put("/v1/jobs/a", json=WANTED)
    house.until("a", lambda job: job["state"] == "processing")
    room.is_there = False
    house.short.gate.set()
    return house.until("a", lambda job: job["state"] == "queued")


def jobs_on_disk(house: House) -> int:
    return len(list((house.gateway.folder.root / "jobs").iterdir()))


def test_a_job_that_fills_the_disk_waits_and_goes_on(house: House, room: Room) -> None:
    job = begin(house, room)
    assert job["notes"] == [scheduler._NO_ROOM]
    assert (job["error"], job["outputs"], jobs_on_disk(house)) == (None, [], 1)
    # More often than a job may take its process with it: that is none of its attempts.
    house.short.script += [NO_ROOM] * 5
    room.is_there = True
    job = house.job("a", **WANTED)
    assert (job["state"], job["notes"]) == ("succeeded", [scheduler._NO_ROOM])
    assert len(house.short.tasks) == 7


def test_nothing_is_begun_while_a_job_waits_for_room(house: House, room: Room) -> None:
    house.short.gate.clear()
    for name in ("a", "b", "c"):
        house.client.put(f"/v1/jobs/{name}", json=WANTED)
    house.until("b", lambda job: job["state"] == "processing")
    room.is_there = False
    house.short.script += [NO_ROOM, NO_ROOM]
    house.short.gate.set()
    for name in ("a", "b"):
        house.until(name, lambda job: job["notes"] != [])
    assert house.client.get("/v1/jobs/c").json()["notes"] == []
    assert len(house.short.tasks) == 2
    room.is_there = True
    for name in ("a", "b", "c"):
        assert house.job(name, **WANTED)["state"] == "succeeded"


def test_who_waits_for_room_too_long_makes_room_for_the_others(
    house: House, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(house, room)
    monkeypatch.setattr(scheduler, "ROOM_S", 0.0)
    job = house.until("a", lambda job: job["completed"])
    assert (job["state"], job["error"]["code"]) == ("failed", "storage-full")
    assert "try again when there is room" in job["error"]["message"]
    assert jobs_on_disk(house) == 0


def test_a_job_that_is_larger_than_the_disk_does_not_fill_it_for_ever(
    house: House, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it could not finish it removed, so that there is room again."""
    monkeypatch.setattr(scheduler, "ROOM_S", 0.3)
    monkeypatch.setattr(scheduler, "_ROOM_AGAIN_S", 0.05)
    house.short.script += [NO_ROOM] * 1000
    house.client.put("/v1/jobs/a", json=WANTED)
    job = house.until("a", lambda job: job["completed"])
    assert (job["state"], job["error"]["code"]) == ("failed", "storage-full")
    assert 1 < len(house.short.tasks) < 10
    house.short.script.clear()
    assert house.job("b", **WANTED)["state"] == "succeeded"


def test_who_waits_for_room_is_canceled_at_once_and_leaves_it(house: House, room: Room) -> None:
    begin(house, room)
    assert house.client.post("/v1/jobs/a/cancel").json()["state"] == "canceled"
    assert jobs_on_disk(house) == 0
    room.is_there = True
    assert house.job("b", **WANTED)["state"] == "succeeded"
    assert len(house.short.tasks) == 2


def test_a_job_that_is_asked_for_on_a_full_disk_is_refused(house: House, room: Room) -> None:
    room.is_there = False
    answer = house.client.put("/v1/jobs/a", json=WANTED)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    assert int(answer.headers["retry-after"]) > 0
    assert house.client.get("/v1/jobs/a").status_code == 404


def test_a_job_whose_folder_has_no_room_waits(
    house: House, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def full(path: Path, *args: Any, **more: Any) -> None:
        if path.parent.name == "jobs" and not room.is_there:
            raise OSError(28, "No space left on device")
        make(path, *args, **more)

    monkeypatch.setattr(Path, "mkdir", full)
    # Admitted just before.
    monkeypatch.setattr(Folder, "has_room_for", lambda *_: True)
    room.is_there = False
    house.client.put("/v1/jobs/a", json=WANTED)
    job = house.until("a", lambda job: job["notes"])
    assert (job["notes"], house.short.tasks) == ([scheduler._NO_ROOM], [])
    room.is_there = True
    assert house.job("a", **WANTED)["state"] == "succeeded"


def test_a_job_whose_end_could_not_be_written_is_done_again(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of what nobody works at any more is not renewed."""
    monkeypatch.setattr(scheduler, "LEASE_S", 0.5)
    monkeypatch.setattr(scheduler, "_RENEW_S", 0.0)
    monkeypatch.setattr(scheduler, "_LOOK_AGAIN_S", 0.05)
    house = open_house()
    house.upload("face")
    house.upload("target")
    update, refused = house.gateway.store.update, []

    def full_once(key: str, changes: dict[str, Any]) -> Any:
        if changes.get("state") == "succeeded" and not refused:
            refused.append(key)
            raise Problem("storage-full", "the disk is full")
        return update(key, changes)

    monkeypatch.setattr(house.gateway.store, "update", full_once)
    assert house.job("a", **WANTED)["state"] == "succeeded"
    assert (len(refused), len(house.short.tasks)) == (1, 2)


def test_progress_that_could_not_be_written_stops_no_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = house.gateway.store.update

    def full(key: str, changes: dict[str, Any]) -> Any:
        if "state" not in changes:
            raise Problem("storage-full", "the disk is full")
        return update(key, changes)

    monkeypatch.setattr(house.gateway.store, "update", full)
    house.short.gate.clear()
    house.client.put("/v1/jobs/a", json=WANTED)
    house.until("a", lambda job: job["state"] == "processing")
    time.sleep(0.1)
    house.short.gate.set()
    assert house.job("a", **WANTED)["state"] == "succeeded"
    assert len(house.short.tasks) == 1


def test_a_worker_that_died_is_no_full_disk() -> None:
    assert not is_full_disk(WorkerDied("ended with -9"))
    assert not is_full_disk(OSError(5, "Input/output error"))
    error = ValueError("it cannot be written")
    error.__cause__ = OSError(122, "Disk quota exceeded")
    assert is_full_disk(error)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", mebibytes=MEBIBYTES) as mounted:
        yield mounted


def until(holds: Callable[[], Any]) -> Any:
    until_s = time.monotonic() + 120.0
    while time.monotonic() < until_s:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that in two minutes")


def fill_in_mid_job(gateway: RunningGateway, disk: SmallDisk) -> None:
    """Behind the first segment, while the workers stand still."""
    until(lambda: [path for path in (disk.folder / "jobs").glob("*/*/journal.jsonl")
                   if len(path.read_text().splitlines()) > 1])  # fmt: skip
    workers = psutil.Process(gateway.process.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()
    disk.fill(leaving=0)
    for worker in workers:
        worker.resume()


def check_while_full(client: Any, disk: SmallDisk, clip: bytes) -> None:
    """What is said, and that nothing is half there."""
    # What a job could not finish has made some room again.
    disk.fill(leaving=0)
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    swaps = [{"source": ["face"]}]
    for answer in (
        client.put("/v1/assets/more", content=clip),
        client.put("/v1/jobs/more", json={"target": "clip", "swaps": swaps}),
        client.post("/v1/previews", json={"target": "clip", "swaps": swaps}),
        client.get("/v1/assets/clip/frame"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (507, "storage-full"), answer.text
    assert client.get("/v1/assets/more").status_code == 404
    assert client.get("/v1/jobs/film/outputs/result.mp4").json()["code"] == "not-finished"
    assert not list((disk.folder / "jobs").glob("*/result.mp4"))
    assert not list((disk.folder / "previews").iterdir())
    table = sqlite3.connect(f"file:{disk.folder}/gateway.db?mode=ro", uri=True)
    assert table.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    table.close()


def read_result(client: Any, name: str, folder: Path) -> list[np.ndarray]:
    """The planes of a job's output (H * 3 / 2, W), and that its report has a line for each."""
    report = client.get(f"/v1/jobs/{name}/outputs/report.jsonl").text.splitlines()[:-1]
    assert [json.loads(line)["frame"] for line in report] == list(range(FRAMES))
    path = folder / f"{name}.mp4"
    path.write_bytes(client.get(f"/v1/jobs/{name}/outputs/result.mp4").content)
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p").astype(np.int16)
                for frame in container.decode(video=0)]  # fmt: skip


@pytest.mark.e2e
def test_a_video_job_waits_for_room_and_ends_as_if_nothing_had_been(
    real_server: EmbeddedServer, disk: SmallDisk, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, clip_of("gauss", width=320, height=180, frames=FRAMES))
    # Without loss, so that what is compared is what was swapped.
    wanted = {**WANTED, "target": "clip", "output": {"quality": 0}}
    with RunningGateway(real_server.grpc_url, disk.folder) as gateway, gateway.client() as client:

        def job(name: str) -> Any:
            return client.get(f"/v1/jobs/{name}").json()

        client.put("/v1/assets/face", content=photo_path("newton").read_bytes()).raise_for_status()
        client.put("/v1/assets/clip", content=path.read_bytes()).raise_for_status()
        client.put("/v1/jobs/film", json=wanted).raise_for_status()
        fill_in_mid_job(gateway, disk)
        waiting = until(lambda: job("film") if job("film")["state"] == "queued" else None)
        assert waiting["notes"] == [scheduler._NO_ROOM]
        check_while_full(client, disk, path.read_bytes())
        # It starts on a full disk, too, and knows the job.
        gateway.kill()
        gateway.start()
        assert job("film")["state"] in ("queued", "processing")
        check_while_full(client, disk, path.read_bytes())
        disk.empty()
        done = until(lambda: job("film") if job("film")["completed"] else None)
        assert (done["state"], done["error"]) == ("succeeded", None)
        assert done["result"]["summary"]["resumed_at"] >= scheduler.SEGMENT_FRAMES
        client.put("/v1/jobs/whole", json=wanted).raise_for_status()
        until(lambda: job("whole")["completed"])
        first, second = (read_result(client, name, tmp_path) for name in ("film", "whole"))
    assert len(first) == len(second) == FRAMES
    assert all(np.abs(a - b).max() <= NEAR for a, b in zip(first, second, strict=True))
