"""Fixtures of the tests of what is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.tiny_models import write_tiny_repository


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_repository(tmp_path_factory.mktemp("tiny"))
