"""Jobs: begun once, followed, canceled, gone on with; and who has to wait."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from conftest import WANTED, House, OpenHouse
from frameswap_gateway.settings import Limits
from frameswap_gateway.workers import TaskFailed, WorkerDied


def test_a_photo_is_swapped_while_the_client_waits(house: House) -> None:
    answer = house.client.post("/v1/jobs", json=WANTED, headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=10")
    job = answer.json()
    assert (job["state"], job["progress"]) == ("succeeded", 1.0)
    assert answer.headers["location"] == job["links"]["self"]
    (output,) = job["outputs"]
    assert house.client.get(output["href"]).content == b"0123456789"
    ranged = house.client.get(output["href"], headers={"Range": "bytes=2-4"})
    assert (ranged.status_code, ranged.content) == (206, b"234")


def test_without_waiting_the_job_is_there_from_the_first_moment(house: House) -> None:
    house.short.gate.clear()
    answer = house.client.post("/v1/jobs", json=WANTED)
    assert answer.status_code == 202
    job = house.client.get(answer.headers["location"]).json()
    assert job["state"] in ("queued", "processing")
    assert (job["error"], job["outputs"]) == (None, [])


def test_a_job_that_is_asked_for_twice_is_one(house: House) -> None:
    first = house.client.put("/v1/jobs/mine", json=WANTED)
    second = house.client.put("/v1/jobs/mine", json=WANTED)
    assert first.json()["created"] == second.json()["created"]
    done = house.job("mine")
    assert house.client.put("/v1/jobs/mine", json=WANTED).json() == done
    assert [task for task, _ in house.short.tasks] == ["photo"]
    other = {**WANTED, "require_face": False}
    answer = house.client.put("/v1/jobs/mine", json=other)
    assert (answer.status_code, answer.json()["code"]) == (409, "job-differs")


def test_many_who_ask_for_one_job_at_once_get_one(house: House) -> None:
    answers: list[Any] = []
    asking = [
        threading.Thread(
            target=lambda: answers.append(house.client.put("/v1/jobs/one", json=WANTED))
        )
        for _ in range(8)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len({answer.json()["created"] for answer in answers}) == 1
    house.job("one")
    assert len(house.short.tasks) == 1


def test_what_the_worker_is_told_is_what_was_asked(house: House) -> None:
    house.upload("clip", b"video 50")
    house.job(
        "a", target="clip", swaps=[{"source": ["face"], "source_face": "left-to-right"}],
        options={"masks": ["box", "hull"], "weight": 0.5}, part={"start_s": 0.5},
        output={"format": "webm", "codec": "vp9"},
    )  # fmt: skip
    ((task, told),) = house.long.tasks
    assert (task, told["suffix"]) == ("video", ".webm")
    wishes = told["wishes"]
    assert wishes["sources"][0]["face"] == "left-to-right"
    assert wishes["options"]["weight"] == 0.5
    assert wishes["part"] == {"start_s": 0.5, "end_s": None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "nobody"}, "no whole upload nobody"),
        ({"swaps": [{"source": ["clip"]}]}, "a source is a photo"),
        ({"swaps": []}, "at least 1 item"),
        ({"output": {"format": "mp4"}}, "a photo is written as"),
        ({"options": {"weight": 2}}, "less than or equal to 1"),
        ({"options": {"masks": ["box", "none"]}}, "NONE stands alone"),
        ({"options": {"shine": 1}}, "Extra inputs"),
        ({"part": {"start_s": 3, "end_s": 2}}, "ends after its beginning"),
        ({"target": "clip", "output": {"format": "mp4", "codec": "vp7"}}, "vp7"),
        ({"webhook": {"url": "https://example.org/x"}}, "webhooks go to nobody"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    house: House, change: dict[str, Any], says: str
) -> None:
    house.upload("clip", b"video 50")
    answer = house.client.post("/v1/jobs", json={**WANTED, **change})
    assert (answer.status_code, answer.json()["code"]) == (422, "not-possible")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("code", ["no-face-found", "several-faces-found"])
def test_a_face_that_is_missing_is_a_problem_of_its_own(house: House, code: str) -> None:
    house.short.script.append(TaskFailed(code, "a sentence"))
    answer = house.client.post("/v1/jobs", json=WANTED, headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    (job,) = house.client.get("/v1/jobs").json()["jobs"]
    assert job["state"] == "failed"
    assert job["error"] == {"code": code, "message": "a sentence"}


def test_a_job_is_canceled_when_its_frames_have_stopped(house: House) -> None:
    house.upload("clip", b"video 50")
    house.long.gate.clear()
    house.client.put("/v1/jobs/a", json={**WANTED, "target": "clip"})
    house.until("a", lambda job: job["frames"] > 0)
    answer = house.client.post("/v1/jobs/a/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "processing")
    assert answer.json()["canceling"]
    assert house.until("a", lambda job: job["completed"])["state"] == "canceled"
    assert house.client.get("/v1/jobs/a/outputs/result.mp4").status_code == 409
    assert house.client.post("/v1/jobs/a/cancel").json()["state"] == "canceled"


def test_a_job_that_waits_is_canceled_at_once(house: House) -> None:
    house.short.gate.clear()
    for number in range(3):
        house.client.put(f"/v1/jobs/j{number}", json=WANTED)
    assert house.client.post("/v1/jobs/j2/cancel").json()["state"] == "canceled"
    house.short.gate.set()
    assert house.job("j1")["state"] == "succeeded"
    assert len(house.short.tasks) == 2


def test_only_a_job_at_its_end_is_removed(house: House) -> None:
    house.short.gate.clear()
    house.client.put("/v1/jobs/a", json=WANTED)
    assert house.client.delete("/v1/jobs/a").json()["code"] == "job-running"
    house.short.gate.set()
    house.job("a")
    assert house.client.delete("/v1/jobs/a").status_code == 204
    assert house.client.get("/v1/jobs/a").json()["code"] == "not-found"
    assert not list((house.gateway.folder.root / "jobs").iterdir())


def test_a_job_whose_worker_dies_is_tried_again_but_not_for_ever(house: House) -> None:
    house.short.script += [WorkerDied("-9")]
    assert house.job("once")["state"] == "succeeded"
    house.short.script += [WorkerDied("-11")] * 3
    job = house.job("always")
    assert (job["state"], job["error"]["code"]) == ("failed", "worker-died")


def test_a_second_gateway_goes_on_with_the_jobs_of_the_first(open_house: OpenHouse) -> None:
    first = open_house()
    first.upload("face")
    first.upload("target")
    first.short.gate.clear()
    for number in range(4):
        first.client.put(f"/v1/jobs/j{number}", json=WANTED)
    first.until("j0", lambda job: job["state"] == "processing")
    first.client.__exit__(None, None, None)
    second = open_house()
    for number in range(4):
        assert second.job(f"j{number}")["state"] == "succeeded"
    assert len(second.short.tasks) == 4


def test_two_gateways_do_not_share_a_folder(open_house: OpenHouse) -> None:
    from frameswap import BadOptions

    open_house()
    with pytest.raises(BadOptions, match="another gateway works in"):
        open_house()


def events_of(text: str) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line[1:])
        if lines.get("event") == "job":
            found.append((int(lines["id"]), json.loads(lines["data"])))
    return found


def test_events_end_with_the_job_and_go_on_where_they_were_left(house: House) -> None:
    job = house.job("a")
    events = events_of(house.client.get("/v1/jobs/a/events").text)
    assert events == [(job["revision"], job)]
    seen = {"Last-Event-ID": str(job["revision"])}
    assert events_of(house.client.get("/v1/jobs/a/events", headers=seen).text) == []


def test_events_tell_of_each_change(house: House) -> None:
    house.short.gate.clear()
    house.client.put("/v1/jobs/a", json=WANTED)
    threading.Timer(0.7, house.short.gate.set).start()
    answer = house.client.get("/v1/jobs/a/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    events = events_of(answer.text)
    ids = [id for id, _ in events]
    assert ids == sorted(set(ids))
    assert len(events) >= 3
    assert events[-1][1]["state"] == "succeeded"
    assert any(event["rate"] == 2.0 and event["left_s"] == 1.5 for _, event in events)


def test_a_quiet_stream_has_a_heartbeat(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frameswap_gateway.events.HEARTBEAT_S", 0.1)
    for lane in (house.short, house.long):
        lane.count = 0
    house.client.put("/v1/jobs/a", json=WANTED)
    threading.Timer(1.0, lambda: house.client.post("/v1/jobs/a/cancel")).start()
    assert ": still here\n" in house.client.get("/v1/jobs/a/events").text


def test_a_user_may_have_only_so_many_jobs_waiting(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(user_jobs=3))
    house.upload("face")
    house.upload("target")
    house.short.gate.clear()
    answers = [house.client.post("/v1/jobs", json=WANTED) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert int(answers[3].headers["retry-after"]) >= 1
    assert answers[3].json()["code"] == "too-many"


def test_videos_are_admitted_by_their_frames(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(video_frames=100, user_frames=150))
    house.upload("face")
    house.upload("long", b"video 101")
    house.upload("short", b"video 80")
    house.long.gate.clear()
    answer = house.client.post("/v1/jobs", json={**WANTED, "target": "long"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert house.client.post("/v1/jobs", json={**WANTED, "target": "short"}).status_code == 202
    answer = house.client.post("/v1/jobs", json={**WANTED, "target": "short"})
    assert (answer.status_code, answer.json()["code"]) == (429, "too-many")


def test_the_list_of_jobs_has_pages(house: House) -> None:
    for number in range(5):
        house.job(f"j{number}")
    page = house.client.get("/v1/jobs?limit=2").json()
    ids = [job["id"] for job in page["jobs"]]
    while page["next"]:
        page = house.client.get(page["next"]).json()
        ids += [job["id"] for job in page["jobs"]]
    assert ids == ["j4", "j3", "j2", "j1", "j0"]


def test_persons_are_named_by_a_search_for_faces(house: House) -> None:
    house.upload("clip", b"video 50")
    answer = house.client.post(
        "/v1/faces", json={"target": "clip"}, headers={"Prefer": "wait=10"}
    )
    job = answer.json()
    assert (answer.status_code, job["kind"]) == (200, "faces")
    assert "embedding" not in job["result"]["persons"][0]
    swap = {"source": ["face"], "replaces": {"faces": job["id"], "person": 1}}
    house.job("a", target="clip", swaps=[swap])
    ((_, told),) = house.long.tasks
    assert told["wishes"]["sources"][0]["reference"] == [0.6, 0.8]
    swap["replaces"] = {"faces": job["id"], "person": 2}
    answer = house.client.post("/v1/jobs", json={"target": "clip", "swaps": [swap]})
    assert "found no person 2" in answer.json()["detail"]


def test_a_preview_is_a_picture(house: House) -> None:
    answer = house.client.post("/v1/previews", json={**WANTED, "at_s": 0.5})
    assert (answer.content, answer.headers["faces-found"]) == (b"a picture", "1")
    assert answer.headers["content-type"] == "image/jpeg"
    plain = house.client.get("/v1/assets/target/frame?at_s=0.5")
    assert plain.content == b"a picture"
    assert not list((house.gateway.folder.root / "previews").iterdir())


def test_the_newest_frame_is_shown_while_a_job_runs(house: House) -> None:
    house.upload("clip", b"video 50")
    house.long.gate.clear()
    house.client.put("/v1/jobs/a", json={**WANTED, "target": "clip"})
    house.until("a", lambda job: job["frames"] > 0)
    assert house.client.get("/v1/jobs/a/outputs/newest.jpg").status_code == 404
    (folder,) = (house.gateway.folder.root / "jobs").iterdir()
    (folder / "newest.jpg").write_bytes(b"newest")
    assert house.client.get("/v1/jobs/a/outputs/newest.jpg").content == b"newest"
