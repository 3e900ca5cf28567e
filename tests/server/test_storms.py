"""Long abuse: requests of any form, given up in hundreds, while models die."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2

from server.launcher import EmbeddedServer
from server.watchdog import Watchdog
from tests.server.test_launcher import assert_serves, model_processes, wait_for

pytestmark = pytest.mark.soak

STORM_S = float(os.environ.get("FRAMESWAP_STORM_S", "60"))
"""How long models are killed under given-up requests, seconds."""


def request(
    shape: tuple[int, ...], shift: float = 0, *, name: str = "invert_twice", tag: str = ""
) -> bytes:
    message = service_pb2.ModelInferRequest(model_name=name, id=tag)
    frame = np.zeros(shape, np.uint8)
    for tensor, kind, array in (
        ("frame", "UINT8", frame),
        ("options", "FP32", np.float32([[shift, 0, 0, 0]])),
    ):
        message.inputs.add(name=tensor, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def side() -> int:
    return random.randrange(1, 200)


FORMS: dict[str, Callable[[], bytes]] = {
    "good": lambda: request((1, 8, 8, 3)),
    "a wrong option": lambda: request((1, 8, 8, 3), 99),
    "a wrong shape": lambda: request((1, 8, 8, 4)),
    "another size": lambda: request((1, side(), side(), 3)),
    "an unknown model": lambda: request((1, 8, 8, 3), name=f"m{random.getrandbits(60)}"),
    "a name of its own": lambda: request((1, 8, 8, 3), tag=f"i{random.getrandbits(60)}"),
    "no message": lambda: random.randbytes(random.randrange(1, 3000)),
}


def living_models(server: EmbeddedServer) -> list[psutil.Process]:
    """Its models' processes; none while the server itself is started again."""
    try:
        return model_processes(server)
    except psutil.NoSuchProcess:
        return []


class Sender:
    """Sends serialised requests, a window at a time."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._channel = grpc.insecure_channel(server.grpc_url)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def send(self, messages: list[bytes], *, given_up: float = 0.0) -> None:
        calls = [self._call.future(message, timeout=20) for message in messages]
        for call in calls:
            if random.random() < given_up:
                call.cancel()
        for call in calls:
            try:
                call.result()
            except (grpc.RpcError, grpc.FutureCancelledError):
                continue  # that it lives on is what is looked at

    def close(self) -> None:
        self._channel.close()


def test_fuzzed_requests_leave_no_memory_behind(tiny_repository: Path) -> None:
    random.seed(7)
    with EmbeddedServer(tiny_repository, models=["invert_twice"], one_process=True) as server:
        sender, triton = Sender(server), psutil.Process(server.pid)
        sizes = []
        for _ in range(10):
            for _ in range(40):
                sender.send([make() for make in FORMS.values() for _ in range(9)])
            sizes.append(triton.memory_info().rss)
        sender.close()
        assert_grows_less(sizes, bytes_a_request=300, requests=40 * 9 * len(FORMS))


def assert_grows_less(sizes: list[int], *, bytes_a_request: int, requests: int) -> None:
    """After the first two rounds, in which pools fill."""
    grown = (sizes[-1] - sizes[2]) / (requests * (len(sizes) - 3))
    print(f"{[size >> 20 for size in sizes]} MiB, {grown:.0f} bytes a request")
    assert grown < bytes_a_request


def test_the_server_lives_through_given_up_requests_and_dying_models(
    tiny_repository: Path,
) -> None:
    random.seed(8)
    told: list[str] = []
    with (
        EmbeddedServer(tiny_repository, models=["invert_twice"], one_process=False) as server,
        Watchdog(server, told.append),
    ):
        pid, sender, kills = server.pid, Sender(server), 0
        deadline = time.monotonic() + STORM_S
        while time.monotonic() < deadline:
            sender.send([request((1, 64, 64, 3)) for _ in range(200)], given_up=0.9)
            for process in living_models(server):
                process.kill()
                kills += 1
            sender.send([request((1, 8, 8, 3)) for _ in range(20)], given_up=0.5)
            wait_for(lambda: len(living_models(server)) == 1, at_most_s=60)
        sender.close()
        wait_for(lambda: sum("back after" in line for line in told) >= 1)
        assert_serves(server)
        restarts = [line for line in told if "starting the server again" in line]
        print(f"{kills} kills in {STORM_S:g} s, {len(restarts)} restarts: {set(restarts)}")
        # A model that is killed while it loads makes Triton wait for ever; nothing else ends it.
        assert all("died while it was loaded" in line for line in restarts)
        assert restarts or server.pid == pid
