"""Who is in a file: which frames are looked at, and what is told of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clips import Clip, write_clip
from fake_server import FakeServer
from frameswap import FaceSwapper, find_persons
from frameswap import __main__ as command_line


@pytest.mark.parametrize(("every_s", "looked_at"), [(0.2, 5), (0.0, 24), (0.5, 2), (10.0, 1)])
def test_as_many_frames_are_looked_at_as_were_announced(
    server: FakeServer, tmp_path: Path, every_s: float, looked_at: int
) -> None:
    """Of 24 frames at 25 a second: at 0.2 s the frames 0, 5, 10, 15 and 20."""
    clip = write_clip(tmp_path / "clip.mp4", Clip(frames=24, rate=25))
    told: list[tuple[int, int | None]] = []
    with FaceSwapper(server.address) as swapper:
        survey = find_persons(
            swapper, clip, every_s=every_s, on_frame=lambda *each: told.append(each)
        )
    assert survey.frames == looked_at
    assert told == [(done, looked_at) for done in range(1, looked_at + 1)]


def test_progress_ends_at_a_hundred_percent(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("frameswap.progress.JSON_INTERVAL_S", 0.0)
    clip = write_clip(tmp_path / "clip.mp4", Clip(frames=24, rate=25))
    sheet = tmp_path / "who.png"
    words = ["faces", str(clip), "--output", str(sheet), "--server", server.address]
    assert command_line.main([*words, "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["frames"], line["total"]) for line in lines] == [(k, 5) for k in range(1, 6)]
