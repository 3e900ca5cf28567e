"""What a job tells of each frame, and what its exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from commands import arguments
from fake_server import FakeServer
from frameswap import UnwritableFile
from frameswap.report import Tally
from test_jobs import FRAMES, clip, cut_short, swap  # noqa: F401


def test_the_report_tells_of_each_frame_also_of_an_interrupted_job(
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    swap(server, clip, tmp_path / "whole.mp4", report=tmp_path / "whole.jsonl")
    cut_short(server, clip, tmp_path / "out.mp4", after=20)
    swap(server, clip, tmp_path / "out.mp4", report=tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines == (tmp_path / "whole.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["frame"] for row in rows[:-1]] == list(range(FRAMES))
    assert rows[3]["time_s"] == 0.1
    assert rows[0]["faces"][0]["swapped"] is True
    assert rows[0]["faces"][0]["score"] == 0.9
    assert rows[-1] == {"summary": {
        "frames": FRAMES, "faces": FRAMES, "frames_without_face": 0, "drop_outs": 0,
        "longest_drop_out": 0, "left": {},
    }}  # fmt: skip


def test_why_a_face_was_not_swapped_is_reported(
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    server.behavior.faces = 2
    swap(server, clip, tmp_path / "two.mp4", report=tmp_path / "two.jsonl")
    first = json.loads((tmp_path / "two.jsonl").read_text().splitlines()[0])
    assert [face["swapped"] for face in first["faces"]] == [True, False]
    assert first["why_not"] == "1 more than --faces 1"
    server.behavior.faces = 0
    swap(server, clip, tmp_path / "none.mp4", report=tmp_path / "none.jsonl")
    first = json.loads((tmp_path / "none.jsonl").read_text().splitlines()[0])
    assert (first["faces"], first["why_not"]) == ([], "no face was found")


def test_drop_outs_are_runs_between_faces() -> None:
    tally = Tally()
    for faces in [0, 0, 1, 0, 1, 0, 0, 0, 2, 0]:
        tally.add(faces)
    assert (tally.drop_outs, tally.longest_drop_out, tally.frames_without_face) == (2, 3, 7)


def damaged_clip(path: Path) -> Path:
    """48 frames, of which FFmpeg marks some as damaged."""
    options = {"crf": "20", "preset": "ultrafast"}
    write_clip(path, Clip(frames=48, width=320, height=240, options=options))
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(3).integers(3000, len(content) - 5000, 60):
        content[place] ^= 0x55
    path.write_bytes(content)
    return path


def marked_by_ffmpeg(path: Path) -> tuple[list[bool], int]:
    """Of each frame that comes out of the decoder, in the order of showing, whether it is marked;
    and how many packets nothing came out of."""
    marked, lost = [], 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            try:
                marked += [bool(frame.is_corrupt) for frame in packet.decode()]
            except av.error.InvalidDataError:
                lost += 1
    return marked, lost


def test_damaged_frames_are_marked_in_the_report_also_of_an_interrupted_job(
    server: FakeServer, tmp_path: Path
) -> None:
    path = damaged_clip(tmp_path / "in.mp4")
    marked, lost = marked_by_ffmpeg(path)
    assert 0 < sum(marked) < len(marked)
    cut_short(server, path, tmp_path / "out.mp4", after=20)
    notes: list[str] = []
    swap(server, path, tmp_path / "out.mp4", report=tmp_path / "out.jsonl", on_notes=notes.extend)
    *rows, summary = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert [row.get("corrupt", False) for row in rows] == marked
    assert summary["summary"]["frames"] == len(marked)
    assert f"{sum(marked) + lost} frames of in.mp4 are damaged" in " ".join(notes)


def find(server: FakeServer, faces: dict[str, int]) -> None:
    """Have so many faces found in frames of a kind, and one in sources."""

    def choose(value: int, context: object) -> None:
        model = server.places[-1][0]
        kind = "source" if model.startswith("encode") else model.rpartition("_")[2]
        server.behavior.faces = faces.get(kind, 1)

    server.behavior.fail = choose


@pytest.mark.parametrize(("faces", "code"), [(0, 1), (1, 0)])
def test_a_file_without_a_face_ends_with_1_where_one_is_required(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path,  # noqa: F811
    faces: int, code: int,
) -> None:  # fmt: skip
    for target, name in ((clip, "out.mp4"), (photo, "out.png")):
        words = arguments(photo, target, tmp_path / name, server)
        find(server, {"i420": faces, "bgr": faces})
        found, _, err = run(*words, "--require-face")
        assert found == code
        assert ("no face was found" in err) == bool(code)
        # What the input shows is written all the same.
        assert (tmp_path / name).exists()
        assert run(*words, "--force")[0] == 0


def test_of_a_folder_each_file_without_a_face_is_named(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    (tmp_path / "in").mkdir()
    clip.rename(tmp_path / "in" / "a.mp4")
    cv2.imwrite(str(tmp_path / "in" / "b.png"), np.full((80, 96, 3), 90, np.uint8))
    find(server, {"i420": 0})
    words = arguments(photo, tmp_path / "in", tmp_path / "out", server)
    code, out, _ = run(*words, "--require-face")
    assert code == 1
    assert "2 files: 1 done, 1 failed" in out
    assert f"  {tmp_path}/in/a.mp4: no frame had a face (--require-face)" in out
    assert len(read_contents(tmp_path / "out" / "a.mp4").frames) == FRAMES


def test_of_a_folder_each_video_has_a_report_of_its_own(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "in" / "day").mkdir(parents=True)
    for name, frames in (("a.mp4", 3), ("day/b.mp4", 5)):
        write_clip(tmp_path / "in" / name, Clip(frames=frames))
    words = arguments(photo, tmp_path / "in", tmp_path / "out", server)
    assert run(*words, "--report", tmp_path / "reports")[0] == 0
    for name, frames in (("a.mp4", 3), ("day/b.mp4", 5)):
        lines = (tmp_path / "reports" / f"{name}.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["summary"]["frames"] == frames
    (tmp_path / "file").write_text("")
    code, _, err = run(*words, "--report", tmp_path / "file")
    assert code == 2
    assert "the reports of several files go into a folder" in err


def test_a_report_that_cannot_be_written_is_said_before_the_work(
    server: FakeServer, clip: Path, tmp_path: Path  # noqa: F811
) -> None:
    before = server.requests
    with pytest.raises(UnwritableFile, match="missing does not exist: create it first"):
        swap(server, clip, tmp_path / "out.mp4", report=tmp_path / "missing" / "out.jsonl")
    assert server.requests == before
