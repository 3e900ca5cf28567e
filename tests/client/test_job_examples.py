"""The examples of docs/jobs.md are run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clips import Clip, read_contents, write_clip
from fake_server import FakeServer
from frameswap import FaceSwapper, FrameswapError, VideoJob
from frameswap.progress import Progress
from test_jobs import SOURCE
from test_swapper import PHOTO

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], example: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mp4", Clip(frames=40))
    exec(example, {"server": server.address, "photo": PHOTO})
    (output,) = [path for path in tmp_path.glob("*.mp4") if path.name != "in.mp4"]
    assert len(read_contents(output).frames) == 40
    assert "40 f" in capsys.readouterr().out


def test_events_end_with_the_final_state(server: FakeServer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", Clip(frames=20))
    with FaceSwapper(server.address) as swapper:
        done = VideoJob(swapper, clip, tmp_path / "out.mp4", [SOURCE]).start()
        events = list(done.events())
        assert (events[-1].state, events[-1].frames, events[-1].total) == ("done", 20, 20)
        failed = VideoJob(swapper, clip, tmp_path / "out.mp4", [SOURCE]).start()
        events = list(failed.events())
        assert events[-1].state == failed.state == "failed"
        assert "exists already" in events[-1].error
        with pytest.raises(FrameswapError, match="exists already"):
            failed.result()


def test_progress_for_programs_is_lines_of_json() -> None:
    import io
    import json

    stream, clock = io.StringIO(), iter([0.0, *[2.0] * 9])
    progress = Progress(10, stream, form="json", clock=lambda: next(clock))
    progress.update(4)
    assert json.loads(stream.getvalue()) == {
        "frames": 4, "total": 10, "elapsed_s": 2.0, "frames_per_s": 2.0, "left_s": 3.0,
    }  # fmt: skip
