"""Colour spaces, planes and option checks against NumPy, and against OpenCV where it has a say."""

import itertools

import cv2
import numpy as np
import pytest

from graphs import pixels
from graphs.contract import ChromaLocation, ColorMatrix, ColorRange, Option
from tests.graphs.evaluation import evaluate
from tests.reference import pixels as reference

MATRICES = (ColorMatrix.BT601, ColorMatrix.BT709, ColorMatrix.BT2020)
# float32 of numbers up to 255 with three products: a few units in the last place
YUV_TOLERANCE = 1e-4
RGB_TOLERANCE = 1e-6


def options_rows(*rows: dict[Option, float]) -> np.ndarray:
    options = np.zeros((len(rows), 16), dtype=np.float32)
    for index, row in enumerate(rows):
        for name, value in row.items():
            options[index, name] = value
    return options


def test_limited_bt601_has_the_coefficients_printed_in_the_literature():
    forward, offset = pixels.rgb_to_yuv_matrix(ColorMatrix.BT601, ColorRange.LIMITED)
    # the widely printed integer-scaled form, rounded to three decimals
    printed = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    np.testing.assert_allclose(forward, printed, atol=5e-4)
    np.testing.assert_array_equal(offset, [16.0, 128.0, 128.0])


@pytest.mark.parametrize(
    ("matrix", "white", "red_v"),
    [(ColorMatrix.BT709, 1.5748, 1.8556), (ColorMatrix.BT2020, 1.4746, 1.8814)],
)
def test_full_range_factors_are_those_of_the_recommendations(matrix, white, red_v):
    inverse, _ = pixels.yuv_to_rgb_matrix(matrix, ColorRange.FULL)
    # BT.709-6 item 3.3 and BT.2020-2 table 4: divisors of E'R-E'Y and E'B-E'Y
    np.testing.assert_allclose(inverse[0, 2] * 255.0, white, atol=1e-12)
    np.testing.assert_allclose(inverse[2, 1] * 255.0, red_v, atol=1e-12)


def test_an_undecided_matrix_is_refused():
    with pytest.raises(ValueError, match="matrix that is decided"):
        pixels.rgb_to_yuv_matrix(ColorMatrix.AUTO, ColorRange.FULL)


def convert(direction, values, options, height):
    def piece(op, values, options, height):
        color = pixels.color_index(op, options, height)
        if direction == "to_yuv":
            return pixels.rgb_to_yuv(op, values, color)
        channels = [op.Slice(values, [i], [i + 1], [2]) for i in range(3)]
        return pixels.yuv_to_rgb(op, *channels, color)

    return evaluate(piece, values, options, np.array([height], dtype=np.int64))[0]


def test_every_row_of_a_batch_is_converted_with_its_own_matrix_and_range():
    combinations = list(itertools.product(MATRICES, ColorRange))
    options = options_rows(
        *({Option.COLOR_MATRIX: m, Option.COLOR_RANGE: r} for m, r in combinations)
    )
    random = np.random.default_rng(1)
    rgb = random.random((len(combinations), 2, 3, 5, 7), dtype=np.float32)
    yuv = convert("to_yuv", rgb, options, 480)
    for row, (matrix, color_range) in enumerate(combinations):
        expected = reference.rgb_to_yuv(np.moveaxis(rgb[row], 1, -1), matrix, color_range == 1)
        np.testing.assert_allclose(np.moveaxis(yuv[row], 1, -1), expected, atol=YUV_TOLERANCE)
    back = convert("to_rgb", yuv, options, 480)
    np.testing.assert_allclose(back, rgb, atol=RGB_TOLERANCE * 2)


def test_colours_outside_the_gamut_are_clipped():
    yuv = np.array([[16, 16, 235], [240, 128, 255], [128, 240, 128]], dtype=np.float32)
    yuv = yuv.reshape(1, 1, 3, 1, 3)
    rgb = convert("to_rgb", yuv, options_rows({}), 480)
    expected = reference.yuv_to_rgb(np.moveaxis(yuv[0], 1, -1), 1, False)
    assert expected.min() < 0.0
    assert expected.max() > 1.0
    np.testing.assert_allclose(
        np.moveaxis(rgb[0], 1, -1), np.clip(expected, 0.0, 1.0), atol=RGB_TOLERANCE
    )


@pytest.mark.parametrize(
    ("height", "decided"), [(718, ColorMatrix.BT601), (720, ColorMatrix.BT709), (2160, 2)]
)
def test_auto_means_bt709_from_720_rows_up(height, decided):
    rgb = np.random.default_rng(2).random((2, 1, 3, 4, 4), dtype=np.float32)
    options = options_rows({}, {Option.COLOR_MATRIX: decided})
    automatic, named = convert("to_yuv", np.stack([rgb[0], rgb[0]]), options, height)
    np.testing.assert_array_equal(automatic, named)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (66, 90), (2, 2), (1080, 1920)])
def test_planes_are_split_by_bytes_and_joined_again(height, width):
    random = np.random.default_rng(height)
    frame = random.integers(0, 256, (2, height * 3 // 2, width)).astype(np.float32)

    def piece(op, frame):
        luma, chroma = pixels.split_i420(op, frame)
        return [luma, chroma, pixels.join_i420(op, luma, chroma)]

    luma, chroma, joined = evaluate(piece, frame)
    for row in range(2):
        y, u, v = reference.split_i420(frame[row])
        np.testing.assert_array_equal(luma[row, 0], y)
        np.testing.assert_array_equal(chroma[row], [u, v])
    np.testing.assert_array_equal(joined, frame)


def test_planes_agree_with_opencv_where_u_ends_in_the_middle_of_a_row():
    random = np.random.default_rng(4)
    bgr = random.integers(0, 256, (66, 70, 3), dtype=np.uint8)
    frame = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    flat = cv2.cvtColor(np.full_like(bgr, (10, 200, 30)), cv2.COLOR_BGR2YUV_I420)
    luma, chroma = evaluate(lambda op, f: pixels.split_i420(op, f), frame[None].astype(np.float32))
    assert luma.shape == (1, 1, 66, 70)
    assert chroma.shape == (1, 2, 33, 35)
    _, chroma = evaluate(lambda op, f: pixels.split_i420(op, f), flat[None].astype(np.float32))
    # one colour everywhere: each plane is constant, and the two differ
    assert np.ptp(chroma[0, 0]) == 0
    assert np.ptp(chroma[0, 1]) == 0
    assert chroma[0, 0, 0, 0] != chroma[0, 1, 0, 0]


def test_full_range_bt601_agrees_with_opencv():
    bgr = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)[..., [0, 2, 1]].astype(np.float32)
    rgb = np.moveaxis(bgr[..., ::-1].astype(np.float32) / 255.0, -1, 0)[None, None]
    options = options_rows({Option.COLOR_MATRIX: 1, Option.COLOR_RANGE: 1})
    yuv = np.moveaxis(convert("to_yuv", rgb, options, 480)[0, 0], 0, -1)
    # OpenCV rounds luma first (0.5 levels, times 0.71 in chroma), then the chroma (0.5)
    np.testing.assert_allclose(yuv, expected, atol=0.9)


@pytest.mark.parametrize(
    ("location", "offset"),
    [
        (ChromaLocation.LEFT, (0.0, 0.5)),
        (ChromaLocation.CENTER, (0.5, 0.5)),
        (ChromaLocation.TOP_LEFT, (0.0, 0.0)),
    ],
)
def test_chroma_samples_lie_where_the_location_says(location, offset):
    options = options_rows({}, {Option.CHROMA_LOCATION: location})
    rows = evaluate(lambda op, o: pixels.chroma_offset(op, o), options)[0]
    np.testing.assert_array_equal(rows, [(0.0, 0.5), offset])


INVALID = {
    "NaN in a code": {Option.FACE_ORDER: np.nan},
    "NaN in a threshold": {Option.SCORE_THRESHOLD: np.nan},
    "NaN in a reserved position": {15: np.nan},
    "infinity": {Option.NMS_THRESHOLD: np.inf},
    "minus infinity": {Option.COLOR_MATRIX: -np.inf},
    "unknown order": {Option.FACE_ORDER: 8},
    "unknown matrix": {Option.COLOR_MATRIX: 4},
    "unknown range": {Option.COLOR_RANGE: 2},
    "unknown location": {Option.CHROMA_LOCATION: 3},
    "negative code": {Option.FACE_ORDER: -1},
    "half a code": {Option.COLOR_MATRIX: 0.5},
    "negative threshold": {Option.SCORE_THRESHOLD: -0.01},
    "threshold above one": {Option.NMS_THRESHOLD: 1.01},
    "masks that are none and one": {Option.MASKS: 9},
    "half a mask": {Option.MASKS: 1.5},
    "unknown part to keep": {Option.KEEP: 16},
    "unknown refinement": {Option.REFINEMENT: 2},
    "blur above one": {Option.BOX_BLUR: 1.01},
    "half a percent of padding": {Option.BOX_PADDING: 0.5},
    "padding beyond its base": {Option.BOX_PADDING: 2.0**24},
    "weight above one": {Option.SWAPPER_WEIGHT: 1.01},
    "a limit behind the head": {Option.POSE_LIMIT: 181},
    "unknown area": {Option.AREAS: 8},
    "reserved position 14": {14: 1},
    "reserved position 15": {15: 0.001},
}


def check(options):
    def piece(op, options):
        valid = pixels.valid_options(op, options)
        return [valid, pixels.safe_options(op, options, valid)]

    return evaluate(piece, options)


@pytest.mark.parametrize("row", INVALID.values(), ids=INVALID.keys())
def test_options_that_the_contract_does_not_name_are_invalid_in_their_own_row_only(row):
    options = options_rows({}, row, {Option.FACE_ORDER: 7})
    valid, safe = check(options)
    assert valid.tolist() == [[True], [False], [True]]
    np.testing.assert_array_equal(safe[1], np.zeros(16))
    np.testing.assert_array_equal(safe[2], options[2])


def test_every_option_that_the_contract_names_is_valid():
    rows = [
        {Option.FACE_ORDER: order, Option.COLOR_MATRIX: matrix, Option.COLOR_RANGE: color_range}
        | {Option.CHROMA_LOCATION: location, Option.SCORE_THRESHOLD: score, 5: 1.0 - score}
        for order in range(8)
        for matrix in range(4)
        for color_range in range(2)
        for location, score in ((0, 0.0), (1, 0.3), (2, 1.0))
    ]
    rows += [{Option.MASKS: masks, Option.KEEP: masks % 8} for masks in range(9)]
    rows += [
        {Option.REFINEMENT: 1, Option.BOX_BLUR: 0.07, Option.BOX_PADDING: 2**24 - 1},
        {Option.SWAPPER_WEIGHT: 0.33, Option.POSE_LIMIT: 12.5},
    ]
    valid, safe = check(options_rows(*rows))
    assert valid.all()
    np.testing.assert_array_equal(safe, options_rows(*rows))
