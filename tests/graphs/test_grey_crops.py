"""Grey stays grey: the rule against NumPy, and what frames of both formats then hold."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import face_swapper, image_swapper
from graphs.contract import OPTION_COUNT, ColorMatrix, ColorRange, Option
from graphs.grey_crops import keep_grey
from graphs.pixels import color_index, rgb_to_yuv, yuv_to_rgb
from graphs.shapes import dimension
from networks.swappers import SWAPPERS
from tests.graphs.evaluation import evaluate, open_session
from tests.graphs.test_face_swapper import make_request, run_graph
from tests.reference import grey as reference
from tests.reference import swapping

SIDE = 64


def tinted(levels: float, seed: int = 0) -> np.ndarray:
    """A crop (3, S, S) whose channels lie `levels` of 255 apart in the mean."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(0.2, 0.6, (SIDE, SIDE))
    apart = levels / 255 * rng.uniform(0.5, 1.5, (SIDE, SIDE))
    apart *= levels / 255 / max(apart[::4, ::4].mean(), 1e-9)
    return np.float32(np.stack([plane + apart, plane + apart / 3, plane]))


@pytest.mark.parametrize("levels", [0.0, 3.9, 4.1, 5.5, 7.0, 9.9, 10.1, 60.0])
def test_the_share_of_colour_is_the_formula(levels: float) -> None:
    crop = tinted(levels)
    swapped = np.random.default_rng(1).random((3, SIDE, SIDE), dtype=np.float32)
    (found,) = evaluate(keep_grey, crop[None, None], swapped[None, None])
    np.testing.assert_allclose(found[0, 0], reference.keep_grey(crop, swapped), atol=2e-6)
    channels_apart = np.ptp(found[0, 0], axis=0).max()
    assert (channels_apart == 0) == (levels < 4)
    if levels > 10:
        np.testing.assert_array_equal(found[0, 0], swapped)


def test_the_share_never_jumps() -> None:
    shares = [reference.color_share(tinted(levels)) for levels in np.linspace(0, 15, 61)]
    assert np.abs(np.diff(shares)).max() < 0.05
    assert shares == sorted(shares)


def test_each_slot_keeps_its_own() -> None:
    crops = np.stack([tinted(0.0), tinted(60.0)])[None]
    swapped = np.random.default_rng(2).random((1, 2, 3, SIDE, SIDE), dtype=np.float32)
    (found,) = evaluate(keep_grey, crops, swapped)
    assert np.ptp(found[0, 0], axis=0).max() == 0
    np.testing.assert_array_equal(found[0, 1], swapped[0, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_no_number_decides_nothing(value: float) -> None:
    for levels in (0.0, 60.0):
        crop = tinted(levels)
        swapped = np.random.default_rng(3).random((3, SIDE, SIDE), dtype=np.float32)
        (clean,) = evaluate(keep_grey, crop[None, None], swapped[None, None])
        crop[1, 8, 8] = value
        (found,) = evaluate(keep_grey, crop[None, None], swapped[None, None])
        np.testing.assert_allclose(found, clean, atol=1e-6)


@pytest.mark.parametrize("matrix", list(ColorMatrix))
@pytest.mark.parametrize("color_range", list(ColorRange))
@pytest.mark.parametrize("chroma", [(0, 0), (1, 0), (0, -1), (1, -1)])
def test_a_grey_i420_target_gets_chroma_of_128(
    matrix: ColorMatrix, color_range: ColorRange, chroma: tuple[int, int]
) -> None:
    # What the aligner makes of a grey frame, off by a level where compression put it there.
    rng = np.random.default_rng(4)
    luma = rng.integers(16, 236, (1, 1, 1, SIDE, SIDE)).astype(np.float32)
    blue, red = (np.full_like(luma, 128 + shift) for shift in chroma)
    options = np.zeros((1, OPTION_COUNT), np.float32)
    options[0, [Option.COLOR_MATRIX, Option.COLOR_RANGE]] = matrix, color_range
    swapped = rng.random((1, 1, 3, SIDE, SIDE), dtype=np.float32)

    def piece(op, y, u, v, swapped, options):
        index = color_index(op, options, dimension(op, y, 3))
        crops = yuv_to_rgb(op, y, u, v, index)
        return rgb_to_yuv(op, keep_grey(op, crops, swapped), index)

    (planes,) = evaluate(piece, luma, blue, red, swapped, options)
    assert set(np.round(planes[0, 0, 1:]).ravel()) == {128.0}
    assert planes[0, 0, 0].std() > 10


def test_the_projects_own_swapper_leaves_a_grey_crop_grey_and_a_coloured_one_alone() -> None:
    name = "image_swapper_256"
    model = face_swapper.build(SWAPPERS[name], image_swapper.build_network(256))
    request = make_request(name, [[0.9, 0.9]])
    request["crops"][0, 0] = request["crops"][0, 0].mean(axis=0)
    swapped = run_graph(model, request)
    assert np.ptp(swapped[0, 0], axis=0).max() == 0
    # The swap itself, from the network alone.
    network = open_session(image_swapper.build_network(256))
    source = np.float32(swapping.unpack(request["source"][0, 1], 256))[None]
    (alone,) = network.run(None, {"target": request["crops"][0, 1][None], "source": source})
    np.testing.assert_allclose(swapped[0, 1], alone[0], atol=1e-6)
