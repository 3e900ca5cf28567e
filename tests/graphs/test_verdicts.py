"""Which faces are left as they are, and why: turned, mirrored, broken heads in the aligner."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest

from graphs import face_aligner
from graphs.contract import (
    DEFAULT_POSE_LIMIT,
    FACE_COLUMNS,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    MAX_VIEWS,
    OPTION_COUNT,
    SCORE_COLUMN,
    Option,
    Verdict,
)
from networks.face_points import MEDIAPIPE_POINTS, MEDIAPIPE_POSE
from networks.landmarkers import LANDMARKERS
from networks.swappers import SWAPPERS
from tests.graphs.evaluation import open_session
from tests.reference import heads
from tests.reference.geometry import fit_least_squares
from tests.reference.landmarks import UPRIGHT, pose

LANDMARKER = LANDMARKERS["face_landmarker_v2"]
PLACES = np.array([point.place for point in MEDIAPIPE_POSE]) * [1.0, -1.0, -1.0]
WEIGHTS = np.array([point.weight for point in MEDIAPIPE_POSE])
LEAST_FIT, LEAST_UNSEEN_FIT = 0.6, 0.8
ROLLS = range(0, 360, 15)


@functools.cache
def session() -> onnxruntime.InferenceSession:
    row = SWAPPERS["uniface_256"]
    return open_session(face_aligner.build("bgr", row, landmarker=LANDMARKER))


def five(points: np.ndarray) -> np.ndarray:
    """The five landmarks (5, 2) of 478."""
    return np.array([points[list(group), :2].mean(axis=0) for group in LANDMARKER.five])


def judge(
    points: np.ndarray, *, mesh: bool = True, limit: float = 0.0, eyes: np.ndarray | None = None
) -> tuple[Verdict, dict[str, np.ndarray]]:
    """The verdict on one face of landmarks (478, 3), and what the aligner made of it.

    mesh: give the landmarks, not their five means alone. eyes: other five landmarks (5, 2).
    """
    faces = np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[0, 0, :4] = *points[:, :2].min(axis=0), *points[:, :2].max(axis=0)
    faces[0, 0, SCORE_COLUMN] = 0.9
    faces[0, 0, LANDMARK_COLUMN:] = (five(points) if eyes is None else eyes).reshape(-1)
    landmarks = np.zeros((1, MAX_VIEWS, MEDIAPIPE_POINTS, 3), np.float32)
    if mesh:
        landmarks[0, 0] = points
    options = np.zeros((1, OPTION_COUNT), np.float32)
    options[0, Option.POSE_LIMIT] = limit
    feeds = {
        "frame": np.full((1, 256, 256, 3), 90, np.uint8),
        "faces": faces,
        "landmarks": landmarks,
        "source": np.ones((1, 1, SWAPPERS["uniface_256"].source_length), np.float32),
        "options": options,
    }
    names = ["verdicts", "chosen_faces", "crops", "warps", "slot_landmarks"]
    made = dict(zip(names, session().run(names, feeds), strict=True))
    assert not made["verdicts"][0, 1:].any()
    return Verdict(int(made["verdicts"][0, 0])), made


def explained(points: np.ndarray) -> float:
    """How much of the template's spread a similarity of five points (5, 2) explains."""
    warp = fit_least_squares(points, UPRIGHT)
    left = UPRIGHT - (points @ warp[:, :2].T + warp[:, 2])
    return float(1 - (left**2).sum() / ((UPRIGHT - UPRIGHT.mean(axis=0)) ** 2).sum())


def away(points: np.ndarray) -> float:
    """Degrees between where landmarks (478, 3) look and the camera."""
    index = [point.index for point in MEDIAPIPE_POSE]
    yaw, pitch, _ = np.deg2rad(pose(points[index, :2], PLACES, WEIGHTS))
    return float(np.rad2deg(np.arccos(np.cos(yaw) * np.cos(pitch))))


@pytest.mark.parametrize("roll", ROLLS)
@pytest.mark.parametrize("turn", [(0, 0), (30, 15), (-45, 0), (0, -30)])
def test_a_face_that_leans_any_way_is_swapped(turn: tuple[int, int], roll: int) -> None:
    for mesh in (True, False):
        verdict, made = judge(heads.head(*turn, roll), mesh=mesh)
        assert verdict == Verdict.SWAPPED
        assert made["crops"].any()


@pytest.mark.parametrize("roll", ROLLS)
def test_a_mirrored_face_is_left(roll: int) -> None:
    points = heads.head(15, 5, roll)
    # As seen from behind a pane of glass: the labels of left and right have changed sides.
    mirrored = points * [-1, 1, 1] + [256, 0, 0]
    for mesh in (True, False):
        verdict, made = judge(mirrored, mesh=mesh)
        assert verdict == Verdict.MISSHAPEN
        for name in ("chosen_faces", "crops", "warps", "slot_landmarks"):
            assert not made[name].any(), name


@pytest.mark.parametrize("yaw", [-90, -85, 85, 90, 120, 180])
def test_a_head_seen_from_the_side_or_behind_is_left(yaw: int) -> None:
    for mesh in (True, False):
        verdict, made = judge(heads.head(yaw, 0), mesh=mesh, limit=180 if not mesh else 0)
        assert verdict in (Verdict.LOOKS_AWAY, Verdict.MISSHAPEN)
        assert not made["crops"].any()


@pytest.mark.parametrize(
    ("yaw", "pitch", "limit", "verdict"),
    [
        (40, 0, 0, Verdict.SWAPPED), (60, 0, 0, Verdict.SWAPPED), (60, 0, 50, Verdict.LOOKS_AWAY),
        (0, 35, 30, Verdict.LOOKS_AWAY), (0, -35, 40, Verdict.SWAPPED),
        (30, 30, 40, Verdict.LOOKS_AWAY), (30, 30, 43, Verdict.SWAPPED),
        (5, 0, 4, Verdict.LOOKS_AWAY),
    ],
)  # fmt: skip
def test_the_limit_is_the_angle_between_gaze_and_camera(
    yaw: int, pitch: int, limit: float, verdict: Verdict
) -> None:
    assert judge(heads.head(yaw, pitch, 20), limit=limit)[0] == verdict


def test_verdicts_on_noisy_heads_are_the_formula() -> None:
    random = np.random.default_rng(11)
    seen = set()
    for _ in range(150):
        points = heads.head(*random.uniform([-90, -60, -180], [90, 60, 180]))
        points[:, :2] += random.normal(0, random.uniform(0, 6), (MEDIAPIPE_POINTS, 2))
        eyes = five(points) + random.normal(0, random.uniform(0, 18), (5, 2))
        fit, angle = explained(eyes), away(points)
        # float32 against double, at the very border
        if abs(fit - LEAST_FIT) < 1e-3 or abs(angle - DEFAULT_POSE_LIMIT) < 0.1:
            continue
        expected = Verdict.SWAPPED
        if angle > DEFAULT_POSE_LIMIT:
            expected = Verdict.LOOKS_AWAY
        if fit < LEAST_FIT:
            expected = Verdict.MISSHAPEN
        assert judge(points, eyes=eyes)[0] == expected
        seen.add(expected)
    assert seen == {Verdict.SWAPPED, Verdict.LOOKS_AWAY, Verdict.MISSHAPEN}


@pytest.mark.parametrize("deviation", [1.0, 3.0, 5.0])
def test_a_detectors_noise_costs_no_face(deviation: float) -> None:
    # Eyes are 63 pixels apart: 5 pixels are far beyond what a detector errs by.
    random = np.random.default_rng(12)
    for _ in range(30):
        points = heads.head(*random.uniform([-35, -20, -180], [35, 20, 180]))
        eyes = five(points) + random.normal(0, deviation, (5, 2))
        assert judge(points, eyes=eyes, mesh=False)[0] == Verdict.SWAPPED


@pytest.mark.parametrize("swap", [(0, 1), (0, 3), (2, 3), (1, 4)])
def test_points_in_another_order_fit_no_face_unless_a_face_looks_like_that(
    swap: tuple[int, int],
) -> None:
    eyes = five(heads.head())
    eyes[list(swap)] = eyes[list(reversed(swap))]
    fit = explained(eyes)
    expected = Verdict.SWAPPED if fit > LEAST_UNSEEN_FIT else Verdict.LOOKS_AWAY
    expected = Verdict.MISSHAPEN if fit < LEAST_FIT else expected
    assert judge(heads.head(), eyes=eyes, mesh=False)[0] == expected
    if set(swap) in ({0, 1}, {0, 3}, {1, 4}):
        assert expected == Verdict.MISSHAPEN


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_points_that_are_no_numbers_are_misshapen(value: float) -> None:
    eyes = five(heads.head())
    eyes[2, 0] = value
    verdict, made = judge(heads.head(), eyes=eyes)
    assert verdict == Verdict.MISSHAPEN
    assert np.isfinite(made["crops"]).all()


@pytest.mark.parametrize("yaw", [40, 50, -62, 66, -70, 74])
def test_where_no_landmarks_were_seen_the_five_points_must_fit_better(yaw: int) -> None:
    """A network that sees no face in a profile: the face would get its box, beyond its outline."""
    points = heads.head(yaw)
    fit = explained(five(points))
    assert fit > LEAST_FIT
    turned = fit <= LEAST_UNSEEN_FIT
    verdict, made = judge(points, mesh=False)
    assert verdict == (Verdict.LOOKS_AWAY if turned else Verdict.SWAPPED)
    assert made["crops"].any() != turned
    assert judge(points, mesh=False, limit=180.0)[0] == Verdict.SWAPPED
    assert judge(points)[0] == Verdict.SWAPPED


def test_without_a_landmark_network_a_turned_face_is_swapped() -> None:
    row = SWAPPERS["uniface_256"]
    plain = open_session(face_aligner.build("bgr", row, landmarker=None))
    faces = np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[0, 0, SCORE_COLUMN] = 0.9
    faces[0, 0, LANDMARK_COLUMN:] = five(heads.head(70)).reshape(-1)
    feeds = {
        "frame": np.full((1, 256, 256, 3), 90, np.uint8),
        "faces": faces,
        "landmarks": np.zeros((1, MAX_VIEWS, MEDIAPIPE_POINTS, 3), np.float32),
        "source": np.ones((1, 1, row.source_length), np.float32),
        "options": np.zeros((1, OPTION_COUNT), np.float32),
    }
    (verdicts,) = plain.run(["verdicts"], feeds)
    assert not verdicts.any()
