"""Dead models and dead servers come back; a busy server is left alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from server import distribution, watchdog
from server.launcher import EmbeddedServer
from server.repository import top_models
from server.watchdog import Watchdog
from tests.server.asking import Asker
from tests.server.raw_requests import Sender, request
from tests.server.small_memory import run_in_small_memory
from tests.server.test_launcher import assert_serves, model_processes, wait_for
from tests.server.test_odd_paths import link_tree

pytestmark = pytest.mark.e2e

FRAME = np.full((1, 8, 8, 3), 5, np.uint8)
NO_OPTIONS = np.zeros((1, 4), np.float32)

# Detection takes one look (0.25 s); the rest is loading ONNX Runtime, slower on a busy machine.
MODEL_OUTAGE_S = 15.0

UNLOADED_S = 3.0
"""Longer than Triton takes to let go of a model, where it does."""


@pytest.fixture(scope="module")
def watched_server(tiny_repository: Path) -> Iterator[tuple[EmbeddedServer, list[str]]]:
    told: list[str] = []
    with (
        EmbeddedServer(
            tiny_repository, models=["invert_twice", "tint_faces"], one_process=False
        ) as server,
        Watchdog(server, told.append, probe_interval_s=1.0),
    ):
        yield server, told


@pytest.fixture
def watched(
    watched_server: tuple[EmbeddedServer, list[str]],
) -> tuple[EmbeddedServer, list[str]]:
    """A server that is well, and what its watchdog says from now on."""
    server, told = watched_server
    wait_for(lambda: serves(server))
    told.clear()
    return server, told


def serves(server: EmbeddedServer) -> bool:
    asker = Asker(server.grpc_url)
    try:
        asker.ask("invert_twice", frame=FRAME, options=NO_OPTIONS)
    except InferenceServerException:
        return False
    finally:
        asker.client.close()
    return True


def process_of(server: EmbeddedServer, model: str) -> psutil.Process:
    (found,) = [p for p in model_processes(server) if p.cmdline()[-2].startswith(f"{model}_")]
    return found


def test_a_killed_model_process_comes_back_while_the_others_go_on(
    watched: tuple[EmbeddedServer, list[str]],
) -> None:
    server, told = watched
    other = process_of(server, "tint_faces").pid
    killed = process_of(server, "invert_frame")
    killed.kill()
    begun = time.monotonic()
    wait_for(lambda: serves(server), at_most_s=MODEL_OUTAGE_S)
    print(f"a model was away for {time.monotonic() - begun:.1f} s")
    assert_serves(server)
    assert process_of(server, "invert_frame").pid != killed.pid
    assert process_of(server, "tint_faces").pid == other
    wait_for(lambda: any("invert_frame: back after" in line for line in told))
    assert "invert_frame: its process died; loading it again." in told


def test_a_model_that_dies_again_comes_back_again(
    watched: tuple[EmbeddedServer, list[str]],
) -> None:
    server, told = watched
    for times in (1, 2):
        process_of(server, "invert_frame").kill()
        wait_for(lambda times=times: sum("back after" in line for line in told) == times)
        assert_serves(server)


def die_with_requests(server: EmbeddedServer) -> psutil.Process:
    """Kill invert_frame with requests in hand, some of which Triton never answers."""
    process = process_of(server, "invert_frame")
    sender = Sender(server, timeout_s=3.0)
    process.suspend()

    def kill() -> None:
        time.sleep(0.5)  # by then they are in its hands
        process.kill()

    sender.send([request((1, 8, 8, 3)) for _ in range(8)], meanwhile=kill)
    sender.close()
    return process


def test_what_is_kept_for_the_dead_is_given_back_by_a_new_start(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MOST_KEPT", 20 << 20)
    told: list[str] = []
    with (
        EmbeddedServer(tiny_repository, models=["invert_twice"], one_process=False) as server,
        Watchdog(server, told.append),
    ):
        first = server.pid
        # Triton collects a process that had nothing in hand, and its region.
        idle = process_of(server, "invert_frame")
        idle.kill()
        wait_for(lambda: any("back after" in line for line in told))
        wait_for(lambda: server.kept_for_the_dead() == 0)
        assert not idle.is_running()
        # Of the other, process id and region stay: Triton may still send signals to the one and
        # write to the other.
        dead = die_with_requests(server)
        wait_for(lambda: sum("back after" in line for line in told) == 2)
        time.sleep(UNLOADED_S)
        assert dead.status() == psutil.STATUS_ZOMBIE
        assert server.kept_for_the_dead() == 16 << 20
        assert server.pid == first
        die_with_requests(server)
        wait_for(lambda: any("the server is back" in line for line in told), at_most_s=30)
        assert server.pid != first
        assert server.kept_for_the_dead() == 0
        assert not dead.is_running()
        assert_serves(server)
    kept = "invert_frame: its process died, and 32 MiB of /dev/shm are kept for dead processes"
    assert told[-2] == f"{kept}; starting the server again."


FULL = """
import os, sys
from pathlib import Path
from server.launcher import EmbeddedServer
from server.watchdog import Watchdog
from tests.server.test_launcher import assert_serves, model_processes, wait_for

told = []
with (
    EmbeddedServer(Path(sys.argv[1]), models=["invert_twice"], one_process=False) as server,
    Watchdog(server, told.append),
):
    assert_serves(server)
    model_processes(server)[0].kill()
    wait_for(lambda: any("the server is back" in line for line in told), at_most_s=60)
    assert_serves(server)
print(told[0])
"""


def test_where_a_dead_models_memory_leaves_no_room_the_server_starts_again(
    tiny_repository: Path,
) -> None:
    told = run_in_small_memory(FULL, str(tiny_repository), mebibytes=24)
    assert re.search(r"died, and 16 MiB of /dev/shm are kept for dead .*server again\.$", told)


def test_a_killed_server_comes_back_on_its_ports(
    watched: tuple[EmbeddedServer, list[str]],
) -> None:
    server, told = watched
    url = server.grpc_url
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: any("the server is back" in line for line in told), at_most_s=30)
    assert server.grpc_url == url
    assert_serves(server)
    assert told[0] == "the server ended: it was ended by SIGKILL; starting the server again."


def test_a_stopped_model_process_is_found_by_the_probe(tiny_repository: Path) -> None:
    told: list[str] = []
    with (
        EmbeddedServer(tiny_repository, models=["invert_twice"], one_process=False) as server,
        Watchdog(server, told.append, probe_interval_s=0.5, probe_timeout_s=2.0),
    ):
        hung = process_of(server, "invert_frame")
        hung.suspend()
        wait_for(lambda: any("back after" in line for line in told), at_most_s=60)
        assert_serves(server)


@pytest.mark.e2e
def test_a_model_that_dies_when_the_cache_is_gone_comes_back_with_the_server(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distribution.prepare().binary.parents[3]

    def unpack(folder: Path) -> Path:
        """As if the wheel were fetched again."""
        if not (folder / real.name).is_dir():
            link_tree(real, folder / real.name)
        return folder / real.name

    monkeypatch.setattr(distribution, "_unpack_server", unpack)
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    with (
        EmbeddedServer(tiny_repository, models=["invert_twice"], one_process=False) as server,
        Watchdog(server, told.append),
    ):
        url = server.grpc_url
        shutil.rmtree(tmp_path / "cache")
        assert_serves(server)
        process_of(server, "invert_frame").kill()
        wait_for(lambda: any("the server is back" in line for line in told), at_most_s=60)
        assert server.grpc_url == url
        assert_serves(server)
    assert told[1] == "the server's files are gone from the cache; starting the server again."


def test_a_server_at_work_is_not_taken_for_dead(
    watched: tuple[EmbeddedServer, list[str]],
) -> None:
    server, told = watched
    asker = Asker(server.grpc_url)
    begun = time.monotonic()
    while time.monotonic() - begun < 3:
        asker.ask_together(
            "invert_twice", [{"frame": FRAME, "options": NO_OPTIONS} for _ in range(64)]
        )
    asker.client.close()
    assert told == []


def test_probing_the_ensembles_probes_every_model(tiny_server: EmbeddedServer) -> None:
    assert top_models(tiny_server.repository.configs) == [
        "invert_i420",
        "invert_twice",
        "tint_faces",
    ]
