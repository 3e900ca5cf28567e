"""The landmarkers' rows against literals from their publishers."""

from __future__ import annotations

import numpy as np
import pytest

from fetching.weights import WEIGHTS
from graphs.alignment import TEMPLATES
from networks.face_points import (
    IBUG_POINTS,
    IBUG_POSE,
    LEFT_EYE,
    LEFT_EYE_AND_BROW,
    LIPS,
    MEDIAPIPE_POINTS,
    MEDIAPIPE_POSE,
    RIGHT_EYE,
    RIGHT_EYE_AND_BROW,
)
from networks.landmarkers import LANDMARKERS, Landmarker

# name, V, channel order, points, depth, unit of the outputs in view pixels, least flag
PUBLISHED = [
    ("face_landmarker_v2", 256, "rgb", 478, True, 1.0, 0.0),
    ("face_mesh_attention", 192, "rgb", 478, True, 1.0, 0.0),
    ("2dfan4", 256, "bgr", 68, False, 4.0, 0.45),
    ("peppa_wutz", 256, "bgr", 68, False, 4.0, 0.475),
    ("fan_68_5", None, "rgb", 68, False, 1.0, 0.0),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_a_published_landmarker_has_its_published_contract(row: tuple[object, ...]) -> None:
    name, *expected = row
    found = LANDMARKERS[str(name)]
    assert expected == [
        found.view_size,
        found.channel_order,
        found.point_count,
        found.has_depth,
        found.unit,
        found.flag.threshold,
    ]


def test_the_table_holds_these_and_names_known_files() -> None:
    assert list(LANDMARKERS) == [row[0] for row in PUBLISHED]
    for row in LANDMARKERS.values():
        assert WEIGHTS[row.weight].role == "landmarker"
    files = {row.name for row in WEIGHTS.values() if row.role == "landmarker"}
    assert files == {row.weight for row in LANDMARKERS.values()}


@pytest.mark.parametrize("row", LANDMARKERS.values(), ids=lambda row: row.name)
def test_a_row_is_whole(row: Landmarker) -> None:
    answered = {point for output in row.outputs for point in output.points}
    assert answered == set(range(row.point_count))
    assert (row.input == "view") == (row.view_size is not None) == (row.framing is not None)
    assert (row.input == "points") == (row.point_template in TEMPLATES)
    assert len(row.five) == 5
    named = {point for points in row.five for point in points}
    named |= {point.index for point in row.pose_points}
    assert named <= answered
    with_depth = {
        point
        for output in row.outputs
        for point in output.points
        if output.columns == 3 or output.depth_from
    }
    assert not row.has_depth or with_depth == answered


def test_eyes_and_lips_are_mediapipes_connections() -> None:
    # mediapipe 0.10.21, python/solutions/face_mesh_connections.py: FACEMESH_RIGHT_EYE (the image's
    # left), FACEMESH_LEFT_EYE and FACEMESH_LIPS, as sets of points.
    assert set(LEFT_EYE) == {33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157,
                             173}  # fmt: skip
    assert set(RIGHT_EYE) == {263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385,
                              384, 398}  # fmt: skip
    outline = {61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270,
               409, 78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311,
               310, 415}  # fmt: skip
    assert set(LIPS[:40]) == outline
    for points, length in ((LIPS, 80), (LEFT_EYE_AND_BROW, 71), (RIGHT_EYE_AND_BROW, 71)):
        assert len(set(points)) == len(points) == length


@pytest.mark.parametrize(
    ("points", "count"), [(MEDIAPIPE_POSE, MEDIAPIPE_POINTS), (IBUG_POSE, IBUG_POINTS)]
)
def test_the_rigid_face_is_symmetric_and_looks_at_the_viewer(points: tuple, count: int) -> None:
    places = np.array([point.place for point in points])
    assert len({point.index for point in points}) == len(points)
    assert max(point.index for point in points) < count
    mirrored = places * [-1, 1, 1]
    for place in mirrored:
        assert np.abs(places - place).sum(axis=1).min() < 1e-5
    # the tip of the nose is nearest, and between the eyes and the mouth
    nose = places[places[:, 2].argmax()]
    assert abs(nose[0]) < 1e-6
    assert places[:, 1].min() < nose[1] < places[:, 1].max()


def test_both_eyes_lie_where_left_and_right_say() -> None:
    places = {point.index: point.place for point in MEDIAPIPE_POSE}
    assert all(places[point][0] < 0 for point in (33, 133))
    assert all(places[point][0] > 0 for point in (263, 362))
    assert {33, 133} <= set(LEFT_EYE)
    assert {263, 362} <= set(RIGHT_EYE)
