"""A face at its true place: the head's own points, moved as the picture of it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality.chains import move_face
from bench.quality.scenes import Head, Pose, affine, truth

FIVE = np.array([[30.0, 40], [70, 40], [50, 60], [35, 80], [65, 80]])


@pytest.mark.parametrize("roll_deg", [0.0, 90.0, -30.0])
def test_points_lie_where_the_scene_says(roll_deg: float) -> None:
    head = Head("nobody", np.zeros((101, 101, 3), np.uint8), FIVE)
    pose = Pose(300, 200, 202, roll_deg)
    row = np.concatenate([[20, 30, 80, 90, 0.9], FIVE.reshape(-1)]).astype(np.float32)
    mesh = np.column_stack([FIVE, np.full(5, 4.0)]).astype(np.float32)
    moved, points = move_face(row, mesh, affine(head, pose))
    true = truth(head, pose)
    assert moved[5:].reshape(5, 2) == pytest.approx(true, abs=1e-3)
    assert points[:, :2] == pytest.approx(true, abs=1e-3)
    assert points[:, 2] == pytest.approx(8.0), "twice as large, so twice as deep"
    assert moved[4] == pytest.approx(0.9)


def test_the_box_of_a_face_on_its_side_is_the_one_around_it() -> None:
    """A quarter turn about the picture's middle: 60 wide and 40 high become 40 and 60."""
    head = Head("nobody", np.zeros((101, 101, 3), np.uint8), FIVE)
    row = np.array([20, 30, 80, 70, 0.9, *[0.0] * 10], np.float32)
    moved, _ = move_face(row, np.zeros((5, 3), np.float32), affine(head, Pose(50, 50, 101, 90)))
    assert moved[:4] == pytest.approx([30, 20, 70, 80], abs=1e-3)
