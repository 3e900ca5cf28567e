"""Fixtures shared by every test folder."""

from __future__ import annotations

import os

import pytest

from engines.devices import visible_gpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without a GPU; REQUIRE_GPU=1 runs them all the same, so that they fail."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and os.environ.get("REQUIRE_GPU") != "1" and not visible_gpus():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU is visible here"))
