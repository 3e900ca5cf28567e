"""Command lines of the client's tests."""

from __future__ import annotations

from pathlib import Path

from fake_server import FakeServer


def arguments(photo: Path, target: Path, output: Path, server: FakeServer) -> list[object]:
    return ["swap", "--source", photo, "--target", target, "--output", output,
            "--server", server.address]  # fmt: skip
