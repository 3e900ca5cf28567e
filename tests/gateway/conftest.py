"""A gateway in this process, with somebody who only pretends to look at files and to swap."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from frameswap_gateway.app import build_app
from frameswap_gateway.folder import Folder
from frameswap_gateway.gateway import Gateway
from frameswap_gateway.settings import Settings
from frameswap_gateway.sqlite_store import SqliteStore
from frameswap_gateway.tokens import Tokens
from frameswap_gateway.workers import Handle, OnEvent, TaskFailed, WorkerDied
from starlette.testclient import TestClient

from bench.gateway.running import RunningGateway
from server.launcher import EmbeddedServer

DESCRIBED = {
    "swapper": "image_swapper_256", "provenance": "composite", "source_kind": "image",
    "landmarker": "face_mesh_attention", "gives_mask": False, "persons": True,
    "occluder": None, "parser": None, "enhancer": None,
    "codecs": ["x264", "vp9"],
}  # fmt: skip
PERSONS = [
    {"number": 1, "share": 0.9, "first_s": 0.0, "last_s": 3.0, "size_px": 120.0, "best_s": 1.0,
     "embedding": [0.6, 0.8]},
]  # fmt: skip


class FakeRunner:
    """Does tasks without processes. A file's first word says what it is.

    gate: a swap waits for it, and tells of a frame meanwhile. script: what the next tasks end
    with, instead of what they would.
    """

    def __init__(self, count: int = 2) -> None:
        self.count, self.taken = count, 0
        self.gate = threading.Event()
        self.gate.set()
        self.script: list[Exception] = []
        self.tasks: list[tuple[str, dict[str, Any]]] = []
        self.is_closed = False

    @property
    def free(self) -> int:
        return self.count - self.taken

    async def run(
        self, task: str, *, on_event: OnEvent | None = None, handle: Handle | None = None,
        names: Mapping[str, str] | None = None, timeout_s: float | None = None, **arguments: Any,
    ) -> dict[str, Any]:  # fmt: skip
        self.tasks.append((task, arguments))
        self.taken += 1
        try:
            if task in ("photo", "video"):
                await self._wait(on_event, handle or Handle())
            if self.script:
                raise self.script.pop(0)
            done: dict[str, Any] = getattr(self, task)(**arguments)
            return done
        finally:
            self.taken -= 1

    async def _wait(self, on_event: OnEvent | None, handle: Handle) -> None:
        while not self.gate.is_set():
            if on_event is not None:
                await on_event({"frames": 1, "rate": 2.0, "left_s": 1.5})
            if handle.is_canceled:
                raise TaskFailed("canceled", "it was canceled")
            if self.is_closed:
                raise WorkerDied("closed")
            await asyncio.sleep(0.02)

    def look(self, *, path: str, photo_pixels: int, video_pixels: int) -> dict[str, Any]:
        words = Path(path).read_bytes()[:100].split()
        if words and words[0] == b"photo":
            return {"kind": "photo", "width": 4, "height": 3, "frames": 1,
                    "media_type": "image/jpeg"}  # fmt: skip
        if words and words[0] == b"video":
            frames = int(words[1])
            return {"kind": "video", "width": 4, "height": 3, "frames": frames, "rate": 25.0,
                    "duration_s": frames / 25, "media_type": "video/mp4"}  # fmt: skip
        raise TaskFailed("unreadable-file", "it is no photo and no video")

    def photo(self, *, folder: str, suffix: str, **_: Any) -> dict[str, Any]:
        (Path(folder) / f"result{suffix}").write_bytes(b"0123456789")
        return {"outputs": [f"result{suffix}"], "summary": {"frames": 1, "faces": 1}, "notes": []}

    def video(self, *, folder: str, suffix: str, **_: Any) -> dict[str, Any]:
        return self.photo(folder=folder, suffix=suffix)

    def faces(self, **_: Any) -> dict[str, Any]:
        return {"outputs": [], "persons": PERSONS, "notes": []}

    def frame(self, *, output: str, **_: Any) -> dict[str, Any]:
        Path(output).write_bytes(b"a picture")
        return {"faces": 1}

    def describe(self) -> dict[str, Any]:
        return dict(DESCRIBED)

    async def close(self) -> None:
        self.is_closed = True


class House:
    """A gateway, its application, and somebody at its door."""

    def __init__(self, settings: Settings) -> None:
        folder = Folder(settings.folder)
        self.probes, self.short, self.long, self.live = (FakeRunner() for _ in range(4))
        self.gateway = Gateway(
            settings=settings, folder=folder, store=SqliteStore(folder.table),
            tokens=Tokens(settings.tokens, key=folder.session_key), probes=self.probes,
            lanes={"short": self.short, "long": self.long}, live=self.live,
        )  # fmt: skip
        self.client = TestClient(
            build_app(self.gateway), base_url="http://127.0.0.1", raise_server_exceptions=True
        )

    def upload(self, id: str, content: bytes = b"photo", **more: Any) -> None:
        answer = self.client.put(f"/v1/assets/{id}", content=content, **more)
        assert answer.status_code == 201, answer.text

    def job(self, id: str, **wanted: Any) -> dict[str, Any]:
        """What a finished job became."""
        self.client.put(f"/v1/jobs/{id}", json=wanted or WANTED).raise_for_status()
        return self.until(id, lambda job: job["completed"] is not None)

    def until(self, id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until_s = time.monotonic() + 10.0
        while time.monotonic() < until_s:
            job: dict[str, Any] = self.client.get(f"/v1/jobs/{id}").json()
            if holds(job):
                return job
            time.sleep(0.01)
        raise AssertionError(job)


WANTED = {"target": "target", "swaps": [{"source": ["face"]}]}
OpenHouse = Callable[..., House]


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[OpenHouse]:
    """Make one with other settings; the folder stays the same, so that a second one goes on."""
    opened: list[House] = []

    def make(**settings: Any) -> House:
        house = House(Settings(folder=tmp_path / "gateway", **settings))
        house.client.__enter__()
        opened.append(house)
        return house

    yield make
    for house in opened:
        house.short.gate.set()
        house.long.gate.set()
        if not house.short.is_closed:
            house.client.__exit__(None, None, None)


@pytest.fixture
def house(open_house: OpenHouse) -> House:
    """One with a face and a target in it."""
    house = open_house()
    house.upload("face")
    house.upload("target")
    return house


@pytest.fixture(scope="module")
def gateway(
    real_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A real one, in a process of its own, in front of a real server; one a module."""
    folder = tmp_path_factory.mktemp("gateway") / "folder"
    with RunningGateway(real_server.grpc_url, folder) as running:
        yield running
