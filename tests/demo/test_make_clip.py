"""The clip's motion is known: what it says of a point is where the point is seen."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from demo.make_clip import AUDIO_RATE_HZ, Clip, clip_of, main, write_clip

DOTS = np.array([[350.0, 290.0], [490.0, 310.0], [420.0, 400.0]])


@pytest.fixture(scope="module")
def dotted() -> Clip:
    """Three soft white dots on black, each a Gaussian whose centroid is its centre."""
    ys, xs = np.mgrid[0:700, 0:800]
    photo = sum(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 9.0**2)) for x, y in DOTS)
    image = np.repeat(np.rint(255 * photo).astype(np.uint8)[..., None], 3, axis=2)
    return Clip(image, (420.0, 340.0), 400.0, frames=24)


def centroids(frame: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    """Centre of brightness within `reach` pixels of each of `near`, (n, 2) x y."""
    found = []
    for x, y in near:
        left, top = round(x) - reach, round(y) - reach
        window = frame[top : top + 2 * reach + 1, left : left + 2 * reach + 1, 0].astype(float)
        ys, xs = np.mgrid[0 : window.shape[0], 0 : window.shape[1]]
        total = window.sum()
        found.append([left + (xs * window).sum() / total, top + (ys * window).sum() / total])
    return np.array(found)


@pytest.mark.parametrize("face_share", [0.45, 0.9], ids=["shrunk", "enlarged"])
def test_points_of_the_picture_are_seen_where_the_clip_says(
    dotted: Clip, face_share: float
) -> None:
    clip = replace(dotted, face_share=face_share, height=720, width=1280)
    for index in range(0, clip.frames, 5):
        expected = clip.landmarks(index, DOTS)
        scale = np.hypot(*clip.affine(index)[:, 0])
        seen = centroids(clip.frame(index), expected, reach=round(27 * scale))
        # Grey levels are whole numbers and warpAffine's fractions are 1/32 px; seen: 0.05 px.
        np.testing.assert_allclose(seen, expected, atol=0.1)


def test_the_motion_is_as_large_as_it_claims_and_closes_its_loop() -> None:
    clip = clip_of("gauss", frames=96)
    affines = np.array([clip.affine(index) for index in range(97)])
    scales = np.hypot(affines[:, 0, 0], affines[:, 1, 0])
    degrees = np.degrees(np.arctan2(affines[:, 1, 0], affines[:, 0, 0]))
    assert scales.max() / scales.min() == pytest.approx(1.4, rel=1e-3)
    assert np.abs(degrees).max() == pytest.approx(12, abs=0.05)
    np.testing.assert_allclose(affines[0], affines[96], atol=1e-9)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, clip_of("gauss", width=320, height=180, frames=30, fps=25))
    return path


def test_the_file_has_every_frame_at_its_time_and_audio_as_long(written: Path) -> None:
    with av.open(str(written)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        times = [float(frame.pts * video.time_base) for frame in container.decode(video)]
        np.testing.assert_allclose(times, np.arange(30) / 25)
        assert audio.rate == AUDIO_RATE_HZ
        # AAC works in blocks of 1024 samples.
        assert float(audio.duration * audio.time_base) == pytest.approx(30 / 25, abs=1024 / 48_000)


def test_decoding_gives_the_frames_back(written: Path) -> None:
    clip = clip_of("gauss", width=320, height=180, frames=30, fps=25)
    with av.open(str(written)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            # x264 at CRF 18 on a painting: seen 38 dB; a wrong colour matrix costs 10 dB.
            assert cv2.PSNR(frame.to_ndarray(format="bgr24"), clip.frame(index)) > 35


@pytest.mark.parametrize(("height", "space"), [(360, 5), (720, 1)])
def test_the_colour_matrix_is_written_into_the_file(
    height: int, space: int, tmp_path: Path
) -> None:
    # ISO/IEC 23091-2: 1 is BT.709, 5 is BT.601 (625 lines); range 1 is limited.
    write_clip(tmp_path / "c.mp4", clip_of("gauss", width=64, height=height, frames=2), audio=False)
    with av.open(str(tmp_path / "c.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (space, 1)


def test_the_same_arguments_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "clip.mp4"
    write_clip(again, clip_of("gauss", width=320, height=180, frames=30, fps=25))
    first, second = (hashlib.sha256(path.read_bytes()).digest() for path in (written, again))
    assert first == second


def test_the_command_writes_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "c.mp4"
    arguments = ["--photo", "newton", "--size", "128x72", "--frames", "3", "--no-audio"]
    assert main([*arguments, "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    with av.open(str(output)) as container:
        assert container.streams.video[0].frames == 3
        assert not container.streams.audio


def test_an_odd_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--size", "641x360", "--output", str(tmp_path / "c.mp4")])
    assert "must be WIDTHxHEIGHT, both even, not '641x360'" in capsys.readouterr().err
