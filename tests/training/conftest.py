"""These tests need PyTorch, which nothing else of the project does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

MISSING = (
    "tests/training needs PyTorch: install requirements/training.lock (`make training` does), "
    'or leave these tests out with -m "not training"'
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without PyTorch: nothing to collect where they are deselected, else a plain refusal."""
    if collection_path.suffix != ".py" or importlib.util.find_spec("torch") is not None:
        return None
    asked = config.option.markexpr
    if asked and ("training" not in asked or "not training" in asked):
        return True
    raise pytest.UsageError(MISSING)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """More threads gain nothing on such small networks, and wait for each other on busy cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of drawn faces with two small random judges."""
    import drawn_faces

    return drawn_faces.write_data(tmp_path_factory.mktemp("faces"))
