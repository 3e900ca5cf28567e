"""Views of detected faces against NumPy: where they lie, and what is seen in them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.compilers import choose_compiler
from engines.profiles import ProfileLimits, make_profile
from graphs.authoring import GraphAuthor
from graphs.contract import (
    FACE_COLUMNS,
    FACES,
    FRAME,
    FRAME_FORMATS,
    MAX_DETECTIONS,
    OPTIONS,
    FrameFormat,
    TensorSpec,
    frame_spec,
)
from graphs.face_views import frame_views, sample_views
from graphs.pixels import safe_options, valid_options
from graphs.shapes import Op, constant, to_float
from networks.landmarkers import LANDMARKERS, Framing
from tests.graphs.evaluation import evaluate
from tests.reference import landmarks as reference
from tests.reference.geometry import crop_positions
from tests.reference.pixels import read_rgb

# a warp's shift adds numbers of a few thousand pixels in float32
WARP_TOLERANCE = 2e-3
# 2e-3 px of position times a slope of a few levels per pixel, and its rounding
VIEW_TOLERANCE = 2e-3
HEIGHT, WIDTH = 150, 206
FRAMINGS = {name: row.framing for name, row in LANDMARKERS.items() if row.framing is not None}


def face(x: float, y: float, side: float, turn: float = 0.0, score: float = 0.9) -> np.ndarray:
    """A row of `faces`: an upright face in a box, turned by `turn` degrees about its centre."""
    points = (reference.UPRIGHT - 0.5) * side
    points += np.random.default_rng(int(x)).normal(0, side / 50, (5, 2))
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    row = np.zeros(FACE_COLUMNS, np.float32)
    row[:5] = [x - 0.4 * side, y - side / 2, x + 0.4 * side, y + side / 2, score]
    row[5:] = (points @ rotation.T + [x, y]).reshape(-1)
    return row


def detections(*rows: np.ndarray) -> np.ndarray:
    found = np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    found[0, : len(rows)] = rows
    return found


def warps_of(faces: np.ndarray, framing: Framing, size: int, slots: int) -> np.ndarray:
    (found,) = evaluate(
        lambda op, x: frame_views(op, x, constant(op, np.array([slots])), framing, size), faces
    )
    return found


def expected_warp(row: np.ndarray, framing: Framing, size: int) -> np.ndarray:
    return reference.view_warp(
        row, scale=framing.scale, shift=framing.shift, turned=framing.turned, size=size
    )


PLACES = (
    face(1000, 700, 300),
    face(80, 40, 60, turn=-25),
    face(3000, 1500, 900, turn=170),
    face(5, 2000, 8, turn=90),
)


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize("slots", [1, 4, 16])
def test_a_view_lies_as_the_row_says(name: str, slots: int) -> None:
    framing, size = FRAMINGS[name], LANDMARKERS[name].view_size
    assert framing is not None
    assert size is not None
    faces = detections(*PLACES)
    found = warps_of(faces, framing, size, slots)
    assert found.shape == (1, slots, 2, 3)
    for row, warp in zip(faces[0], found[0], strict=False):
        expected = expected_warp(row, framing, size)
        np.testing.assert_allclose(warp[:, :2], expected[:, :2], rtol=0, atol=1e-5)
        np.testing.assert_allclose(warp[:, 2], expected[:, 2], rtol=1e-5, atol=WARP_TOLERANCE)
    assert not found[0, len(PLACES) :].any()


def test_an_upright_face_lies_in_the_middle_and_the_box_fills_what_the_scale_says() -> None:
    framing = Framing(scale=1.5, turned=True)
    row = np.zeros(FACE_COLUMNS, np.float32)
    row[:5] = [100, 100, 300, 340, 1.0]
    row[5:] = (reference.UPRIGHT * 200 + [100, 120]).reshape(-1)
    warp = warps_of(detections(row), framing, 192, 1)[0, 0]
    box = np.array([[100, 100, 1], [300, 340, 1]]) @ warp.T
    np.testing.assert_allclose(box.mean(axis=0), [96, 96], atol=0.01)
    np.testing.assert_allclose(box[1, 1] - box[0, 1], 192 / 1.5, atol=0.01)


def frames_of(frame_format: FrameFormat) -> np.ndarray:
    random = np.random.default_rng(3)
    shape = (1, HEIGHT, WIDTH, 3) if frame_format == "bgr" else (1, HEIGHT * 3 // 2, WIDTH)
    return random.integers(0, 256, shape, dtype=np.uint8)


def views_of(
    frame: np.ndarray,
    frame_format: FrameFormat,
    faces: np.ndarray,
    name: str,
    slots: int,
    *,
    sampled: bool = False,
) -> list[np.ndarray]:
    row, options = LANDMARKERS[name], np.zeros((len(frame), 8), np.float32)

    def piece(op, frame, faces, options):
        frames, count = to_float(op, frame), constant(op, np.array([slots]))
        return list(
            sample_views(
                op, frames, frame_format, options, faces, count, row, sampled=sampled
            )
        )

    return evaluate(piece, frame, faces, options)


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize(
    ("frame_format", "sampled"), [("bgr", False), ("i420", False), ("i420", True)]
)
def test_a_view_shows_the_frame(name: str, frame_format: FrameFormat, sampled: bool) -> None:
    size = LANDMARKERS[name].view_size
    assert size is not None
    # In the frame, half outside it, and far outside.
    faces = detections(face(100, 70, 60, turn=12), face(195, 20, 90, -40), face(900, 900, 50))
    frame = frames_of(frame_format)
    views, warps = views_of(frame, frame_format, faces, name, 4, sampled=sampled)
    assert views.shape == (1, 4, 3, size, size)
    for view, warp in zip(views[0, :3], warps[0, :3], strict=True):
        x, y = crop_positions(warp, size)
        expected = read_rgb(frame[0], frame_format, x, y, np.zeros(8))
        np.testing.assert_allclose(np.moveaxis(view, 0, -1), expected, atol=VIEW_TOLERANCE)
    assert not views[0, 3].any()


HOSTILE = {
    "no score": face(100, 70, 60, score=0.0),
    "NaN score": face(100, 70, 60, score=np.nan),
    "NaN landmark": np.where(np.arange(15) == 9, np.nan, face(100, 70, 60)),
    "infinite box": np.where(np.arange(15) == 2, np.inf, face(100, 70, 60)),
    "all NaN": np.full(15, np.nan),
    "no extent": face(100, 70, 0.0),
    "inside out": np.where(np.arange(15) < 4, -face(100, 70, 60), face(100, 70, 60))[
        [2, 3, 0, 1, *range(4, 15)]
    ],
}


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_face_has_no_view(name: str, case: str) -> None:
    faces = detections(HOSTILE[case].astype(np.float32), face(100, 70, 60))
    views, warps = views_of(frames_of("bgr"), "bgr", faces, name, 2)
    expected = expected_warp(faces[0, 0], FRAMINGS[name], LANDMARKERS[name].view_size)
    if expected.any():
        np.testing.assert_allclose(warps[0, 0], expected, rtol=1e-4, atol=WARP_TOLERANCE)
    else:
        assert not warps[0, 0].any()
        assert not views[0, 0].any()
    # and its neighbour is untouched
    assert views[0, 1].any()
    assert np.isfinite(warps).all()


def test_landmarks_that_are_one_point_leave_the_view_unturned() -> None:
    row = face(100, 70, 60, turn=45)
    row[5:] = np.tile([100, 70], 5)
    warp = warps_of(detections(row), Framing(scale=1.5, turned=True), 256, 1)[0, 0]
    np.testing.assert_allclose(warp[:, :2], np.eye(2) * 256 / 90, atol=1e-5)


def test_a_landmarker_without_a_view_is_refused() -> None:
    faces = detections(face(100, 70, 60))
    with pytest.raises(ValueError, match="fan_68_5 takes landmarks, not a view"):
        views_of(frames_of("bgr"), "bgr", faces, "fan_68_5", 1)


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
def test_a_real_compiler_takes_the_sampler(frame_format: FrameFormat) -> None:
    row = LANDMARKERS["face_landmarker_v2"]
    author = GraphAuthor("views")
    op: Op = author.op
    frame, options = author.input(frame_spec(FRAME, frame_format)), author.input(OPTIONS)
    faces, slots = author.input(FACES), constant(op, np.array([4]))
    views, warps = sample_views(
        op, to_float(op, frame), frame_format, safe(op, options), faces, slots, row
    )
    author.output(views, TensorSpec("views", "float32", (4, 3, 256, 256)))
    author.output(warps, TensorSpec("view_warps", "float32", (4, 2, 3)))
    model = author.finish()
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, ProfileLimits()),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 1000


def safe(op: Op, options: ir.Value) -> ir.Value:
    return safe_options(op, options, valid_options(op, options))
