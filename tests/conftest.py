"""Fixtures shared by every test folder: one build and one server for the whole run, above all."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.devices import visible_gpus
from server.launcher import EmbeddedServer

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without a GPU; REQUIRE_GPU=1 runs them all the same, so that they fail."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and os.environ.get("REQUIRE_GPU") != "1" and not visible_gpus():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU is visible here"))


def pytest_sessionstart() -> None:
    """Take Ctrl-C where it is ignored, as in a background job of a shell: tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


CHEAP_SWAPPER = "image_swapper_256"
"""The one that costs least, for tests to which any would do."""
FOR_CPU = ("--target", "cpu", "--swapper", CHEAP_SWAPPER)


def build_for_cpu(repository: Path, *options: str) -> None:
    """Run build_engines.py; what `repository` holds already and would come out the same stays.

    options: where they name no swapper, it is the cheap one.
    """
    command = ["build_engines.py", *FOR_CPU, "--repository", str(repository), *options]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(pytestconfig, "workerinput") else own


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Have the first worker that asks make a folder; others wait for it, and only read it."""
    made = folder.with_name(f"{folder.name}.made")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def real_repository(run_folder: Path) -> Path:
    """The project's own models, built for the CPU with the cheap swapper; only to be read."""
    return made_once(run_folder / "model_repository", build_for_cpu)


def build_beside(real_repository: Path, folder: Path, *options: str) -> None:
    """Build a repository in `folder` where only what `options` change is authored anew."""
    shutil.copytree(real_repository, folder, dirs_exist_ok=True)
    build_for_cpu(folder, *options)


@pytest.fixture
def own_repository(real_repository: Path, tmp_path: Path) -> Path:
    """A copy of it, to change or damage."""
    return Path(shutil.copytree(real_repository, tmp_path / "model_repository"))


@pytest.fixture(scope="session")
def real_server(real_repository: Path) -> Iterator[EmbeddedServer]:
    """A server of all of them, a process for each step."""
    with EmbeddedServer(real_repository, one_process=False) as server:
        yield server
