"""Poses of synthetic heads: the angles that they were turned by come back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphs.face_pose import measure_pose
from networks.face_points import IBUG_POINTS, IBUG_POSE, MEDIAPIPE_POINTS, MEDIAPIPE_POSE, PosePoint
from tests.graphs.evaluation import evaluate
from tests.reference import landmarks as reference

Points = tuple[PosePoint, ...]
MODELS = {"mediapipe": (MEDIAPIPE_POSE, MEDIAPIPE_POINTS), "ibug": (IBUG_POSE, IBUG_POINTS)}
# float32 sums of coordinates up to 4000 px, of a head of some 100 px
ANGLE = 0.02


def places(points: Points) -> np.ndarray:
    """x to the right, y down, z away from the viewer."""
    return np.array([point.place for point in points]) * [1.0, -1.0, -1.0]


def head(points: Points, count: int, rotation: np.ndarray, *, size: float, at: tuple) -> np.ndarray:
    """Landmarks (count, 3), those of the pose where a far camera sees a turned head."""
    found = np.random.default_rng(0).normal(0, 500, (count, 3))
    turned = places(points) @ rotation.T
    found[[point.index for point in points]] = turned * size + [*at, 0.0]
    return found.astype(np.float32)


def measure(landmarks: np.ndarray, points: Points) -> np.ndarray:
    (found,) = evaluate(lambda op, x: measure_pose(op, x, points), landmarks)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_the_angles_of_a_turned_head_come_back(model: str) -> None:
    points, count = MODELS[model]
    angles = list(itertools.product((-75, -20, 0, 35, 80), (-60, 0, 25), (-170, -90, 0, 10, 135)))
    heads = [
        head(points, count, reference.rotation(*angle), size=8.0, at=(3000, 1500))
        for angle in angles
    ]
    found = measure(np.stack(heads)[None], points)[0]
    np.testing.assert_allclose(found, np.array(angles, np.float64), atol=ANGLE)


@pytest.mark.parametrize("model", MODELS)
def test_a_face_that_is_no_rigid_head_is_fitted_like_the_oracle_does(model: str) -> None:
    points, count = MODELS[model]
    random = np.random.default_rng(5)
    heads = np.stack(
        [
            head(points, count, reference.rotation(*angles), size=8.0, at=(9, 4))
            for angles in random.uniform(-50, 50, (20, 3))
        ]
    )
    heads[..., :2] += random.normal(0, 3, heads[..., :2].shape)
    found = measure(heads[None].astype(np.float32), points)[0]
    weights = np.array([point.weight for point in points])
    index = [point.index for point in points]
    for row, landmarks in zip(found, heads, strict=True):
        expected = reference.pose(landmarks[index, :2], places(points), weights)
        np.testing.assert_allclose(row, expected, atol=ANGLE)


@pytest.mark.parametrize(
    ("move", "angle", "sign"),
    [
        ((10.0, 0.0), 0, 1),  # the nose moves to the image's right: the face looks there
        ((-10.0, 0.0), 0, -1),
        ((0.0, -10.0), 1, 1),  # up
        ((0.0, 10.0), 1, -1),
    ],
)
def test_the_nose_says_the_sign(move: tuple[float, float], angle: int, sign: int) -> None:
    landmarks = head(MEDIAPIPE_POSE, MEDIAPIPE_POINTS, np.eye(3), size=10.0, at=(0, 0))
    landmarks[[4, 6, 198, 420], :2] += move
    pose = measure(landmarks[None, None], MEDIAPIPE_POSE)[0, 0]
    assert sign * pose[angle] > 2


def test_a_face_turned_clockwise_in_the_image_has_a_positive_roll() -> None:
    landmarks = head(MEDIAPIPE_POSE, MEDIAPIPE_POINTS, np.eye(3), size=10.0, at=(0, 0))
    x, y = landmarks[:, 0].copy(), landmarks[:, 1].copy()
    # y points down: the right eye sinks
    angle = np.deg2rad(30)
    landmarks[:, 0] = np.cos(angle) * x - np.sin(angle) * y
    landmarks[:, 1] = np.sin(angle) * x + np.cos(angle) * y
    pose = measure(landmarks[None, None], MEDIAPIPE_POSE)[0, 0]
    np.testing.assert_allclose(pose, [0, 0, 30], atol=ANGLE)


def test_a_mirrored_face_is_far_from_any_that_looks_at_the_camera() -> None:
    landmarks = head(MEDIAPIPE_POSE, MEDIAPIPE_POINTS, np.eye(3), size=10.0, at=(0, 0))
    landmarks[:, 0] *= -1
    pose = measure(landmarks[None, None], MEDIAPIPE_POSE)[0, 0]
    assert np.abs(pose).max() > 170


def test_points_that_are_one_point_give_zeros() -> None:
    for value in (0.0, 123.0):
        landmarks = np.full((1, 2, MEDIAPIPE_POINTS, 3), value, np.float32)
        np.testing.assert_array_equal(measure(landmarks, MEDIAPIPE_POSE), 0.0)


def test_a_real_heads_depth_is_not_asked() -> None:
    turned = reference.rotation(20, 5, 1)
    landmarks = head(MEDIAPIPE_POSE, MEDIAPIPE_POINTS, turned, size=9.0, at=(1, 2))
    other = landmarks.copy()
    other[:, 2] *= -3
    np.testing.assert_array_equal(
        measure(landmarks[None, None], MEDIAPIPE_POSE), measure(other[None, None], MEDIAPIPE_POSE)
    )
