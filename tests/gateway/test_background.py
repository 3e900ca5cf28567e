"""What happens without anybody asking: webhooks, retention, metrics; and the camera's door."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from conftest import WANTED, FakeRunner, House, OpenHouse
from frameswap_gateway.retention import sweep
from frameswap_gateway.scheduler import Scheduler
from frameswap_gateway.settings import Limits
from frameswap_gateway.webhooks import sign
from frameswap_gateway.workers import Handle, OnEvent, TaskFailed
from starlette.websockets import WebSocketDisconnect

SECRET = b"a secret of sixteen bytes or more"


class Listener:
    """Somebody's server that is told of jobs; refuses the first `refusals` calls."""

    def __init__(self, refusals: int) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(500 if len(listener.calls) <= refusals else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def wait_for(self, count: int) -> None:
        until_s = time.monotonic() + 15.0
        while len(self.calls) < count and time.monotonic() < until_s:
            time.sleep(0.02)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    opened = Listener(refusals=1)
    yield opened
    opened.close()


def test_a_webhook_is_signed_and_tried_again(
    open_house: OpenHouse, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frameswap_gateway.webhooks.DELAYS_S", (0.1, 0.1))
    house = open_house(webhook_hosts=("127.0.0.1",), webhook_secret=SECRET)
    house.upload("face")
    house.upload("target")
    url = f"http://127.0.0.1:{listener.server.server_port}/done"
    job = house.job("a", **WANTED, webhook={"url": url})
    listener.wait_for(2)
    headers, body = listener.calls[1]
    assert json.loads(body) == job
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, "sha256").digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    # The same event keeps its id, so that who hears it twice knows.
    assert headers["webhook-id"] == listener.calls[0][0]["webhook-id"]
    time.sleep(1.5)
    assert len(listener.calls) == 2


def test_the_signature_is_that_of_the_published_example() -> None:
    # Source: the README of standard-webhooks, "Signature scheme".
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def sweep_now(house: House, now_s: float) -> None:
    portal = house.client.portal
    assert portal is not None
    portal.call(lambda: sweep(house.gateway, now_s=now_s))


def kinds(house: House) -> tuple[int, int]:
    root = house.gateway.folder.root
    return len(list((root / "assets").iterdir())), len(list((root / "jobs").iterdir()))


def test_what_nobody_used_for_a_while_goes(house: House) -> None:
    house.job("a")
    sweep_now(house, time.time() + 3600)
    assert kinds(house) == (2, 1)
    sweep_now(house, time.time() + 25 * 3600)
    assert kinds(house) == (0, 0)
    assert house.client.get("/v1/jobs/a").status_code == 404
    assert house.client.get("/v1/assets/face").status_code == 404


def test_a_job_that_waits_keeps_what_it_reads(house: House) -> None:
    house.short.gate.clear()
    house.client.put("/v1/jobs/a", json=WANTED)
    house.client.delete("/v1/assets/face")
    sweep_now(house, time.time() + 25 * 3600)
    assert kinds(house)[0] == 2
    house.short.gate.set()
    assert house.job("a")["state"] == "succeeded"


def test_results_beyond_the_size_of_all_go_the_oldest_first(open_house: OpenHouse) -> None:
    house = open_house(limits=Limits(all_bytes=35))
    house.upload("face")
    house.upload("target")
    for number in range(4):
        # Ten bytes each, beside ten of uploads.
        house.job(f"j{number}")
    sweep_now(house, time.time())
    left = [job["id"] for job in house.client.get("/v1/jobs").json()["jobs"]]
    assert left == ["j3", "j2"]
    answer = house.client.put("/v1/assets/more", content=b"photo 12345")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")


def test_files_that_belong_to_nothing_go(house: House) -> None:
    stray = house.gateway.folder.asset("0" * 32)
    stray.write_bytes(b"left by a kill")
    sweep_now(house, time.time())
    assert stray.exists(), "it is young: its row may be on its way"
    os.utime(stray, (0, 0))
    sweep_now(house, time.time())
    assert not stray.exists()


def test_metrics_count_what_happened(house: House) -> None:
    house.job("a")
    house.short.script.append(TaskFailed("no-face-found", "none"))
    house.job("b")
    sweep_now(house, time.time())
    text = house.client.get("/metrics").text
    for line in (
        'frameswap_gateway_jobs_ended_total{kind="photo",state="succeeded"} 1.0',
        'frameswap_gateway_jobs_ended_total{kind="photo",state="failed"} 1.0',
        'frameswap_gateway_jobs{state="failed"} 1.0',
        "frameswap_gateway_uploaded_bytes_total 10.0",
    ):
        assert line in text, line
    # Routes are counted as they are written, not as they were called.
    assert 'route="/v1/jobs/{id}"' in text
    assert "/v1/jobs/a" not in text


class Camera(FakeRunner):
    """Gives every picture back, with an exclamation mark."""

    async def run(
        self, task: str, *, on_event: OnEvent | None = None, handle: Handle | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:  # fmt: skip
        assert task == "live"
        assert on_event is not None
        assert handle is not None
        self.taken += 1
        came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def send(message: Any) -> None:
            await came.put(message)

        handle.send = send
        handle.on_cancel = lambda: came.put_nowait({})
        await on_event({"ready": True})
        try:
            while message := await came.get():
                jpeg = base64.b64encode(base64.b64decode(message["jpeg"]) + b"!").decode()
                await on_event({"frame": message["frame"], "jpeg": jpeg, "faces": 2})
            raise TaskFailed("canceled", "it was canceled")
        finally:
            self.taken -= 1


def test_a_cameras_pictures_come_back_with_their_number(house: House) -> None:
    house.gateway.live = Camera(1)
    with house.client.websocket_connect("ws://127.0.0.1/v1/live") as socket:
        socket.send_json({"source": ["face"]})
        assert socket.receive_json() == {"ready": True}
        for number in (1, 7):
            socket.send_bytes(number.to_bytes(4, "big") + b"picture")
            assert socket.receive_bytes() == number.to_bytes(4, "big") + b"\x02picture!"
        with house.client.websocket_connect("ws://127.0.0.1/v1/live") as second:
            assert second.receive_json()["code"] == "too-many"
    until_s = time.monotonic() + 5.0
    while house.gateway.live.free < 1 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert house.gateway.live.free == 1


@pytest.mark.parametrize("first", ['{"source": ["nobody"]}', '{"source": []}', "no json"])
def test_a_camera_without_a_face_is_refused(house: House, first: str) -> None:
    house.gateway.live = Camera(1)
    with house.client.websocket_connect("ws://127.0.0.1/v1/live") as socket:
        socket.send_text(first)
        assert socket.receive_json()["code"] == "not-possible"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_a_gateway_that_stops_takes_no_jobs(house: House) -> None:
    house.gateway.is_stopping = True
    answer = house.client.post("/v1/jobs", json=WANTED)
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
    assert house.client.get("/readyz").status_code == 503
    assert house.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("steps", range(4))
def test_the_scheduler_ends_though_a_job_ends_at_the_same_moment(house: House, steps: int) -> None:
    """Cancelled so many steps of the loop after it was woken: at some of them both are due."""

    async def wake_and_cancel() -> bool:
        running = asyncio.create_task(Scheduler(house.gateway).run())
        # It has looked for jobs, and waits.
        await asyncio.sleep(0.1)
        house.gateway.wake.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        ended, _ = await asyncio.wait([running], timeout=1.0)
        return bool(ended)

    assert house.client.portal is not None
    assert house.client.portal.call(wake_and_cancel)


def test_a_gateway_whose_parts_have_ended_says_that_it_is_not_well(house: House) -> None:
    assert house.client.get("/healthz").status_code == 200
    portal = house.client.portal
    assert portal is not None
    app: Any = house.client.app
    portal.call(lambda: app._app.state.background[0].cancel())
    until_s = time.monotonic() + 5.0
    while house.client.get("/healthz").status_code == 200 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert house.client.get("/healthz").status_code == 503


def test_capabilities_say_what_is_deployed_and_nothing_else(house: House) -> None:
    said = house.client.get("/v1/capabilities").json()
    assert said["swapper"] == {
        "name": "image_swapper_256", "licence": "Apache-2.0", "allows": "any use",
        "source_kind": "image", "mark": "composite", "averages_photos": False,
    }  # fmt: skip
    assert said["options"]["masks"] == ["box", "hull", "none"]
    assert said["codecs"]["x264"] == [".mp4", ".mov", ".mkv"]
    assert said["limits"]["asset_bytes"] == Limits().asset_bytes
