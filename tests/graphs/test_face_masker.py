"""face_masker against FaceFusion's formula, NumPy oracles, turned heads and a real compiler."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.compilers import choose_compiler
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import face_masker
from graphs.contract import (
    FACE_COLUMNS,
    MAX_DETECTIONS,
    OPTION_COUNT,
    PADDING_BASE,
    SCORE_COLUMN,
    KeepFlag,
    MaskFlag,
    Option,
)
from graphs.face_masker import hull
from graphs.face_masker.box import box_mask_profile
from networks.face_points import IBUG_POINTS, MEDIAPIPE_POINTS
from networks.face_regions import FACE_REGIONS
from networks.swappers import SWAPPERS
from tests.graphs.evaluation import open_session
from tests.reference import heads
from tests.reference import masks as reference

SIZE = 256
SWAPPER = SWAPPERS["image_swapper_256"]
# A grey level.
LEVEL = 1 / 255
# A frame pixel is half a crop pixel, the frame turned by ten degrees.
ANGLE = np.deg2rad(10)
WARP = np.array(
    [[2 * np.cos(ANGLE), -2 * np.sin(ANGLE), 31.0], [2 * np.sin(ANGLE), 2 * np.cos(ANGLE), -58.0]]
)


@functools.cache
def build(size: int = SIZE, points: int = MEDIAPIPE_POINTS) -> onnx.ModelProto:
    return face_masker.build(SWAPPER, crop_size=size, point_count=points)


@functools.cache
def session(size: int = SIZE, points: int = MEDIAPIPE_POINTS) -> onnxruntime.InferenceSession:
    return open_session(build(size, points))


def in_frame(points: np.ndarray, size: int) -> np.ndarray:
    """Crop points (P, 3) in pixels of the frame that `warp_of` takes to the crop."""
    inverse = np.linalg.inv(np.vstack([warp_of(size), [0, 0, 1]]))[:2]
    moved = points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
    return np.concatenate([moved, points[:, 2:] / 2], axis=1)


def warp_of(size: int) -> np.ndarray:
    return WARP * [[size / SIZE]]


def request(
    points: np.ndarray | None = None, *, size: int = SIZE, count: int = MEDIAPIPE_POINTS,
    **options: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """One slot with a face; `points` (P, 3) are its landmarks in the crop."""
    feeds = {
        "swap_masks": np.ones((1, 1, 1, size, size), np.float32),
        "landmarks": np.zeros((1, 1, count, 3), np.float32),
        "warps": warp_of(size)[None, None].astype(np.float32),
        "faces": np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32),
        "options": np.zeros((1, OPTION_COUNT), np.float32),
    }
    feeds["faces"][0, 0, SCORE_COLUMN] = 0.9
    if points is not None:
        feeds["landmarks"][0, 0] = in_frame(points, size)
    for name, value in options.items():
        feeds["options"][0, Option[name.upper()]] = value
    return feeds


def run(feeds: dict[str, np.ndarray]) -> np.ndarray:
    size, points = feeds["swap_masks"].shape[-1], feeds["landmarks"].shape[2]
    (masks,) = session(size, points).run(["masks"], feeds)
    return np.asarray(masks)


def mask(*args: np.ndarray, **kwargs: float) -> np.ndarray:
    return run(request(*args, **kwargs))[0, 0, 0]  # type: ignore[arg-type]


def packed(top: int, right: int, bottom: int, left: int) -> int:
    return top + PADDING_BASE * (right + PADDING_BASE * (bottom + PADDING_BASE * left))


# --- box ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_usual_box_is_facefusions_to_the_last_bit_of_its_profile(size: int) -> None:
    found = mask(size=size, masks=MaskFlag.BOX)
    profile = box_mask_profile(size)
    np.testing.assert_array_equal(found, np.outer(profile, profile))
    np.testing.assert_allclose(found, reference.box(size), atol=1e-6)


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("blur", [0.001, 0.02, 0.1, 0.3, 0.55, 0.9, 1.0])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (10, 0, 25, 3), (63, 1, 7, 50)])
def test_a_box_is_facefusions_for_every_blur_and_padding(
    size: int, blur: float, padding: tuple[int, int, int, int]
) -> None:
    found = mask(size=size, masks=MaskFlag.BOX, box_blur=blur, box_padding=packed(*padding))
    np.testing.assert_allclose(found, reference.box(size, blur, padding), atol=1e-5)


def test_a_box_that_is_padded_away_shows_nothing() -> None:
    everything = packed(60, 0, 60, 0)
    found = mask(masks=MaskFlag.BOX, box_blur=0.001, box_padding=everything)
    assert not found.any()


def test_each_row_of_a_batch_has_the_box_it_asks_for() -> None:
    rows = [request(masks=1), request(masks=1, box_blur=0.8), request(masks=1, box_padding=20)]
    found = run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    for row, alone in zip(found, rows, strict=True):
        # Sums over another number of rows may be made in another order.
        np.testing.assert_allclose(row, run(alone)[0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[0, 0, 0], mask(masks=1))


# --- hull --------------------------------------------------------------------------------------

TURNS = [(0, 0), (20, 0), (-40, 0), (40, 20), (-30, -25), (0, 30), (0, -30), (60, 0)]


def outline(points: np.ndarray, count: int) -> np.ndarray:
    rows = FACE_REGIONS[count]
    return reference.with_forehead(points[:, :2], rows.top, rows.axis, rows.forehead)


@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize("turn", TURNS)
def test_the_hull_is_the_convex_one_of_the_landmarks(turn: tuple[int, int], size: int) -> None:
    points = heads.head(*turn, size=size)
    found = mask(points, size=size, masks=MaskFlag.HULL)
    expected = reference.hull(
        outline(points, MEDIAPIPE_POINTS), size, inset=hull.INSET, feather=hull.FEATHER
    )
    # Tangents in 64 directions, not the hull's own edges: beside the longest edge of a turned head
    # they lie 0.9 % of the side farther out, an eighth of the feather, of which a smoothstep makes
    # 0.17. (Largest here: 0.171.)
    assert np.abs(found - expected).max() < 0.18
    assert np.abs(found - expected).mean() < 0.005


@pytest.mark.parametrize("turn", [turn for turn in TURNS if abs(turn[0]) <= 40])
def test_no_background_is_shown_beside_a_head_turned_by_forty_degrees(
    turn: tuple[int, int],
) -> None:
    points = heads.head(*turn)
    found = mask(points, masks=MaskFlag.HULL)
    # The forehead's extension lies on the head too, though not on the mesh.
    top = points[list(FACE_REGIONS[MEDIAPIPE_POINTS].top), 1].max()
    background = ~heads.silhouette(points)
    background[: int(np.ceil(top))] = False
    assert background.mean() > 0.2
    # 0.09 at most, in a temple, where the extension begins
    assert found[background].max() < 0.1
    assert found[background].mean() < 1e-3
    assert found[heads.silhouette(points)].mean() > 0.7


def test_the_box_shows_the_background_that_the_hull_hides() -> None:
    points = heads.head(40, 0)
    background = ~heads.silhouette(points)
    assert mask(points, masks=MaskFlag.BOX)[background].mean() > 0.5


def test_a_face_of_68_points_has_a_hull_too() -> None:
    points = heads.ibug_head(15, 5)
    found = mask(points, count=IBUG_POINTS, masks=MaskFlag.HULL)
    expected = reference.hull(
        outline(points, IBUG_POINTS), SIZE, inset=hull.INSET, feather=hull.FEATHER
    )
    assert np.abs(found - expected).mean() < 0.005
    # the forehead is taken in, the background is not
    whole = mask(heads.head(15, 5), masks=MaskFlag.HULL)
    assert 0.85 < found.sum() / whole.sum() < 1.1


@pytest.mark.parametrize("shift", [(300.0, 0.0), (0.0, -400.0), (1e5, 1e5)])
def test_a_face_beside_its_crop_shows_nothing(shift: tuple[float, float]) -> None:
    points = heads.head() + np.array([*shift, 0])
    assert not mask(points, masks=MaskFlag.HULL).any()


def test_one_landmark_that_goes_astray_tears_nothing() -> None:
    points = heads.head()
    whole = mask(points, masks=MaskFlag.HULL)
    points[200, :2] = 250, 20
    assert (mask(points, masks=MaskFlag.HULL) >= whole - 1e-6).all()


# --- combining ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", range(1, 8))
def test_masks_combine_by_minimum(flags: int) -> None:
    points = heads.head(10, 5)
    own = np.random.default_rng(flags).random((1, 1, 1, SIZE, SIZE), dtype=np.float32)

    def ask(code: int) -> np.ndarray:
        return run({**request(points, masks=code), "swap_masks": own})

    single = [ask(flag) for flag in (1, 2, 4) if flags & flag]
    np.testing.assert_array_equal(ask(flags), np.minimum.reduce(single))
    np.testing.assert_array_equal(ask(MaskFlag.SWAPPER), own)


def test_no_mask_shows_the_whole_crop() -> None:
    assert (mask(heads.head(), masks=MaskFlag.NONE) == 1).all()


@pytest.mark.parametrize("name", ["image_swapper_256", "inswapper_128", "hyperswap_1a_256"])
def test_zeros_ask_for_the_masks_of_the_swappers_row(name: str) -> None:
    row, feeds = SWAPPERS[name], request(heads.head(20, 0))
    feeds["swap_masks"][:] = 0.9
    (found,) = open_session(face_masker.build(row, crop_size=SIZE)).run(None, feeds)
    feeds["options"][0, Option.MASKS] = row.masks
    np.testing.assert_array_equal(found, run(feeds))


@pytest.mark.parametrize("default", [MaskFlag.NONE, MaskFlag.BOX, MaskFlag.HULL])
def test_the_default_is_a_parameter_of_the_row(default: MaskFlag) -> None:
    model = face_masker.build(replace(SWAPPER, masks=default), crop_size=SIZE)
    (found,) = open_session(model).run(None, request(heads.head()))
    np.testing.assert_array_equal(found[0, 0, 0], mask(heads.head(), masks=default))


def test_a_face_without_landmarks_has_its_box() -> None:
    box = mask(masks=MaskFlag.BOX)
    np.testing.assert_array_equal(mask(masks=MaskFlag.HULL), box)
    np.testing.assert_array_equal(mask(masks=MaskFlag.HULL, keep=15), box)


def test_points_in_any_order_make_no_hole_of_no_number() -> None:
    rng = np.random.default_rng(8)
    for scale in (0.0, 1e-3, 50.0, 1e4):
        points = rng.normal(128, scale, (MEDIAPIPE_POINTS, 3))
        found = mask(points, masks=MaskFlag.HULL, keep=15)
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1


# --- slots and hostile numbers -----------------------------------------------------------------


def many(slots: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Slots whose heads are each turned another way."""
    turns = itertools.cycle(TURNS)
    rows = [[request(heads.head(*next(turns))) for _ in range(slots)] for _ in range(batch)]
    feeds = {
        name: np.concatenate([np.concatenate([slot[name] for slot in row], axis=1) for row in rows])
        for name in ("swap_masks", "landmarks", "warps")
    }
    feeds["faces"] = np.zeros((batch, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    feeds["faces"][:, :slots, SCORE_COLUMN] = 0.8
    feeds["options"] = np.zeros((batch, OPTION_COUNT), np.float32)
    return feeds


@pytest.mark.parametrize("slots", [1, 3, MAX_DETECTIONS])
def test_every_slot_is_masked_by_itself(slots: int) -> None:
    feeds = many(slots, batch=2)
    feeds["options"][1, [Option.MASKS, Option.KEEP]] = MaskFlag.HULL, KeepFlag.MOUTH
    feeds["faces"][1, slots - 1, SCORE_COLUMN] = 0
    found = run(feeds)
    assert found.shape == feeds["swap_masks"].shape
    for b, k in np.ndindex(found.shape[:2]):
        rows = ("swap_masks", "landmarks", "warps")
        one = {name: feeds[name][b : b + 1, k : k + 1] for name in rows}
        one["faces"] = np.roll(feeds["faces"][b : b + 1], -k, axis=1)
        one["options"] = feeds["options"][b : b + 1]
        np.testing.assert_allclose(found[b, k], run(one)[0, 0], atol=1e-6)
    assert not found[1, slots - 1].any()


@pytest.mark.parametrize("score", [0.0, -1.0, np.nan])
def test_an_empty_slot_gives_zeros_whatever_it_holds(score: float) -> None:
    feeds = many(2)
    feeds["faces"][0, 1, SCORE_COLUMN] = score
    for name in ("swap_masks", "landmarks", "warps"):
        feeds[name][0, 1] = np.nan
    feeds["options"][0, [Option.MASKS, Option.KEEP]] = 7, 15
    found = run(feeds)
    assert not found[0, 1].any()
    assert np.isfinite(found).all()
    assert found[0, 0].max() > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("name", ["landmarks", "warps", "swap_masks"])
def test_what_is_no_number_never_leaves_the_masker(name: str, value: float) -> None:
    feeds = request(heads.head(), masks=7, keep=15)
    feeds[name].reshape(-1)[::7] = value
    found = run(feeds)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_landmarks_that_are_no_numbers_are_none() -> None:
    feeds = request(heads.head(), masks=MaskFlag.HULL)
    feeds["landmarks"][0, 0, 100, 1] = np.nan
    np.testing.assert_array_equal(run(feeds)[0, 0, 0], mask(masks=MaskFlag.BOX))


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", 9), ("masks", 1.5), ("masks", -1), ("keep", 16), ("box_blur", 1.5),
     ("box_blur", np.nan), ("box_padding", 0.5), ("box_padding", 2.0**24)],
)  # fmt: skip
def test_options_that_are_not_valid_are_the_defaults(name: str, value: float) -> None:
    points = heads.head(15, 0)
    np.testing.assert_array_equal(mask(points, **{name: value}), mask(points))


def test_a_warp_of_zeros_shows_nothing_of_a_hull() -> None:
    feeds = request(heads.head(), masks=MaskFlag.HULL)
    feeds["warps"][:] = 0
    assert not run(feeds)[0, 0, 0, 16:].any()


# --- what it is made of ------------------------------------------------------------------------


def test_building_twice_gives_the_same_bytes() -> None:
    twice = [face_masker.build(SWAPPER, crop_size=SIZE).SerializeToString() for _ in range(2)]
    assert twice[0] == twice[1]


def test_landmarks_that_nobody_knows_are_refused() -> None:
    with pytest.raises(KeyError):
        face_masker.build(SWAPPER, crop_size=SIZE, point_count=5)


@pytest.mark.parametrize(("size", "points"), [(256, MEDIAPIPE_POINTS), (128, IBUG_POINTS)])
def test_a_real_compiler_takes_the_graph(size: int, points: int) -> None:
    model = build(size, points)
    limits = ProfileLimits(batch=AxisRange(1, 4, 8), faces=AxisRange(1, 1, 4))
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, limits),
        compute_capabilities=["8.0", "8.6", "8.9", "12.0"],
    )
    assert len(plan.data) > 1000
