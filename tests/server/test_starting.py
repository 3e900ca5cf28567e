"""A start that is broken off, cannot succeed, or meets another one: soon, and in one sentence."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from server import backend_folder, distribution, launcher
from server.errors import StartError
from server.launcher import EmbeddedServer
from tests.server.test_cli import SERVE
from tests.server.test_launcher import assert_serves, gone, shared_memory_of, wait_for

pytestmark = pytest.mark.e2e

SOON_S = 20.0
"""Ten times what it takes on an idle machine, and a fifteenth of the time that loading may take."""

def run_serve(repository: Path, *arguments: str, models_do: str = "") -> subprocess.Popen[str]:
    """`frameswap serve`; each model's process may be made to do something before all else."""
    code = "from server import backend_folder\n"
    code += f"backend_folder.STUB_FILE = {models_do!r} + backend_folder.STUB_FILE\n"
    return subprocess.Popen(
        [
            sys.executable, "-c", code + SERVE, "serve", "--repository", str(repository),
            "--models", "invert_frame", *arguments,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def has_started_a_model(pid: int) -> bool:
    return any(
        "triton_python_backend_stub" in " ".join(each.cmdline())
        for each in psutil.Process(pid).children(recursive=True)
        if each.status() != psutil.STATUS_ZOMBIE
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_start_at_once(
    tiny_repository: Path, number: signal.Signals
) -> None:
    process = run_serve(tiny_repository, models_do="import time; time.sleep(120)\n")
    wait_for(lambda: has_started_a_model(process.pid))
    time.sleep(1.0)
    assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < SOON_S / 4
    assert process.returncode == 128 + number
    assert errors == "frameswap: stopped while the server started\n"
    assert gone(children)
    assert not shared_memory_of(process.pid)


def test_a_models_process_that_dies_at_its_start_is_said_soon(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_folder, "STUB_FILE", "import os; os._exit(3)\n")
    begun = time.monotonic()
    with pytest.raises(StartError, match=r"did not start: .*Stub process .* is not healthy"):
        EmbeddedServer(tiny_repository, models=["invert_frame"]).start()
    assert time.monotonic() - begun < SOON_S


def test_a_models_process_that_dies_before_it_is_heard_of_is_said_soon(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton 24.10 waits for it."""
    prepared = distribution.prepare()
    broken = shutil.copytree(prepared.python_backend, tmp_path / "python")
    (broken / "triton_python_backend_stub").write_text("#!/bin/sh\nexit 3\n")
    fake = replace(prepared, python_backend=broken)
    monkeypatch.setattr(launcher, "prepare", lambda: fake)
    begun = time.monotonic()
    with pytest.raises(StartError, match=r"did not start: .*a model's process died while it start"):
        EmbeddedServer(tiny_repository, models=["invert_frame"]).start()
    assert time.monotonic() - begun < SOON_S


def test_too_few_open_files_are_said_before_anything_is_started(tiny_repository: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from server.launcher import EmbeddedServer\n"
        "EmbeddedServer(Path(sys.argv[1])).start()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_repository)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert re.search(r"StartError: .* 64 open files .*ulimit -n", done.stderr)


def test_a_soft_limit_of_open_files_is_raised(tiny_repository: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1024:
        pytest.skip("the hard limit is low here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with EmbeddedServer(tiny_repository, models=["invert_frame"]) as server:
            assert_serves(server)
            limit, _ = psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert limit >= 1024
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_of_two_servers_on_one_port_one_serves(tiny_repository: Path) -> None:
    from server.doors import Doors

    port = str(Doors(grpc_port=0).chosen(tiny_repository).grpc_port)
    both = [run_serve(tiny_repository, "--grpc-port", port) for _ in range(2)]
    try:
        wait_for(lambda: any(each.poll() is not None for each in both), at_most_s=60)
        (loser,) = [each for each in both if each.poll() is not None]
        (winner,) = [each for each in both if each is not loser]
        told, errors = loser.communicate()
        assert loser.returncode == 1
        assert re.search(rf"(port {port}: .*in use|a port of {port} .* was taken)", errors)
        assert "ready" not in told
        assert winner.stdout is not None
        assert any(line.startswith("ready") for line in winner.stdout)
    finally:
        for each in both:
            if each.poll() is None:
                each.send_signal(signal.SIGINT)
            each.communicate(timeout=60)
