"""A head that is turned: the picture goes where the truth says, and that is trigonometry."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality.relief import Relief, make_relief
from bench.quality.scenes import Head

SIDE = 320
FIVE = np.array([[120.0, 140], [200, 140], [160, 180], [130, 220], [190, 220]])


def relief(depth: np.ndarray) -> Relief:
    """A grey picture with a white spot at each point."""
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    for x, y in FIVE.astype(int):
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    return Relief("spots", image, depth, FIVE, (160.0, 50.0), 10.0)


def spot_near(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Middle of what is white around a place."""
    top, left = round(y) - 12, round(x) - 12
    part = image[top : top + 25, left : left + 25, 0].astype(float)
    rows, columns = np.nonzero(part > 160)
    return np.array([columns.mean() + left, rows.mean() + top])


@pytest.mark.parametrize("yaw_deg", [-25.0, 10.0, 30.0])
def test_what_is_drawn_lies_where_the_points_are(yaw_deg: float) -> None:
    down, right = np.mgrid[:SIDE, :SIDE]
    depth = 60.0 * ((right - 160) / 160) ** 2 + 0.05 * (down - 160)
    head = relief(depth).turned(yaw_deg)
    for x, y in head.five:
        assert spot_near(head.image, x, y) == pytest.approx([x, y], abs=1.0)


def test_points_turn_about_the_axis() -> None:
    """A plane 50 pixels in front of the axis, turned by 30 degrees from 10 to 40."""
    head = relief(np.zeros((SIDE, SIDE))).turned(40.0)
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    assert head.five[:, 0] == pytest.approx(160 + (FIVE[:, 0] - 160) * cos + 50 * sin)
    assert head.five[:, 1] == pytest.approx(FIVE[:, 1])


def test_a_relief_has_the_depths_of_the_mesh_and_falls_off_behind_its_edge() -> None:
    across, along = np.meshgrid(np.linspace(100, 220, 21), np.linspace(100, 240, 21))
    z = 40.0 * ((across - 160) / 60) ** 2
    mesh = np.stack([across, along, z], axis=-1).reshape(-1, 3).astype(np.float32)
    made = make_relief(Head("bowl", np.zeros((SIDE, SIDE, 3), np.uint8), FIVE), mesh, 0.0)
    assert made.depth[170, 160] == pytest.approx(0, abs=3)
    assert made.depth[170, 210] == pytest.approx(40 * (50 / 60) ** 2, abs=5)
    eyes = 80.0
    assert made.depth[170, 319] == pytest.approx(40 + 0.8 * 0.8 * eyes, abs=4)


def test_a_nose_stays_as_long_as_the_mesh_has_it() -> None:
    """Where a relief is flatter than the mesh, a turned nose is drawn where no nose would be, and
    whoever knows noses is taken to be wrong."""
    across, along = np.meshgrid(np.linspace(100, 220, 25), np.linspace(100, 240, 25))
    z = -40.0 * np.exp(-0.5 * ((across - 160) ** 2 + (along - 180) ** 2) / 10.0**2)
    mesh = np.stack([across, along, z], axis=-1).reshape(-1, 3).astype(np.float32)
    made = make_relief(Head("nose", np.zeros((SIDE, SIDE, 3), np.uint8), FIVE), mesh, 0.0)
    # A twentieth of the eyes' distance: turned by 40 degrees, that is a third of what is right.
    assert made.depth[180, 160] == pytest.approx(-40, abs=0.05 * 80)
    assert made.depth[180, 120] == pytest.approx(0, abs=0.05 * 80)
