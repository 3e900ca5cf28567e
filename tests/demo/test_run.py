"""What `make demo` runs, and the picture it draws."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from demo import run
from demo.make_clip import clip_of, write_clip

ROOT = Path(__file__).resolve().parents[2]


def test_faces_are_drawn_where_they_are_and_the_frame_is_kept() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    face = np.array([[50, 20, 110, 90, 0.9, 65, 40, 95, 40, 80, 55, 68, 72, 92, 72]], np.float32)
    drawn = run.draw_faces(frame, face)
    assert not frame.any()
    for x, y in face[0, 5:].reshape(5, 2).astype(int):
        assert tuple(drawn[y, x]) == run.LANDMARK
    for x, y in ((80, 90), (50, 60), (110, 60)):  # on three sides of the box
        assert tuple(drawn[y, x]) == run.FACE_BOX


def test_a_frame_without_faces_is_drawn_as_it_is() -> None:
    frame = np.full((60, 80, 3), 7, np.uint8)
    assert (run.draw_faces(frame, np.zeros((0, 15), np.float32)) == frame).all()


def test_rows_of_panels_of_different_widths_make_one_picture() -> None:
    wide, narrow = np.zeros((90, 160, 3), np.uint8), np.zeros((90, 60, 3), np.uint8)
    panels = [run.panel(image, "title", height=180) for image in (wide, narrow)]
    assert [panel.shape for panel in panels] == [(214, 320, 3), (214, 120, 3)]
    picture = run.compose([panels, [panels[0]]])
    assert picture.shape == (2 * (214 + 8), 320 + 120 + 3 * 8, 3)


def test_the_frames_asked_for_are_read(tmp_path: Path) -> None:
    clip = clip_of("gauss", width=160, height=90, frames=6)
    write_clip(tmp_path / "c.mp4", clip, audio=False)
    second, fifth = run.read_frames(tmp_path / "c.mp4", [1, 4])
    # As in the clip's own test: x264 at CRF 18.
    assert cv2.PSNR(second, clip.frame(1)) > 33
    assert cv2.PSNR(fifth, clip.frame(4)) > 33


def test_a_step_that_fails_stops_the_demo_with_its_name() -> None:
    with pytest.raises(run.StepFailedError, match=r"stopped: build_engines\.py exited with 2"):
        run.run_step("build_engines.py", "--no-such-flag")


@pytest.mark.parametrize(
    ("given", "built"),
    [
        ([], "frameswap_256_small"),
        (["--swapper", "frameswap_256"], "frameswap_256"),
        (["--swapper", "image_swapper_256"], "image_swapper_256"),
    ],
)
def test_the_swapper_asked_for_is_built(
    given: list[str], built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, ...]] = []

    def stop(*command: str) -> None:
        steps.append(command)
        raise run.StepFailedError("stopped here")

    monkeypatch.setattr(run, "run_step", stop)
    assert run.main([*given, "--out", str(tmp_path)]) == 1
    (command,) = steps
    assert command[0] == "build_engines.py"
    assert command[command.index("--swapper") + 1] == built


@pytest.mark.e2e
def test_the_demo_leaves_a_video_a_picture_and_their_paths(
    own_repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished = subprocess.run(
        [sys.executable, "-m", "demo.run", "--repository", str(own_repository), "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    video, picture = out / "demo.mp4", out / "demo.png"
    # The repository was built with another swapper: what does not hold it stays.
    assert re.search(r"^face_swapper .*built$", finished.stdout, re.MULTILINE)
    assert re.search(r"^face_recognizer .*unchanged$", finished.stdout, re.MULTILINE)
    assert finished.stdout.endswith(f"the video:   {video}\nthe picture: {picture}\n")
    with av.open(str(video)) as container:
        assert container.streams.video[0].frames == 96
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    drawn = cv2.imread(str(picture))
    assert drawn.shape[1] > 1200
    # The boxes around the faces found, in the two upper panels that have them.
    green = (drawn == run.FACE_BOX).all(axis=2)
    assert green[:400].any()
