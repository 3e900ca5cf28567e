"""Dead models and dead servers come back; a busy server is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from server import distribution
from server.launcher import EmbeddedServer
from server.repository import top_models
from server.watchdog import Watchdog
from tests.server.asking import Asker
from tests.server.test_launcher import assert_serves, model_processes, wait_for
from tests.server.test_odd_paths import link_tree

pytestmark = pytest.mark.e2e

FRAME = np.full((1, 8, 8, 3), 5, np.uint8)
NO_OPTIONS = np.zeros((1, 4), np.float32)

# Detection takes one look (0.25 s); the rest is loading ONNX Runtime, slower on a busy machine.
MODEL_OUTAGE_S = 15.0


@pytest.fixture(scope="module")
def watched_server(tiny_repository: Path) -> Iterator[tuple[EmbeddedServer, list[str]]]:
    told: list[str] = []
    with (
        EmbeddedServer(tiny_repository, models=["invert_twice", "tint_faces"]) as server,
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
        EmbeddedServer(tiny_repository, models=["invert_twice"]) as server,
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
        EmbeddedServer(tiny_repository, models=["invert_twice"]) as server,
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
