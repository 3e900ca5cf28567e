"""Frames whose server goes away, or never answers: sent again, in order, none lost or doubled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from fake_server import FakeServer
from frameswap import ContractMismatch, FaceSwapper, Source, stream
from frameswap.transport import TransportName

SOURCE = Source(
    np.float32([1, 2, 3, 4]), "identity", "fake_identity", np.zeros((0, 15), np.float32)
)
TRANSPORTS: tuple[TransportName, ...] = ("grpc", "system")


def frames(count: int) -> Iterator[np.ndarray]:
    for value in range(count):
        yield np.full((72, 64), value, np.uint8)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_LEAST_PATIENCE_S", 0.4)
    monkeypatch.setattr(stream, "_FIRST_LATENCY_S", 0.1)


class Forgets:
    """A server that never answers some frames when they first come, as after a model's death."""

    def __init__(self, *values: int) -> None:
        self.left = set(values)
        self.sent: list[int] = []
        self.over = threading.Event()

    def __call__(self, value: int, context: grpc.ServicerContext) -> None:
        self.sent.append(value)
        if value in self.left:
            self.left.discard(value)
            self.over.wait(30)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_request_that_is_never_answered_is_sent_again_within_seconds(
    server: FakeServer, transport: TransportName
) -> None:
    server.behavior.fail = forgets = Forgets(3, 4, 5, 11)
    with FaceSwapper(
        server.address, transport=transport, in_flight=4, timeout_s=20, reconnect_s=10
    ) as swapper:
        begun = time.monotonic()
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(16), SOURCE)]
        assert time.monotonic() - begun < 10
        forgets.over.set()
    assert done == [255 - value for value in range(16)]
    assert sorted(forgets.sent) == sorted([*range(16), 3, 4, 5, 11])


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_merely_slow_is_not_given_twice_the_work(server: FakeServer) -> None:
    sent: list[int] = []

    def slow(value: int, _: object) -> None:
        sent.append(value)
        # Slower than the least patience, and not growing fourfold from one to the next.
        time.sleep(0.3 if value < 2 else 0.6)

    server.behavior.fail = slow
    with FaceSwapper(server.address, transport="grpc", in_flight=2, reconnect_s=10) as swapper:
        assert len(list(swapper.stream(frames(10), SOURCE))) == 10
    assert sorted(sent) == list(range(10))


@pytest.mark.usefixtures("impatient")
def test_without_reconnecting_nothing_is_sent_twice(server: FakeServer) -> None:
    sent: list[int] = []

    def slow(value: int, _: object) -> None:
        sent.append(value)
        time.sleep(1.0 if value == 1 else 0)

    server.behavior.fail = slow
    with FaceSwapper(
        server.address, transport="grpc", in_flight=2, reconnect_s=0
    ) as swapper:
        assert len(list(swapper.stream(frames(4), SOURCE))) == 4
    assert sorted(sent) == list(range(4))


def leave_for(server: FakeServer, seconds: float) -> None:
    """Unload every model, as a server does that was told to stop, and have them back later."""
    models, server.behavior.models = server.behavior.models, ()
    threading.Timer(seconds, lambda: setattr(server.behavior, "models", models)).start()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_is_leaving_is_not_one_of_the_wrong_contract(
    server: FakeServer, transport: TransportName
) -> None:
    left = {5}

    def leave(value: int, context: grpc.ServicerContext) -> None:
        if value in left:
            left.discard(value)
            leave_for(server, 0.7)
            context.abort(grpc.StatusCode.UNAVAILABLE, "model 'swap_faces_i420' is not ready")

    server.behavior.fail = leave
    with FaceSwapper(
        server.address, transport=transport, in_flight=4, timeout_s=20, reconnect_s=10
    ) as swapper:
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(12), SOURCE)]
    assert done == [255 - value for value in range(12)]


def test_a_server_that_never_had_the_models_is_refused_at_once(server: FakeServer) -> None:
    server.behavior.models = ("swap_faces_bgr", "encode_source_bgr")
    with FaceSwapper(server.address, transport="grpc", reconnect_s=30) as swapper:
        begun = time.monotonic()
        with pytest.raises(ContractMismatch, match="swap_faces_i420"):
            list(swapper.stream(frames(4), SOURCE))
        assert time.monotonic() - begun < 5
