"""Two servers, one drained, one killed, under load: no frame fails, and each comes right."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from frameswap import FaceSwapper, Source
from numpy.typing import NDArray

from demo.photos import read_photo
from tests.deploy.proxy import Envoy
from tests.deploy.serving import EntryPoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Frame = NDArray[np.uint8]
LEAST_FRAMES = 15
"""Frames that must have come between two events, so that there is load during each."""


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Four frames that can be told apart, small: what is looked at is who answers."""
    face = cv2.resize(read_photo("gauss"), (240, 180), interpolation=cv2.INTER_AREA)
    return [np.roll(face, 8 * index, axis=1) for index in range(4)]


class Load:
    """A client that keeps swapping frames, and compares each with what came before the load."""

    def __init__(self, swapper: FaceSwapper, frames: list[Frame], source: Source) -> None:
        self._swapper = swapper
        self._frames = frames
        self._source = source
        self._expected = [swapper.swap(frame, source).frame for frame in frames]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.failure: Exception | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        def endless() -> Iterator[Frame]:
            index = 0
            while not self._over.is_set():
                yield self._frames[index % len(self._frames)]
                index += 1

        try:
            for swapped in self._swapper.stream(endless(), self._source):
                expected = self._expected[self.count % len(self._expected)]
                difference = np.abs(swapped.frame.astype(int) - expected)
                # Rows of requests that meet run as one batch, whose sums come in another order.
                assert difference.max() <= 1, f"frame {self.count} is off by {difference.max()}"
                self.count += 1
        except Exception as error:
            self.failure = error

    def wait_for_more(self, least: int = LEAST_FRAMES, limit_s: float = 120.0) -> None:
        """Wait until so many frames more have come."""
        wanted, deadline = self.count + least, time.monotonic() + limit_s
        while self.count < wanted and self.failure is None:
            assert time.monotonic() < deadline, "frames do not come any more"
            time.sleep(0.05)
        assert self.failure is None, self.failure


def replace(
    stack: ExitStack, old: EntryPoint, repository: Path, scratch: Path, load: Load
) -> EntryPoint:
    """Drain a server under load, and start another in its place."""
    grpc_port, health_port = old.grpc_port, old.health_port
    old.process.send_signal(signal.SIGTERM)
    load.wait_for_more()
    assert old.process.wait(60) == 0
    load.wait_for_more()
    flags = ("--grpc-port", str(grpc_port), "--health-port", str(health_port))
    new = stack.enter_context(EntryPoint(repository, scratch, *flags))
    new.wait_ready()
    load.wait_for_more()
    return new


def kill(server: EntryPoint, load: Load) -> None:
    """Kill a server and everything of it at once, under load."""
    os.killpg(server.triton.pid, signal.SIGKILL)
    server.process.kill()
    load.wait_for_more(3 * LEAST_FRAMES)


def test_behind_envoy_the_client_sees_nothing_of_it(
    real_repository: Path, tmp_path: Path, frames: list[Frame]
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(EntryPoint(real_repository, tmp_path / str(number)))
            for number in range(2)
        ]
        for server in servers:
            server.wait_ready()
        ports = [(server.grpc_port, server.health_port) for server in servers]
        proxy = stack.enter_context(Envoy(tmp_path / "envoy", ports))
        proxy.wait_healthy(2)
        # No waiting and no sending again here: Envoy does it.
        swapper = stack.enter_context(
            FaceSwapper(proxy.address, transport="grpc", in_flight=6, reconnect_s=0)
        )
        source = swapper.encode_source(read_photo("newton"))
        load = stack.enter_context(Load(swapper, frames, source))
        load.wait_for_more()
        replace(stack, servers[0], real_repository, tmp_path / "new", load)
        proxy.wait_healthy(2)
        kill(servers[1], load)
        assert proxy.healthy() == 1


def test_with_the_clients_own_round_robin_none_is_lost_either(
    real_repository: Path, tmp_path: Path, frames: list[Frame]
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                EntryPoint(real_repository, tmp_path / str(number), "--drain-s", "1")
            )
            for number in range(2)
        ]
        for server in servers:
            server.wait_ready()
        addresses = ",".join(f"127.0.0.1:{server.grpc_port}" for server in servers)
        swapper = stack.enter_context(
            FaceSwapper(f"ipv4:///{addresses}", transport="grpc", in_flight=6, reconnect_s=30)
        )
        source = swapper.encode_source(read_photo("newton"))
        load = stack.enter_context(Load(swapper, frames, source))
        load.wait_for_more()
        replace(stack, servers[0], real_repository, tmp_path / "new", load)
        kill(servers[1], load)
