"""face_aligner's judgement, and what it hands to each slot, against NumPy."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime as ort
import pytest

from graphs import face_aligner
from graphs.alignment import TEMPLATES
from graphs.contract import MAX_DETECTIONS, MAX_VIEWS, Option, Verdict
from networks.face_points import MEDIAPIPE_POINTS
from networks.landmarkers import LANDMARKERS
from networks.swappers import SWAPPERS
from tests.graphs.evaluation import open_session
from tests.reference import detection
from tests.reference import landmarks as landmark_reference
from tests.reference.heads import head

ROW = SWAPPERS["inswapper_128"]
TEMPLATE = TEMPLATES[ROW.template] * ROW.crop_size
MESH = LANDMARKERS["face_mesh_attention"]
PLACES = np.array([point.place for point in MESH.pose_points]) * [1, -1, -1]
WEIGHTS = np.array([point.weight for point in MESH.pose_points])
INDEX = [point.index for point in MESH.pose_points]
RUNTIMES = ("tensorrt", "onnxruntime")


@functools.cache
def session(runtime: str = "tensorrt") -> ort.InferenceSession:
    return open_session(
        face_aligner.build("bgr", ROW, landmarker=MESH, runtime=runtime)  # type: ignore[arg-type]
    )


def face(x: float, y: float, side: float, seed: int = 0, score: float = 0.9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, (5, 2))
    points = (TEMPLATES["ffhq_512"] + noise - 0.5) * side + [x, y]
    half = side / 2
    return np.array([x - half, y - half, x + half, y + half, score, *points.ravel()], np.float32)


def make_request(rows: list[np.ndarray], *, slots: int = 1) -> dict[str, np.ndarray]:
    faces = np.zeros((1, MAX_DETECTIONS, 15), np.float32)
    faces[0, : len(rows)] = rows
    frame = np.random.default_rng(3).integers(0, 256, (1, 180, 240, 3), dtype=np.uint8)
    return {
        "frame": frame,
        "faces": faces,
        "landmarks": np.zeros((1, MAX_VIEWS, MEDIAPIPE_POINTS, 3), np.float32),
        "source": np.ones((1, slots, ROW.source_length), np.float32),
        "options": np.zeros((1, 16), np.float32),
    }


def run(request: dict[str, np.ndarray], runtime: str = "tensorrt") -> dict[str, np.ndarray]:
    names = [value.name for value in session(runtime).get_outputs()]
    return dict(zip(names, session(runtime).run(names, request), strict=True))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("limit", [0.0, 30.0, 180.0])
def test_a_face_that_looks_away_is_left(runtime: str, limit: float) -> None:
    angles = [(0, 0), (40, 0), (-28, 20), (80, 0)]
    request = make_request([face(100, 90, 80, seed) for seed in range(4)], slots=4)
    for slot, (yaw, pitch) in enumerate(angles):
        request["landmarks"][0, slot] = head(yaw, pitch)
    request["options"][0, Option.POSE_LIMIT] = limit
    pose = np.array(
        [
            landmark_reference.pose(points[INDEX, :2].astype(np.float64), PLACES, WEIGHTS)
            for points in request["landmarks"][0]
        ]
    )
    np.testing.assert_allclose(pose[:, :2], angles, atol=0.1)
    answer = run(request, runtime)
    expected = detection.judge(
        request["faces"][0], 4, TEMPLATE, pose=pose, options=request["options"][0]
    )
    np.testing.assert_array_equal(answer["verdicts"][0], expected)
    left = expected[:4] == Verdict.LOOKS_AWAY
    assert left.sum() == {0.0: 1, 30.0: 3, 180.0: 0}[limit]
    for name in ("crops", "warps", "slot_landmarks", "chosen_faces"):
        shown = answer[name][0][:4].reshape(4, -1).any(axis=1)
        np.testing.assert_array_equal(shown, ~left)


@pytest.mark.parametrize("slots", [1, 3, 4, 6, 16])
def test_every_slot_gets_its_own_landmarks_whatever_f_is(slots: int) -> None:
    rows = [face(60 + 8 * k, 90, 60, k) for k in range(8)]
    request = make_request(rows, slots=slots)
    for row in range(MAX_VIEWS):
        request["landmarks"][0, row] = head(0, 0) + row
    answer = run(request)
    expected = np.zeros((slots, MEDIAPIPE_POINTS, 3), np.float32)
    both = min(slots, MAX_VIEWS)
    expected[:both] = request["landmarks"][0, :both]
    np.testing.assert_array_equal(answer["slot_landmarks"][0], expected)
    chosen = min(slots, 8)
    np.testing.assert_array_equal(
        answer["chosen_faces"][0, :chosen], request["faces"][0, :chosen]
    )
    assert not answer["chosen_faces"][0, chosen:].any()
    verdicts = [Verdict.SWAPPED] * chosen + [Verdict.NO_SLOT] * (8 - chosen) + [0] * 8
    np.testing.assert_array_equal(answer["verdicts"][0], verdicts)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_source_of_zeros_is_none(runtime: str) -> None:
    request = make_request([face(60 + 8 * k, 90, 60, k) for k in range(5)], slots=4)
    request["source"][0, [0, 3]] = 0
    request["source"][0, 2] = -1e-6
    answer = run(request, runtime)
    none, swapped = Verdict.NO_SLOT, Verdict.SWAPPED
    verdicts = [none, swapped, swapped, none, none, *[0] * 11]
    np.testing.assert_array_equal(answer["verdicts"][0], verdicts)
    for name in ("crops", "warps", "chosen_faces"):
        shown = answer[name][0][:4].reshape(4, -1).any(axis=1)
        np.testing.assert_array_equal(shown, [False, True, True, False])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("slots", [1, 5])
def test_a_hole_between_faces_is_an_empty_slot(runtime: str, slots: int) -> None:
    rows = [np.zeros(15, np.float32), face(70, 80, 60), np.zeros(15), face(150, 100, 70, 1)]
    request = make_request(rows, slots=slots)
    answer = run(request, runtime)
    aligned = detection.align_faces(
        request["frame"][0], "bgr", request["faces"][0], slots, TEMPLATE, ROW.crop_size,
        request["options"][0],
    )  # fmt: skip
    np.testing.assert_allclose(answer["warps"][0], aligned.warps, atol=1e-3)
    # noise, which a hundredth of a pixel moves by some levels
    np.testing.assert_allclose(answer["crops"][0], aligned.crops, atol=0.02)


BROKEN = {
    "NaN in a landmark": (7, np.nan),
    "infinity in the box": (0, np.inf),
    "NaN for a score": (4, np.nan),
    "a position of no frame": (9, 1e9),
}


@pytest.mark.parametrize("name", BROKEN)
def test_numbers_that_are_none_leave_their_own_row(name: str) -> None:
    column, value = BROKEN[name]
    request = make_request([face(100, 90, 80), face(150, 100, 60, 1)], slots=2)
    request["faces"][0, 0, column] = value
    answer = run(request)
    np.testing.assert_array_equal(answer["verdicts"][0, :2], [Verdict.MISSHAPEN, 0])
    assert not answer["crops"][0, 0].any()
    assert answer["crops"][0, 1].any()
    for name in ("crops", "warps", "chosen_faces", "slot_landmarks"):
        assert np.isfinite(answer[name]).all()


def test_a_mesh_of_no_numbers_fits_no_face() -> None:
    request = make_request([face(100, 90, 80)])
    request["landmarks"][0, 0, 17, 1] = np.nan
    answer = run(request)
    assert answer["verdicts"][0, 0] == Verdict.MISSHAPEN
    assert np.isfinite(answer["slot_landmarks"]).all()


def test_refused_options_are_told_by_verdicts_that_are_no_numbers() -> None:
    request = make_request([face(100, 90, 80)])
    request["options"][0, Option.MASKS] = 9
    answer = run(request)
    assert np.isnan(answer["verdicts"]).all()
    for name in ("crops", "warps", "chosen_faces", "slot_landmarks"):
        assert not answer[name].any()
