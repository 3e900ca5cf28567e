"""Fixtures of the tests of what is deployed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.serving import ROOT
from tests.server.tiny_models import write_tiny_repository


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_repository(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def real_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own models, built for the CPU with the default networks."""
    folder = tmp_path_factory.mktemp("model_repository")
    subprocess.run(
        [sys.executable, "build_engines.py", "--target", "cpu", "--repository", str(folder)],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return folder
