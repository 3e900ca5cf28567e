"""Long abuse: HTTP of any form, requests of any form, given up in hundreds, while models die."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.http_crumbs import post_in_crumbs
from server.launcher import EmbeddedServer
from server.watchdog import Watchdog
from tests.server.http_abuse import abuse
from tests.server.raw_requests import Sender, request
from tests.server.test_launcher import assert_serves, model_processes, wait_for
from tests.server.test_watchdog import serves

pytestmark = pytest.mark.soak

STORM_S = float(os.environ.get("FRAMESWAP_STORM_S", "60"))
"""How long models are killed under given-up requests, seconds."""
ABUSES, CRUMBS = 30, 300_000
"""How much of HTTP's abuse each server process goes through before."""


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


def dead_models(server: EmbeddedServer) -> dict[int, int]:
    """How its models' processes ended, which nobody collects: process id to exit code.

    Source: proc(5), /proc/PID/stat, field 52, as wait(2) tells it; a signal is below zero.
    """
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server.pid).children():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z":
                    found[child.pid] = os.waitstatus_to_exitcode(int(fields[49]))
    return found


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


class Storm:
    """Given-up requests while models are killed, at a server that HTTP was abused of before."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._sender = Sender(server)
        self._abused = 0
        self.kills = 0
        self.ends: dict[int, int] = {}

    def blow(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._server.pid != self._abused:
                self._abuse_http()
            storm = [request((1, 64, 64, 3)) for _ in range(random.choice((200, 800)))]
            in_flight, after = random.sample((self._kill, lambda: None), 2)
            self._sender.send(storm, given_up=0.9, meanwhile=in_flight)
            after()
            self._sender.send([request((1, 8, 8, 3)) for _ in range(20)], given_up=0.5)
            wait_for(lambda: len(living_models(self._server)) == 1, at_most_s=60)
            self.ends |= dead_models(self._server)
        self._sender.close()

    def _abuse_http(self) -> None:
        """As often as the server was started again, too."""
        wait_for(lambda: serves(self._server), at_most_s=120)
        self._abused = self._server.pid
        doors = self._server.doors
        for address in (str(doors.http_url), str(doors.metrics_url)):
            wait_for(lambda at=address: abuse(at, 1) > 1)
            assert abuse(address, ABUSES) > ABUSES, "more than the one that asks for health"
            post_in_crumbs(address, CRUMBS)

    def _kill(self) -> None:
        for process in living_models(self._server):
            process.kill()
            self.kills += 1


@pytest.mark.timeout(STORM_S + 300)
def test_what_dies_in_http_given_up_requests_and_kills_comes_back(
    tiny_repository: Path, tmp_path: Path
) -> None:
    random.seed(8)
    told: list[str] = []
    with (
        EmbeddedServer(
            tiny_repository, models=["invert_twice"], one_process=False,
            http_port=0, metrics_port=0, log_file=tmp_path / "server.log",
        ) as server,
        Watchdog(server, told.append),
    ):  # fmt: skip
        storm = Storm(server)
        storm.blow(STORM_S)
        wait_for(lambda: serves(server), at_most_s=120)
        assert_serves(server)
        size = psutil.Process(server.pid).memory_info().rss >> 20
    again = "; starting the server again."
    reasons = Counter(line.removesuffix(again) for line in told if line.endswith(again))
    ends = Counter(storm.ends.values())
    print(f"{storm.kills} kills in {STORM_S:g} s; models ended with {dict(ends)}; "
          f"{size} MiB at the end; starts of the server: {dict(reasons)}")  # fmt: skip
    # Whatever ends the server, its watchdog has brought it back.
    assert sum(reasons.values()) == sum("the server is back" in line for line in told)
    # No signal but ours ended a model's process: none met a fault of its own.
    assert {code for code in ends if code < 0} == {-signal.SIGKILL}
