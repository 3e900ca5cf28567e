"""docs/files.md: every command and the library's example run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, write_clip
from fake_server import FakeServer
from frameswap.encoders import ENCODERS, VIDEO_SUFFIXES
from frameswap.photo import PHOTO_SUFFIXES

TEXT = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
OUTPUT = re.compile(r"--output ([\w.%-]+)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the document names, and our programs first on the path."""
    image = np.full((80, 96, 3), 90, np.uint8)
    for name in ("person.jpg", "group.jpg", "frame_0001.png", "frame_0002.png", "holiday/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image)
    write_clip(tmp_path / "party.mp4", Clip(width=96, height=64))
    shutil.copy(tmp_path / "party.mp4", tmp_path / "damaged.mp4")
    write_clip(
        tmp_path / "hdr.mp4",
        Clip(pixel_format="yuv420p10le", transfer=16, matrix=9, primaries=9, frames=3,
             options={"preset": "ultrafast"}),
    )  # fmt: skip
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_does_what_it_says(
    server: FakeServer, folder: Path, command: str
) -> None:
    given = command.replace("frameswap swap", f"frameswap swap --server {server.address}")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", given], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    named = OUTPUT.search(command)
    if named and named[1] != "-":
        assert (folder / named[1].replace("%04d", "0001")).exists()


def test_the_librarys_example_runs(folder: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "copy.webm").stat().st_size > 0


def test_every_format_and_encoder_is_named() -> None:
    # .jpeg and .tif are other spellings.
    for suffix in {*VIDEO_SUFFIXES, *PHOTO_SUFFIXES} - {".jpeg"}:
        assert f"`{suffix}`" in TEXT
    for name in ENCODERS.keys() - {"png", "mjpeg", "y4m"}:
        assert name in TEXT
