"""What a job refuses before, or at, its start: one sentence, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, read_contents, write_clip
from commands import arguments
from fake_server import FakeServer


def make_bad(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"bad_{kind}"
    if kind == "empty.png":
        path.touch()
    elif kind == "text.png":
        path.write_text("not a picture")
    elif kind == "cut.png":
        noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes()[:5000])
    elif kind == "folder.png":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing.png", "there is no file"),
        ("empty.png", "is empty"),
        ("text.png", "is damaged, cut off, or no picture"),
        ("cut.png", "is damaged, cut off, or no picture"),
        ("folder.png", "is a folder: give the photos in it one by one"),
    ],
)
def test_a_bad_source_is_one_sentence(
    run, server: FakeServer, clip: Path, tmp_path: Path, kind: str, text: str
) -> None:
    source = make_bad(kind, tmp_path)
    code, out, err = run(*arguments(source, clip, tmp_path / "out.mp4", server))
    assert (code, out) == (1, "")
    assert text in err
    assert source.name in err
    assert len(err.splitlines()) == 1
    assert server.requests == 0


@pytest.mark.parametrize("kind", ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "folder"])
def test_a_bad_target_is_one_sentence(
    run, server: FakeServer, photo: Path, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / kind
    expected = {
        "missing.mp4": "there is no file",
        "empty.mp4": "is empty",
        "text.mp4": "is no video that FFmpeg reads",
        "sound.mp4": "has no video stream (it has audio)",
        "folder": "is a folder",
    }[kind]
    if kind == "empty.mp4":
        target.touch()
    elif kind == "text.mp4":
        target.write_text("not a video" * 100)
    elif kind == "folder":
        target.mkdir()
    elif kind == "sound.mp4":
        import av

        with av.open(str(target), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "stereo")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    code, out, err = run(*arguments(photo, target, tmp_path / "out.mp4", server))
    assert (code, out) == (1, "")
    assert expected in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


def test_a_cut_off_video_leaves_nothing_behind(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    clip = write_clip(
        tmp_path / "in.mp4", Clip(frames=120, container_options={"movflags": "faststart"})
    )
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "cut off" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.png", "in.mp4"]


def test_an_output_that_exists_is_kept_unless_forced(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    code, _, err = run(*arguments(photo, clip, output, server))
    assert code == 1
    assert "exists already: choose another name, or overwrite it with --force" in err
    assert output.read_bytes() == b"precious"
    assert run(*arguments(photo, clip, output, server), "--force")[0] == 0
    assert len(read_contents(output).frames) == 12


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("out.mpg", "to standard output (-), not '.mpg'"),
        ("out", "a video is written as .mp4, .m4v, .mov, .mkv, .ts, .avi, .webm, .gif,"),
        ("none/out.mp4", "does not exist: create it first"),
    ],
)
def test_an_output_that_cannot_be_is_said_before_any_work(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path, name: str, text: str
) -> None:
    code, _, err = run(*arguments(photo, clip, tmp_path / name, server))
    assert code == 1
    assert text in err
    assert server.requests == 0


def test_a_photo_for_a_video_name_is_said(
    run, server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    code, _, err = run(*arguments(photo, photo, tmp_path / "out.mp4", server))
    assert code == 1
    assert ".webp, .tif, .tiff, .bmp, .avif, not '.mp4'" in err


def test_a_source_without_a_face_names_the_file_and_what_helps(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    server.behavior.faces = 0
    code, _, err = run(*arguments(photo, clip, tmp_path / "out.mp4", server))
    assert code == 1
    assert "face.png: no face was found" in err
    assert "--score-threshold" in err


def test_a_source_with_two_faces_names_the_file_and_what_helps(
    run, server: FakeServer, photo: Path, clip: Path, tmp_path: Path
) -> None:
    server.behavior.faces = 2
    command = arguments(photo, clip, tmp_path / "out.mp4", server)
    code, _, err = run(*command)
    assert code == 1
    assert "face.png: 2 faces were found" in err
    assert "--source-face" in err
    assert run(*command, "--source-face", "left-to-right")[0] == 0


def test_an_unreachable_server_is_one_sentence(
    run, photo: Path, clip: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        "swap", "--source", photo, "--target", clip, "--output", tmp_path / "out.mp4",
        "--server", "127.0.0.1:1", "--timeout-s", 5,
    )  # fmt: skip
    assert code == 1
    assert "the server at 127.0.0.1:1 cannot be reached" in err
    assert len(err.splitlines()) == 1
