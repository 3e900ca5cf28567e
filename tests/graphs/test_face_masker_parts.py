"""Parts of the target that stay, against NumPy and OpenCV's polygons."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from graphs.contract import KeepFlag, MaskFlag
from graphs.face_masker import keep
from networks.face_points import IBUG_POINTS, MEDIAPIPE_POINTS
from networks.face_regions import FACE_REGIONS
from tests.graphs.test_face_masker import SIZE, mask
from tests.reference import heads
from tests.reference import masks as reference

PARTS = [*KeepFlag, KeepFlag.MOUTH | KeepFlag.EYES, KeepFlag(sum(KeepFlag))]


def bands(count: int, flags: int) -> list[reference.Outline]:
    parts = FACE_REGIONS[count].parts
    return [(b.upper, b.lower) for flag in parts if flags & flag for b in parts[flag]]


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("turn", [(0, 0), (30, 10), (-25, -15)])
@pytest.mark.parametrize("flags", PARTS)
def test_a_part_that_is_kept_is_the_formula(
    flags: KeepFlag, turn: tuple[int, int], size: int
) -> None:
    points = heads.head(*turn, size=size)
    found = mask(points, size=size, masks=MaskFlag.NONE, keep=flags)
    expected = reference.kept(
        points[:, :2], bands(MEDIAPIPE_POINTS, flags), size, feather=keep.FEATHER
    )
    # Depths between the points of the grid: at a kink of a steep curve they are off by up to 0.9
    # pixels, of which a smoothstep over 5.1 makes 0.27.
    assert np.abs(found - expected).max() < 0.3
    assert np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize("flags", [KeepFlag.MOUTH, KeepFlag.EYES, KeepFlag.BROWS, KeepFlag.LIPS])
def test_inside_a_kept_part_nothing_is_shown_and_away_from_it_all_is(flags: KeepFlag) -> None:
    points = heads.head(10, 5)
    # a wide open mouth
    lower = FACE_REGIONS[MEDIAPIPE_POINTS].parts[KeepFlag.MOUTH][0].lower
    points[list(lower[1:-1]), 1] += 18
    points[list(FACE_REGIONS[MEDIAPIPE_POINTS].parts[KeepFlag.LIPS][0].lower[1:-1]), 1] += 18
    found = mask(points, masks=MaskFlag.NONE, keep=flags)
    inside = np.zeros((SIZE, SIZE), np.uint8)
    for upper, below in bands(MEDIAPIPE_POINTS, flags):
        ring = np.round(points[[*upper, *below[::-1]], :2] * 16).astype(np.int32)
        cv2.fillPoly(inside, [ring], 1, shift=4)
    core = cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0
    assert core.sum() > 40
    assert found[core].max() < 0.02
    away = cv2.dilate(inside, np.ones((19, 19), np.uint8)) == 0
    assert (found[away] == 1).all()


def test_the_parts_of_68_points_lie_where_those_of_478_do() -> None:
    for flags in (KeepFlag.MOUTH, KeepFlag.EYES, KeepFlag.LIPS, KeepFlag.BROWS):
        whole = 1 - mask(heads.head(), masks=MaskFlag.NONE, keep=flags)
        sparse = 1 - mask(heads.ibug_head(), count=IBUG_POINTS, masks=MaskFlag.NONE, keep=flags)
        # A brow is one row of the 68 points, along its upper edge.
        least = 0.4 if flags == KeepFlag.BROWS else 0.5
        assert np.minimum(whole, sparse).sum() > least * np.maximum(whole, sparse).sum(), flags
