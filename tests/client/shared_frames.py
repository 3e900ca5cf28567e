"""Frames through shared memory that is this test's alone, and none of it left behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from frameswap import FaceSwapper, Source, shared_memory
from frameswap.shared_memory import FOLDER

SOURCE = Source(
    np.float32([1, 2, 3, 4]), "identity", "fake_identity", np.zeros((0, 15), np.float32)
)

OTHER = Source(np.float32([4, 3, 2, 1]), "identity", "fake_identity", SOURCE.faces)


def regions() -> list[Path]:
    return sorted(FOLDER.glob(shared_memory.PREFIX + "*"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names of this test's own, so that clients beside it do not matter; none is left after it."""
    monkeypatch.setattr(shared_memory, "PREFIX", f"frameswap-test-{secrets.token_hex(8)}-")
    yield
    assert regions() == []


def frames(count: int, rows: int = 72) -> Iterator[np.ndarray]:
    for value in range(count):
        yield np.full((rows, 64), value, np.uint8)


def connect(server: FakeServer, **options: object) -> FaceSwapper:
    return FaceSwapper(
        server.address, **{"transport": "system", "in_flight": 4, "timeout_s": 20, **options}
    )
