"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, write_clip
from fake_server import FakeServer
from frameswap import __main__ as command_line


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), (10, 20, 30), np.uint8))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", Clip())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run one command line in this process: exit code, standard output, standard error."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        try:
            code = command_line.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command
