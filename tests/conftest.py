"""Fixtures shared by every test folder."""

from __future__ import annotations

import os
import signal

import pytest

from engines.devices import visible_gpus


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
