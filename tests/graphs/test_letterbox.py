"""The detector's view of a frame against NumPy, OpenCV and insightface's own numbers."""

import itertools

import cv2
import numpy as np
import pytest

from graphs.letterbox import letterbox, letterbox_size
from tests.graphs.evaluation import evaluate
from tests.reference import detection as reference

# float32 of values up to 255; positions are exact fractions, so only the mixing rounds
TOLERANCE = 2e-3

# GridSample's positions are float32, in a picture of 6480 rows at 4K: up to 2^-11 px off, between
# levels up to 255 apart; seen 0.04 on noise
SAMPLED_TOLERANCE = 0.13
either_way = pytest.mark.parametrize("sampled", [False, True], ids=["gathered", "sampled"])


def test_sizes_are_insightfaces_but_where_its_division_falls_short():
    sizes = [64, 66, 90, 240, 333, 360, 426, 480, 517, 540, 576, 640, 641, 720, 854, 1000]
    sizes += [1080, 1125, 1280, 1500, 1920, 2160, 2171, 3000, 3840, 4096]
    shapes = np.array(list(itertools.product(sizes, sizes)), dtype=np.int64)
    heights, widths = (np.ascontiguousarray(column) for column in shapes.T)
    got = np.stack(evaluate(lambda op, h, w: list(letterbox_size(op, h, w)), heights, widths), 1)
    expected = [reference.letterbox_size(h, w) for h, w in shapes.tolist()]
    np.testing.assert_array_equal(got, expected)
    theirs = np.array([reference.insightface_size(h, w) for h, w in shapes.tolist()])
    different = (got != theirs).any(axis=1)
    # 640 / (1280 / 854) is 426.99999999999994 in double precision: the true width is 427
    assert shapes[different].tolist() == [[1280, 854]]
    np.testing.assert_array_equal(got[different] - theirs[different], [[0, 1]])


def view(frame, frame_format, options=None, channel_order="rgb", *, sampled=False):
    if options is None:
        options = np.zeros((len(frame), 16), dtype=np.float32)

    def piece(op, frame, options):
        box = letterbox(op, frame, frame_format, options, channel_order, sampled=sampled)
        return [box.pixels, box.scale_x, box.scale_y]

    return evaluate(piece, frame.astype(np.float32), options)


SHAPES = [(64, 64), (66, 90), (90, 66), (640, 640), (334, 518), (1080, 1920), (2160, 3840)]


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (333, 517), (65, 1001)])
def test_bgr_frames_are_resized_like_opencv_and_placed_top_left(height, width):
    frame = np.random.default_rng(height).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    pixels, scale_x, scale_y = view(frame, "bgr", channel_order="bgr")
    new_height, new_width = reference.letterbox_size(height, width)
    assert (scale_x, scale_y) == (np.float32(new_width / width), np.float32(new_height / height))
    resized = cv2.resize(frame[0].astype(np.float32), (new_width, new_height))
    # OpenCV's positions are float32: up to 2^-13 px off at 4K, between levels 255 apart
    np.testing.assert_allclose(
        pixels[0, :, :new_height, :new_width], np.moveaxis(resized, -1, 0), atol=0.05
    )
    expected = reference.letterbox(frame[0], "bgr", np.zeros(16))
    np.testing.assert_allclose(pixels[0, ::-1], expected, atol=TOLERANCE)
    assert not pixels[0, :, new_height:].any()
    assert not pixels[0, :, :, new_width:].any()


@either_way
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_i420_frames_are_resized_plane_by_plane(height, width, sampled):
    random = np.random.default_rng(width)
    frame = random.integers(0, 256, (1, height * 3 // 2, width), dtype=np.uint8)
    pixels, *_ = view(frame, "i420", sampled=sampled)
    expected = reference.letterbox(frame[0], "i420", np.zeros(16))
    tolerance = SAMPLED_TOLERANCE if sampled else TOLERANCE
    np.testing.assert_allclose(pixels[0], expected, atol=tolerance)


@either_way
def test_every_row_has_its_own_colour_space_and_chroma_location(sampled):
    rows = list(itertools.product(range(4), range(2), range(3)))
    options = np.zeros((len(rows), 16), dtype=np.float32)
    options[:, 1:4] = rows
    random = np.random.default_rng(3)
    frame = random.integers(0, 256, (len(rows), 105, 94), dtype=np.uint8)
    pixels, *_ = view(frame, "i420", options, sampled=sampled)
    for row in range(len(rows)):
        expected = reference.letterbox(frame[row], "i420", options[row])
        # of so small a frame positions are exact to 2^-16 px
        np.testing.assert_allclose(pixels[row], expected, atol=0.02 if sampled else TOLERANCE)


def test_channels_come_in_the_order_asked_for():
    i420 = np.random.default_rng(4).integers(0, 256, (1, 96, 64), dtype=np.uint8)
    bgr = np.random.default_rng(5).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    for frame, frame_format in ((i420, "i420"), (bgr, "bgr")):
        rgb = view(frame, frame_format, channel_order="rgb")[0]
        swapped = view(frame, frame_format, channel_order="bgr")[0]
        np.testing.assert_array_equal(rgb[:, ::-1], swapped)


def test_an_i420_frame_looks_like_its_bgr_original():
    y, x = np.mgrid[:360, :640] / 640.0
    bgr = np.stack([x, y, 1 - x], axis=-1) * 255
    frame = cv2.cvtColor(bgr.astype(np.uint8), cv2.COLOR_BGR2YUV_I420)
    planes = view(frame[None], "i420")[0]
    direct = view(bgr.astype(np.uint8)[None], "bgr")[0]
    # a smooth picture: 8-bit rounding of three planes costs up to about two levels
    np.testing.assert_allclose(planes, direct, atol=3.0)


UNEVEN = [(1080, 1998), (768, 1366), (480, 854), (800, 1920), (333, 2000)]


@pytest.mark.parametrize(("height", "width"), [*UNEVEN, *((w, h) for h, w in UNEVEN)])
def test_a_dot_is_read_back_where_it_was_drawn(height, width):
    """Of sizes whose ratio is cut to whole pixels: far right and far down, within 0.1 px."""
    # far out on the long axis, and whole on the short one
    y, x = (size * (0.96 if size == max(height, width) else 0.7) for size in (height, width))
    rows, columns = np.mgrid[:height, :width]
    spread = max(height, width) / 640 * 3
    dot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * spread**2)) * 250
    frame = np.repeat(np.rint(dot)[None, ..., None], 3, axis=3).astype(np.uint8)
    pixels, scale_x, scale_y = view(frame, "bgr")
    seen = pixels[0, 1].astype(np.float64)
    total = seen.sum()
    # a pixel centre lies at half a pixel of either picture
    found_x = ((seen * np.arange(640)).sum() / total + 0.5) / scale_x - 0.5
    found_y = ((seen * np.arange(640)[:, None]).sum() / total + 0.5) / scale_y - 0.5
    np.testing.assert_allclose([found_x.item(), found_y.item()], [x, y], atol=0.1)
