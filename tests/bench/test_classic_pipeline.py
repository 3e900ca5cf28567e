"""The classic way does the same job as the served graphs: only then is comparing speeds fair."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from frameswap.photo import read_photo

from bench.classic_landmarks import hull_mask
from bench.classic_pipeline import (
    CLASSIC_DETECTORS,
    ClassicSwapper,
    StageTimes,
    describe_report,
    main,
    swap_video,
)
from bench.peer_way import make_box_mask
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path
from fetching import weights
from graphs import face_blender, image_swapper
from graphs.contract import OPTION_COUNT
from networks.detectors import DETECTORS
from networks.landmarkers import DEFAULT_LANDMARKER
from networks.swappers import SWAPPERS
from tests.graphs.chains import make_chain
from tests.graphs.evaluation import open_session
from tests.reference import blending

FRAMES = 6


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return read_photo(photo_path("newton"))


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "gauss.mp4"
    write_clip(path, clip_of("gauss", width=320, height=240, frames=FRAMES))
    return path


def swap_with_graphs(frame: np.ndarray, source: np.ndarray) -> np.ndarray:
    """One BGR frame through this project's graphs, as contract 1 had it: no mesh, the box."""
    row = SWAPPERS["image_swapper_256"]
    network = weights.load_network("yunet")
    chain = make_chain("bgr", DETECTORS["yunet"], network, swapper=row, runtime="onnxruntime")
    options = np.zeros((1, OPTION_COUNT), np.float32)

    def detect(image: np.ndarray) -> list[np.ndarray]:
        answer = chain.run(image[None], options)
        return [answer[name] for name in ("faces", "crops", "warps")]

    faces, crops, warps = detect(frame)
    swapper = open_session(image_swapper.build_network(row.crop_size))
    swapped = swapper.run(None, {"target": crops[0], "source": detect(source)[1][0]})[0][None]
    blender = open_session(face_blender.build("bgr", row.crop_size, method="regions"))
    masks = blending.box_mask(row.crop_size).astype(np.float32)[None, None, None]
    feeds = {
        "frame": frame[None], "swapped_crops": swapped, "masks": masks, "warps": warps,
        "faces": faces, "options": options,
    }  # fmt: skip
    return blender.run(None, feeds)[0][0]


def test_its_mask_is_the_blenders() -> None:
    # The blender's profile is float32 and one-dimensional: errors of rounding.
    np.testing.assert_allclose(make_box_mask(256), blending.box_mask(256), atol=1e-6)


def test_a_frame_comes_out_like_the_graphs(source: np.ndarray) -> None:
    frame = clip_of("gauss", width=640, height=360).frame(3)
    expected = swap_with_graphs(frame, source)
    swapped = frame.copy()
    assert ClassicSwapper(source, threads=1).swap(swapped)
    changed = (expected != frame).any(axis=2)
    assert 0.05 < changed.mean() < 0.6
    difference = np.abs(swapped.astype(int) - expected.astype(int))[changed]
    # OpenCV's uint8 resize and warp round to a 32nd of a pixel: YuNet's landmarks move by some
    # tenths of a pixel, which the painting's sharp edges show. A wrong matrix, channel order or
    # mask costs tens of levels.
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 16


def test_a_video_keeps_its_frames_and_sound(
    source: np.ndarray, clip_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    report = swap_video(source, clip_file, output, threads=1)
    assert (report.frames, report.faces) == (FRAMES, FRAMES)
    with av.open(str(output)) as after, av.open(str(clip_file)) as before:
        times = [[f.pts * f.time_base for f in c.decode(video=0)] for c in (after, before)]
    assert times[0] == times[1]
    with av.open(str(output)) as after, av.open(str(clip_file)) as before:
        sound = [[bytes(p) for p in c.demux(audio=0)] for c in (after, before)]
    assert sound[0] == sound[1]
    assert sum(report.stages.values()) <= report.seconds
    assert f"{FRAMES} frames, {FRAMES} faces" in describe_report(report)


def test_a_frame_without_a_face_is_left_alone(source: np.ndarray) -> None:
    frame = np.full((120, 200, 3), 90, np.uint8)
    untouched = frame.copy()
    assert not ClassicSwapper(source, threads=1).swap(frame)
    np.testing.assert_array_equal(frame, untouched)


def test_a_source_without_a_face_is_refused() -> None:
    with pytest.raises(ValueError, match="the source photo shows no face"):
        ClassicSwapper(np.zeros((100, 100, 3), np.uint8), threads=1)


def test_stages_add_up() -> None:
    times = StageTimes()
    for _ in range(2):
        with times.measure("first"):
            pass
    with pytest.raises(KeyError, match="lost"), times.measure("second"):
        raise KeyError("lost")
    assert list(times.seconds) == ["first", "second"]
    assert all(seconds >= 0 for seconds in times.seconds.values())


def test_the_command_prints_every_stage(
    clip_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--source", str(photo_path("newton")), "--target", str(clip_file)]
    assert main([*files, "--output", str(tmp_path / "out.mp4"), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    for stage in ("decode", "letterbox", "detector network", "warp", "swapper network", "paste",
                  "encode"):  # fmt: skip
        assert f"  {stage} " in printed


def test_every_detector_it_offers_is_known() -> None:
    assert set(CLASSIC_DETECTORS) <= set(DETECTORS)


def test_landmarks_refine_the_five_and_bound_the_mask() -> None:
    photo = read_photo(photo_path("gauss"))
    swapper = ClassicSwapper(photo, landmarker=DEFAULT_LANDMARKER, threads=1)
    found = swapper._largest_face(photo)
    assert found is not None
    box, detected = found
    five, points = swapper._refine(photo, box, detected)
    assert points is not None
    side = float((box[2:] - box[:2]).max())
    # Two networks mean slightly other places by an eye or a nose.
    np.testing.assert_allclose(five, detected, atol=0.1 * side)
    assert np.abs(points - points.mean(axis=0)).max() < 0.8 * side
    mask = hull_mask(points, swapper._fit(five), 256)
    assert mask[140, 128] == pytest.approx(1, abs=0.01)
    assert mask[:4].max() < 0.1
    alone = ClassicSwapper(photo, threads=1)
    assert alone._refine(photo, box, detected)[1] is None
