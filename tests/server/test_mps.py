"""NVIDIA's Multi-Process Service, by a program that takes its place."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from server import mps
from server.errors import MpsError
from server.launcher import EmbeddedServer
from tests.server.test_launcher import wait_for

pytestmark = pytest.mark.e2e


def control_program(folder: Path, line: str) -> Path:
    path = folder / mps.CONTROL_NAME
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a control program on PATH was asked, a line a call: options, pipe folder, input."""
    log = tmp_path / "log"
    words = 'if [ "$1" = -d ]; then said=; else said=$(cat); fi'
    control_program(tmp_path, f'{words}; echo "$* $CUDA_MPS_PIPE_DIRECTORY $said" >> {log}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return log


def test_the_daemon_lives_as_long_as_its_server(tiny_repository: Path, log: Path) -> None:
    with EmbeddedServer(tiny_repository, models=["invert_frame"], mps=True) as server:
        joined = dict(server.client_environment)
        assert sorted(joined) == ["CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_PIPE_DIRECTORY"]
        assert all(Path(folder).is_dir() for folder in joined.values())
        pipe = joined["CUDA_MPS_PIPE_DIRECTORY"]
        assert log.read_text().split() == ["-d", pipe]
        assert oct(Path(pipe).parents[1].stat().st_mode & 0o777) == "0o700"
    assert log.read_text().splitlines()[1].split() == [pipe, "quit", "-t", "5"]
    assert not Path(pipe).exists()
    assert server.client_environment == {}


def test_a_server_started_again_has_a_daemon_again(tiny_repository: Path, log: Path) -> None:
    with EmbeddedServer(tiny_repository, models=["invert_frame"], mps=True) as server:
        server.restart()
        assert [line.split()[0] == "-d" for line in log.read_text().splitlines()] == [
            True, False, True,
        ]  # fmt: skip


def test_the_daemon_of_a_keeper_that_was_killed_is_ended_by_the_next_stop(
    tiny_repository: Path, log: Path
) -> None:
    with EmbeddedServer(tiny_repository, models=["invert_frame"], mps=True) as server:
        pipe = server.client_environment["CUDA_MPS_PIPE_DIRECTORY"]
        keeper = psutil.Process(server.pid).parent()
        assert keeper is not None
        keeper.kill()
        wait_for(lambda: not server.is_running)
    assert log.read_text().splitlines()[1].split() == [pipe, "quit", "-t", "5"]
    assert not Path(pipe).exists()


def test_without_the_program_the_start_is_refused(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "find_control", lambda: None)
    server = EmbeddedServer(tiny_repository, models=["invert_frame"], mps=True)
    with pytest.raises(MpsError, match="there is no nvidia-cuda-mps-control on PATH"):
        server.start()
    assert not server.is_running


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    failing = control_program(tmp_path, "echo no rights >&2; exit 1")
    with pytest.raises(MpsError, match="does not start: no rights"):
        mps.start_daemon(tmp_path / "mps", failing)
    with pytest.raises(MpsError, match="too long a path"):
        mps.start_daemon(tmp_path / ("long" * 30), failing)


def test_the_driver_tools_folder_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(mps, "DRIVER_TOOLS", tmp_path)
    assert mps.find_control() is None
    control = control_program(tmp_path, "exit 0")
    assert mps.find_control() == control
