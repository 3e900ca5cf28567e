"""face_blender, every method, against the NumPy oracle and FaceFusion's own formulas."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from graphs import face_blender
from graphs.contract import FACE_COLUMNS, MAX_DETECTIONS, OPTION_COUNT, SCORE_COLUMN, FrameFormat
from graphs.face_blender import Method
from graphs.face_masker.box import box_mask_profile
from tests.graphs.evaluation import open_session
from tests.reference import blending

SIZE = 64
FORMATS = ("i420", "bgr")
METHODS: tuple[Method, ...] = ("whole", "regions", "patches")
every_method = pytest.mark.parametrize("method", METHODS)
either_format = pytest.mark.parametrize("frame_format", FORMATS)

# Coordinates are float32: at 4K a crop position is off by about 1e-3 of a crop pixel, and a value
# that lies just at a half rounds to the other side. Never more than one level.
ROUNDING = 1
# How many pixels may round the other way (seen: under 2e-4).
ROUNDED_SHARE = 2e-3


@functools.cache
def session(
    frame_format: FrameFormat, method: Method, size: int = SIZE
) -> onnxruntime.InferenceSession:
    return open_session(face_blender.build(frame_format, size, method=method))


def make_warp(center: tuple[float, float], width: float, angle: float, size: int) -> np.ndarray:
    """Frame to crop for a square of `width` frame pixels about `center`, turned by `angle`."""
    scale = size / width
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    middle = (size - 1) / 2
    x, y = center
    return np.array([[c, -s, middle - c * x + s * y], [s, c, middle - s * x - c * y]], np.float32)


def make_request(
    frame_format: str,
    height: int,
    width: int,
    places: list[list[tuple[float, float, float, float]]],
    *,
    size: int = SIZE,
    options: list[list[float]] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """One row a list of places (x, y, width in pixels, angle); every slot holds a face."""
    rng = np.random.default_rng(seed)
    batch, slots = len(places), len(places[0])
    shape = (height * 3 // 2, width) if frame_format == "i420" else (height, width, 3)
    noise = rng.random((batch * slots * 3, size, size)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 2.0) for plane in noise])
    crops = np.clip((smooth - 0.5) * 3.0 + 0.5, 0.0, 1.0).reshape(batch, slots, 3, size, size)
    faces = np.zeros((batch, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[:, :slots, SCORE_COLUMN] = 0.9
    request = {
        "frame": rng.integers(0, 256, (batch, *shape), dtype=np.uint8),
        "swapped_crops": crops,
        "masks": np.tile(blending.box_mask(size).astype(np.float32), (batch, slots, 1, 1, 1)),
        "warps": np.array(
            [[make_warp((x, y), w, a, size) for x, y, w, a in row] for row in places], np.float32
        ),
        "faces": faces,
        "options": np.zeros((batch, OPTION_COUNT), np.float32),
    }
    if options is not None:
        request["options"][:, : len(options[0])] = options
    return request


def run(
    request: dict[str, np.ndarray], *, method: Method, size: int = SIZE, **changes: Any
) -> np.ndarray:
    frame_format: FrameFormat = "i420" if request["frame"].ndim == 3 else "bgr"
    feeds = {**request, **changes}
    return np.asarray(session(frame_format, method, size).run(None, feeds)[0])


def expected(request: dict[str, np.ndarray], *, truncate: bool = False) -> np.ndarray:
    frame_format = "i420" if request["frame"].ndim == 3 else "bgr"
    return np.stack(
        [
            blending.blend(
                request["frame"][row],
                frame_format,
                request["swapped_crops"][row],
                request["masks"][row],
                request["warps"][row],
                request["faces"][row, :, SCORE_COLUMN],
                request["options"][row],
                truncate=truncate,
            )
            for row in range(len(request["frame"]))
        ]
    )


def check(request: dict[str, np.ndarray], *, method: Method, size: int = SIZE) -> np.ndarray:
    swapped, wanted = run(request, method=method, size=size), expected(request)
    difference = np.abs(swapped.astype(int) - wanted)
    assert difference.max() <= ROUNDING
    assert (difference > 0).mean() <= ROUNDED_SHARE
    return swapped


def outside(request: dict[str, np.ndarray], size: int = SIZE) -> np.ndarray:
    """Which values of the frames lie outside every mask: bool, like the frames."""
    frame_format = "i420" if request["frame"].ndim == 3 else "bgr"
    rows = range(len(request["frame"]))
    options = request["options"]
    return ~np.stack(
        [
            blending.covered(
                request["frame"][row], frame_format, request["warps"][row], size, options[row]
            )
            for row in rows
        ]
    )


@every_method
@either_format
def test_a_turned_face_is_laid_on_as_the_oracle_does(frame_format: str, method: Method) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 70.0, 0.4)]])
    swapped = check(request, method=method)
    assert (swapped != request["frame"]).mean() > 0.2


@every_method
@either_format
@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (66, 94), (98, 70), (90, 122)], ids=lambda size: str(size)
)
def test_small_and_unaligned_frames(
    frame_format: str, height: int, width: int, method: Method
) -> None:
    # rows mod 4 is 2 in three of them: U ends in the middle of a row
    place = (width * 0.45, height * 0.55, 40.0, -0.7)
    check(make_request(frame_format, height, width, [[place]]), method=method)


@every_method
@either_format
@pytest.mark.parametrize(
    "place",
    [(2.0, 50.0, 60.0, 0.2), (127.0, 95.0, 80.0, 1.0), (64.0, -20.0, 60.0, 0.0)],
    ids=["left edge", "corner", "mostly above"],
)
def test_a_face_partly_outside_the_frame(
    frame_format: str, place: tuple[float, float, float, float], method: Method
) -> None:
    request = make_request(frame_format, 96, 128, [[place]])
    swapped = check(request, method=method)
    assert (swapped != request["frame"]).any()


@every_method
@either_format
def test_a_face_wholly_outside_changes_nothing(frame_format: str, method: Method) -> None:
    for place in [(-300.0, 40.0, 60.0, 0.3), (64.0, 4000.0, 60.0, 0.3)]:
        request = make_request(frame_format, 96, 128, [[place]])
        np.testing.assert_array_equal(run(request, method=method), request["frame"])


@every_method
@either_format
def test_later_slots_lie_over_earlier_ones(frame_format: str, method: Method) -> None:
    rng = np.random.default_rng(3)
    places = [
        (rng.uniform(20, 108), rng.uniform(20, 76), 50.0, rng.uniform(-1, 1)) for _ in "k" * 16
    ]
    request = make_request(frame_format, 96, 128, [places])
    swapped = run(request, method=method)
    difference = np.abs(swapped.astype(int) - expected(request))
    # A level off under one face may be a level off again under the next.
    assert difference.max() <= 2
    assert (difference > 0).mean() <= 16 * ROUNDED_SHARE
    reverse = {**request, "swapped_crops": request["swapped_crops"][:, ::-1].copy()}
    reverse["warps"] = request["warps"][:, ::-1].copy()
    assert (run(reverse, method=method) != swapped).any()


@every_method
@either_format
def test_any_mask_bounds_its_own_slot(frame_format: str, method: Method) -> None:
    places = [[(40.0, 40.0, 50.0, 0.1), (80.0, 56.0, 60.0, 0.5), (70.0, 30.0, 44.0, -0.3)]]
    request = make_request(frame_format, 96, 128, places)
    random = np.random.default_rng(9)
    blobs = cv2.GaussianBlur(random.random((SIZE, SIZE)).astype(np.float32), (0, 0), 4.0)
    request["masks"][0, 0, 0] = np.clip((blobs - blobs.mean()) * 8 + 0.5, 0, 1)
    request["masks"][0, 1] = 1.0
    request["masks"][0, 2] = 0.0
    swapped = check(request, method=method)
    without = {**request, "swapped_crops": request["swapped_crops"].copy()}
    without["swapped_crops"][0, 2] = 0.5
    np.testing.assert_array_equal(run(without, method=method), swapped)


@every_method
@either_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_a_mask_of_no_weights_shows_nothing(frame_format: str, bad: float, method: Method) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 50.0, 0.4)]])
    masks = np.full_like(request["masks"], bad)
    swapped = run(request, method=method, masks=masks)
    np.testing.assert_array_equal(swapped, request["frame"])


@every_method
@either_format
def test_rows_of_a_batch_keep_apart(frame_format: str, method: Method) -> None:
    places = [[(40.0, 40.0, 50.0, 0.1), (90.0, 60.0, 40.0, 0.5)]] * 3
    options = [[0, 1, 0, 0, 0, 0, 0, 0], [0, 2, 1, 1, 0, 0, 0, 0], [0, 3, 0, 2, 0, 0, 0, 0]]
    request = make_request(frame_format, 96, 128, places, options=options)  # type: ignore[arg-type]
    request["faces"][1, 0, SCORE_COLUMN] = 0
    request["warps"][1, 0] = 0
    swapped = check(request, method=method)
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in request.items()}
        np.testing.assert_array_equal(run(alone, method=method)[0], swapped[row])


@every_method
@either_format
def test_no_face_returns_the_frame_bit_for_bit(frame_format: str, method: Method) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 70.0, 0.4)] * 3])
    request["faces"][:] = 0
    np.testing.assert_array_equal(run(request, method=method), request["frame"])


@every_method
@either_format
def test_pixels_outside_the_mask_keep_their_bytes(frame_format: str, method: Method) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 40.0, 0.4)]])
    swapped, far = run(request, method=method), outside(request)
    assert 0.5 < far.mean() < 0.95
    np.testing.assert_array_equal(swapped[far], request["frame"][far])
    assert (swapped[~far] != request["frame"][~far]).mean() > 0.8


@every_method
@either_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_stays_inside_the_mask(
    frame_format: str, bad: float, method: Method
) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 50.0, 0.4)]])
    poisoned = request["swapped_crops"].copy()
    poisoned[..., 20:40, 25:35] = bad
    swapped = run(request, method=method, swapped_crops=poisoned)
    far = outside(request)
    np.testing.assert_array_equal(swapped[far], request["frame"][far])
    assert (swapped != request["frame"]).any()


@every_method
@either_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_crop_of_no_numbers_leaves_the_frame(
    frame_format: str, bad: float, method: Method
) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 50.0, 0.4)]])
    crops = np.full_like(request["swapped_crops"], bad)
    swapped = run(request, method=method, swapped_crops=crops)
    np.testing.assert_array_equal(swapped, request["frame"])


@every_method
def test_warps_that_are_no_numbers_leave_the_frame(method: Method) -> None:
    request = make_request("i420", 96, 128, [[(60.0, 50.0, 50.0, 0.4)]])
    for bad in (np.nan, np.inf, 0.0):
        warps = np.full_like(request["warps"], bad)
        swapped = run(request, method=method, warps=warps)
        np.testing.assert_array_equal(swapped, request["frame"])


@every_method
def test_warps_onto_a_line_show_no_face_whoever_shares_the_batch(method: Method) -> None:
    flat = np.array([[0.5, 0.25, 3.0], [1.0, 0.5, 6.0]], np.float32)
    request = make_request("i420", 96, 128, [[(40.0, 40.0, 30.0, 0.0)], [(64.0, 48.0, 90.0, 0.1)]])
    request["warps"][0, 0] = flat
    swapped = run(request, method=method)
    np.testing.assert_array_equal(swapped[0], request["frame"][0])
    assert (swapped[1] != request["frame"][1]).any()


@every_method
@either_format
def test_options_that_are_not_valid_leave_the_frame(frame_format: str, method: Method) -> None:
    request = make_request(frame_format, 96, 128, [[(60.0, 50.0, 50.0, 0.4)]])
    for column, value in ((1, 9.0), (2, np.nan), (3, 0.5), (15, 1.0)):
        options = request["options"].copy()
        options[:, column] = value
        swapped = run(request, method=method, options=options)
        np.testing.assert_array_equal(swapped, request["frame"])


@every_method
@pytest.mark.parametrize("matrix", [0, 1, 2, 3])
@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("location", [0, 1, 2])
def test_every_colour_space_and_chroma_location(
    matrix: int, full: int, location: int, method: Method
) -> None:
    options = [[0.0, matrix, full, location, 0, 0, 0, 0]]
    request = make_request("i420", 70, 96, [[(50.0, 30.0, 50.0, 0.6)]], options=options)
    check(request, method=method)


@every_method
@either_format
@pytest.mark.parametrize(("height", "width"), [(720, 1280), (2160, 3840)])
def test_large_frames(frame_format: str, height: int, width: int, method: Method) -> None:
    place = (width * 0.7, height * 0.4, height * 0.3, 0.3)
    request = make_request(frame_format, height, width, [[place]], size=128)
    check(request, method=method, size=128)


@either_format
def test_the_methods_agree(frame_format: str) -> None:
    places = [[(40.0, 40.0, 50.0, 0.1), (90.0, 60.0, 40.0, 0.5), (-9.0, 20.0, 50.0, 2.0)]]
    request = make_request(frame_format, 98, 128, places)
    whole, *others = (run(request, method=method) for method in METHODS)
    for other in others:
        difference = np.abs(whole.astype(int) - other)
        assert difference.max() <= ROUNDING
        assert (difference > 0).mean() <= ROUNDED_SHARE


@every_method
@pytest.mark.parametrize("size", [128, 256])
def test_facefusions_mask_and_blend_are_within_one_level(size: int, method: Method) -> None:
    request = make_request("bgr", 300, 400, [[(200.0, 150.0, 180.0, 0.25)]], size=size)
    swapped = run(request, method=method, size=size).astype(int)
    assert np.abs(swapped - expected(request, truncate=True)).max() <= 1


@pytest.mark.parametrize("size", [32, 112, 128, 256, 512])
def test_the_mask_is_facefusions(size: int) -> None:
    profile = box_mask_profile(size)
    # OpenCV blurs float32 in two passes; the products differ in the last bits.
    np.testing.assert_allclose(np.outer(profile, profile), blending.box_mask(size), atol=1e-6)


def test_the_masks_profile_has_facefusions_measured_values() -> None:
    # edge values and half crossings for blur 0.3, measured on FaceFusion's own code
    for size, edge, crossing in ((128, 0.073, 9), (256, 0.051, 19), (512, 0.048, 38)):
        profile = box_mask_profile(size)
        assert profile[0] == pytest.approx(edge, abs=5e-4)
        assert profile[crossing - 1] < 0.5 < profile[crossing + 1]


def test_building_twice_gives_the_same_bytes() -> None:
    for method in METHODS:
        once, again = (
            face_blender.build("i420", SIZE, method=method).SerializeToString(deterministic=True)
            for _ in range(2)
        )
        assert once == again
