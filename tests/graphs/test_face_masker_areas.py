"""The mask of areas of the face against FaceFusion's own steps in OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.contract import AreaFlag, MaskFlag
from graphs.face_masker.areas import SIGMA_PX
from networks.face_points import IBUG_POINTS, MEDIAPIPE_POINTS
from networks.face_regions import FACE_REGIONS
from tests.graphs.test_face_masker import LEVEL, SIZE, mask, request, run
from tests.reference import heads
from tests.reference import masks as reference

NAMES = {AreaFlag.UPPER_FACE: "upper-face", AreaFlag.LOWER_FACE: "lower-face",
         AreaFlag.MOUTH: "mouth"}  # fmt: skip
SUMS = range(1, sum(AreaFlag) + 1)
TURNS = [(0, 0, 0), (25, 10, 4), (-20, -15, -30), (35, -5, 70)]


def names(flags: int) -> list[str]:
    return [name for flag, name in NAMES.items() if flags & flag]


def whole_points(*turn: float, size: int) -> np.ndarray:
    """478 landmarks in the middle of pixels: cut off, the noise of float32 does not move them."""
    points = heads.head(*turn, size=size)
    points[:, :2] = np.floor(points[:, :2]) + 0.5
    return points


@pytest.mark.parametrize(("size", "turn"), [(128, turn) for turn in TURNS] + [(256, TURNS[1])])
@pytest.mark.parametrize("flags", SUMS)
def test_areas_are_facefusions(flags: int, turn: tuple[float, ...], size: int) -> None:
    points = whole_points(*turn, size=size)[list(heads.IBUG_LANDMARKS)]
    found = mask(points, size=size, count=IBUG_POINTS, masks=MaskFlag.NONE, areas=flags)
    expected = reference.area(points[:, :2], names(flags), size)
    # A closed mouth in a crop of 128 pixels is narrower than the blur.
    assert expected.max() > (0.1 if flags == AreaFlag.MOUTH else 0.9)
    np.testing.assert_allclose(found, expected, rtol=0, atol=LEVEL)


@pytest.mark.parametrize("flags", SUMS)
def test_the_mesh_has_the_same_areas(flags: int) -> None:
    points = whole_points(15, 5, 3, size=SIZE)
    found = mask(points, masks=MaskFlag.NONE, areas=flags)
    expected = reference.area(points[list(heads.IBUG_LANDMARKS), :2], names(flags), SIZE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=LEVEL)


def test_each_area_of_the_mesh_is_made_of_the_points_nearest_to_the_68() -> None:
    meshed, sparse = (FACE_REGIONS[n].areas for n in (MEDIAPIPE_POINTS, IBUG_POINTS))
    for flag in NAMES:
        near = {heads.IBUG_LANDMARKS[point] for point in sparse[flag]}
        assert set(meshed[flag]) == near
        assert set(sparse[flag]) == set(reference.AREAS[NAMES[flag]])


@pytest.mark.parametrize("shift", [(-90.0, 0.0), (60.0, 80.0), (0.0, -400.0), (900.0, 0.0)])
def test_a_face_that_leaves_its_crop_is_cut_there(shift: tuple[float, float]) -> None:
    points = whole_points(5, 5, 0, size=SIZE)
    points[:, :2] += shift
    found = mask(points, masks=MaskFlag.NONE, areas=AreaFlag.UPPER_FACE)
    expected = reference.area(points[list(heads.IBUG_LANDMARKS), :2], ["upper-face"], SIZE)
    # OpenCV begins a line that it cuts off at the picture's edge, and so may round it the other way
    # for as far as the line goes on: a row of pixels at most, which the blur makes this of.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 / (SIGMA_PX * np.sqrt(2 * np.pi)))
    assert np.abs(found - expected).mean() < LEVEL / 4
    assert found.any() == (max(map(abs, shift)) < SIZE / 2)


def test_areas_and_other_masks_are_combined_by_minimum() -> None:
    points = whole_points(10, 0, 0, size=SIZE)
    parts = [mask(points, masks=masks, areas=areas) for masks, areas in
             ((MaskFlag.BOX | MaskFlag.HULL, 0), (MaskFlag.NONE, 1), (MaskFlag.BOX | 2, 1))]
    np.testing.assert_array_equal(parts[2], np.minimum(parts[0], parts[1]))
    assert (parts[2] < parts[0]).any()


def test_each_row_of_a_batch_has_the_areas_that_it_asks_for() -> None:
    points = whole_points(10, 0, 0, size=SIZE)
    rows = [request(points, masks=MaskFlag.NONE, areas=flags) for flags in (0, 1, 6)]
    found = run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    for row, alone in zip(found, rows, strict=True):
        # Sums over another number of rows may be made in another order.
        np.testing.assert_allclose(row, run(alone)[0], rtol=0, atol=1e-6)
    assert (found[0] == 1).all()


def test_a_face_without_landmarks_gets_its_box() -> None:
    np.testing.assert_array_equal(
        mask(masks=MaskFlag.NONE, areas=AreaFlag.MOUTH), mask(masks=MaskFlag.BOX)
    )
