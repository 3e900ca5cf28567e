"""Landmarks that stand still stand still, and those that move come in time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from frameswap.persons.one_euro import OneEuro
from frameswap.persons.shapes import FaceShape, mix_shapes, read_shape, write_shape
from frameswap.persons.smoothing import LiveSmoother, smooth_within

RADIUS = 10
FPS = 25.0
# Five points of an upright face, in units of the distance of its eyes.
FIVE = np.float32([[-0.5, -0.4], [0.5, -0.4], [0.0, 0.1], [-0.35, 0.55], [0.35, 0.55]])


def row(x: float, y: float, eyes_px: float, roll_deg: float = 0.0) -> np.ndarray:
    angle = math.radians(roll_deg)
    turn = np.float32([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = FIVE @ turn.T * eyes_px + np.float32([x, y])
    box = [x - eyes_px, y - 1.2 * eyes_px, x + eyes_px, y + 1.2 * eyes_px]
    return np.concatenate([box, [0.9], points.reshape(-1)]).astype(np.float32)


def mesh(x: float, y: float, eyes_px: float, opening: float = 0.1) -> np.ndarray:
    """Six points: a lid that opens, and the rest of a face, in units of the eyes' distance."""
    points = [[-0.5, -0.4 - opening], [-0.5, -0.4], [0.5, -0.4], [0, 0.1], [-0.3, 0.5], [0.3, 0.5]]
    return np.float32([[x + eyes_px * px, y + eyes_px * py, 3.0] for px, py in points])


def smoothed(shapes: list[FaceShape], index: int) -> FaceShape:
    offsets = [
        each - index for each in range(len(shapes)) if abs(each - index) <= RADIUS
    ]
    return smooth_within([shapes[index + each] for each in offsets], offsets, offsets.index(0))


def one_euro_of_the_paper(values: list[float], step_s: float, cut: float, beta: float) -> list:
    """Algorithm 1 and 2 of Casiez et al. 2012, one number at a time."""

    def alpha(cutoff: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / step_s)

    filtered, speed, result = values[0], 0.0, [values[0]]
    for value in values[1:]:
        a = alpha(1.0)
        speed = a * (value - filtered) / step_s + (1 - a) * speed
        a = alpha(cut + beta * abs(speed))
        filtered = a * value + (1 - a) * filtered
        result.append(filtered)
    return result


def test_one_euro_is_the_papers(rng: np.random.Generator) -> None:
    values = rng.normal(size=(60, 3)).cumsum(axis=0).astype(np.float32)
    ours = OneEuro(min_cutoff_hz=1.2, beta=0.7)
    filtered = np.stack([ours.update(value, 1 / FPS) for value in values])
    for column in range(3):
        expected = one_euro_of_the_paper(values[:, column].tolist(), 1 / FPS, 1.2, 0.7)
        # float32 beside float64 over 60 steps.
        np.testing.assert_allclose(filtered[:, column], expected, atol=2e-4)


@pytest.mark.parametrize("roll", [0, 37, 180, -90])
def test_a_shape_is_written_as_it_was_read(roll: int) -> None:
    face, points = row(320.5, 200.25, 61.0, roll), mesh(320, 200, 61.0)
    again = write_shape(read_shape(face, points))
    # Pixels of a 640 wide frame in float32, through a logarithm and back.
    np.testing.assert_allclose(again[0], face, atol=2e-3)
    np.testing.assert_allclose(again[1], points, atol=2e-3)
    bare = write_shape(read_shape(face, np.zeros((6, 3), np.float32)))
    assert not bare[1].any()


def test_a_face_has_the_same_points_wherever_it_is() -> None:
    first = read_shape(row(100, 80, 30, 10), np.zeros((0, 3), np.float32))
    second = read_shape(row(500, 300, 90, -70), np.zeros((0, 3), np.float32))
    np.testing.assert_allclose(first.points, second.points, atol=1e-5)


def test_between_two_faces_a_face_turns_the_short_way() -> None:
    none = np.zeros((0, 3), np.float32)
    first, second = (read_shape(row(0, 0, 50, roll), none) for roll in (170, -170))
    middle = mix_shapes(first, second, 0.5)
    assert abs(math.degrees(middle.place[3])) == pytest.approx(180, abs=0.1)


def test_a_still_face_trembles_at_most_a_third(rng: np.random.Generator) -> None:
    shapes = [
        read_shape(
            row(300, 200, 80) + rng.normal(0, 0.4, 15).astype(np.float32),
            mesh(300, 200, 80) + rng.normal(0, 0.4, (6, 3)).astype(np.float32),
        )
        for _ in range(80)
    ]
    before = np.stack([write_shape(shape)[1] for shape in shapes[20:60]])
    after = np.stack([write_shape(smoothed(shapes, index))[1] for index in range(20, 60)])
    assert after[..., :2].std(axis=0).mean() < before[..., :2].std(axis=0).mean() / 3
    rows = np.stack([write_shape(shapes[index])[0][5:] for index in range(20, 60)])
    stilled = np.stack([write_shape(smoothed(shapes, index))[0][5:] for index in range(20, 60)])
    assert stilled.std(axis=0).mean() < rows.std(axis=0).mean() / 3


@pytest.mark.parametrize("speed_px", [0.5, 4.0, 20.0])
def test_steady_motion_is_followed_exactly(speed_px: float) -> None:
    shapes = [
        read_shape(row(100 + speed_px * index, 200, 60), mesh(100 + speed_px * index, 200, 60))
        for index in range(40)
    ]
    for index in (12, 20, 39, 0):
        face, points = write_shape(smoothed(shapes, index))
        # A thousandth of the distance of the eyes.
        np.testing.assert_allclose(face, row(100 + speed_px * index, 200, 60), atol=0.06)
        np.testing.assert_allclose(points, mesh(100 + speed_px * index, 200, 60), atol=0.06)


def test_who_moves_and_stops_does_so_in_the_same_frame() -> None:
    places = [100 + 6.0 * min(index, 20) for index in range(50)]
    shapes = [read_shape(row(x, 200, 60), np.zeros((0, 3), np.float32)) for x in places]
    after = [float(smoothed(shapes, index).place[0]) for index in range(50)]
    lags = range(-3, 4)
    errors = [
        np.abs(np.subtract(after[10 + lag : 40 + lag], [s.place[0] for s in shapes[10:40]])).sum()
        for lag in lags
    ]
    assert lags[int(np.argmin(errors))] == 0
    # At the corner itself: a hundredth of the distance of the eyes.
    assert max(abs(a - float(b.place[0])) for a, b in zip(after, shapes, strict=True)) < 0.6


def test_a_blink_stays_a_blink(rng: np.random.Generator) -> None:
    openings = [0.1] * 20 + [0.05, 0.0, 0.0, 0.05] + [0.1] * 20
    shapes = [
        read_shape(row(300, 200, 80),
                   mesh(300, 200, 80, opening) + rng.normal(0, 0.15, (6, 3)).astype(np.float32))
        for opening in openings
    ]  # fmt: skip
    after = [write_shape(smoothed(shapes, index))[1] for index in range(44)]
    opened = [float(points[1, 1] - points[0, 1]) / 80 for points in after]
    # Half of the eye's opening is 5 % of the eyes' distance.
    assert min(opened) < 0.02
    assert int(np.argmin(opened)) in (21, 22)
    assert opened[18] > 0.085
    assert opened[25] > 0.085


def test_live_lags_two_frames_at_most_and_trembles_less(rng: np.random.Generator) -> None:
    places = [100.0] * 30 + [100 + 5.0 * index for index in range(20)] + [195.0] * 40
    smoother = LiveSmoother()
    after = []
    for x in places:
        face = row(x, 200, 60) + rng.normal(0, 0.3, 15).astype(np.float32)
        shape = smoother.update(read_shape(face, np.zeros((0, 3), np.float32)), 1 / FPS)
        after.append(float(shape.place[0]))
    moving = slice(33, 50)
    behind = np.mean([x - a for x, a in zip(places[moving], after[moving], strict=True)])
    assert behind < 2 * 5.0
    raw = np.std([row(100, 200, 60)[5] + each for each in rng.normal(0, 0.3, 400)]) / math.sqrt(5)
    assert np.std(after[10:30]) < raw
    assert np.std(after[70:]) < raw


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
