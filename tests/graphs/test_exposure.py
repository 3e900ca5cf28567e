"""Dark crops: shown to our own swappers as bright as pictures are, and made dark again."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np
import onnxruntime
import pytest

from demo.photos import read_photo
from engines.deployment import Deployment
from engines.samples import Image, Sample, Samples, open_session
from engines.served_graphs import served_graphs
from engines.typed_graphs import YARDSTICK
from fetching import weights
from graphs import face_swapper, image_swapper
from graphs.authoring import GraphAuthor
from graphs.contract import CROPS
from graphs.exposure import exposures
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS
from tests.generated_networks import swapper_network
from tests.graphs import evaluation
from tests.graphs.test_face_swapper import make_request, run_graph

SIDE, LEAST_LIGHT, LEAST = 64, 0.3, 1 / 64
OWN = [name for name, row in SWAPPERS.items() if row.least_light]


@functools.cache
def session() -> onnxruntime.InferenceSession:
    author = GraphAuthor("exposure")
    crops = author.input(replace(CROPS, dims=("K", 3, SIDE, SIDE)))
    made = exposures(author.op, crops, LEAST_LIGHT)
    author.output(made, replace(CROPS, name="light", dims=("K", 1, 1, 1)))
    return evaluation.open_session(author.finish())


def measured(crops: np.ndarray) -> np.ndarray:
    """Of crops (K, 3, S, S): (K,)."""
    (light,) = session().run(None, {"crops": crops[None].astype(np.float32)})
    return np.asarray(light)[0, :, 0, 0, 0]


def expected(crop: np.ndarray) -> float:
    """The definition, in double precision, of a crop (3, S, S)."""
    seen = crop[:, ::4, ::4].astype(np.float64)
    cells = seen.reshape(3, SIDE // 16, 4, SIDE // 16, 4).mean((2, 4))
    return float(np.clip(max(seen.mean() / LEAST_LIGHT, cells.max()), LEAST, 1))


def test_the_light_of_a_crop_is_its_definition() -> None:
    random = np.random.default_rng(3)
    crops = np.stack(
        [cv2.GaussianBlur(random.random((SIDE, SIDE, 3)), (0, 0), 6).transpose(2, 0, 1) * share
         for share in (1.0, 0.9, 0.5, 0.2, 0.05, 0.01, 0.0)]
    )  # fmt: skip
    found = measured(crops)
    # float32 sums of 768 numbers
    np.testing.assert_allclose(found, [expected(crop) for crop in crops], rtol=1e-5)
    assert found[0] == 1
    assert found[-1] == np.float32(LEAST)
    assert (np.diff(found) <= 0).all()


def test_a_lamp_in_the_night_does_not_become_brighter_than_white() -> None:
    crop = np.full((1, 3, SIDE, SIDE), 0.02)
    crop[..., 16:32, 16:32] = 0.8
    assert measured(crop)[0] == pytest.approx(0.8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -5.0])
def test_what_is_no_colour_is_black_and_the_light_a_number(value: float) -> None:
    crop = np.full((1, 3, SIDE, SIDE), 0.09)
    crop[0, :, 4, 4] = value
    clean = crop.copy()
    clean[0, :, 4, 4] = 0
    assert measured(crop)[0] == pytest.approx(expected(clean[0]))


def painting(name: str) -> Image:
    photo = read_photo(name)
    size = round(photo.shape[1] * 360 / photo.shape[0]) * 2, 720
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)


@functools.cache
def swap_of(name: str) -> tuple[onnxruntime.InferenceSession, Sample]:
    """A served swapper with its own weights, and Newton's face on Gauss."""
    row = SWAPPERS[name]
    deployment = Deployment(
        swapper=row, detector="yunet", recognizer=RECOGNIZERS["sface"],
        landmarker=LANDMARKERS[DEFAULT_LANDMARKER],
    )  # fmt: skip
    graphs = served_graphs(deployment, YARDSTICK)
    samples = Samples(
        lambda model: graphs[model].author(weights.load_network),
        [painting("newton"), painting("gauss")],
        deployment.extras,
    )
    graph = graphs["face_swapper"].author(weights.load_network)
    return open_session(graph), samples.of("face_swapper")[1]


@pytest.mark.parametrize("share", [0.5, 0.2, 0.08])
@pytest.mark.parametrize("name", OWN)
def test_a_face_in_the_dark_is_the_face_in_the_light_made_dark(name: str, share: float) -> None:
    graph, sample = swap_of(name)
    crops = sample.feeds["crops"]
    # What a frame of 8 bits keeps of it.
    dim = (np.rint(crops * share * 255) / 255).astype(np.float32)
    (made,) = graph.run(["swapped_crops"], {**sample.feeds, "crops": dim})
    face = np.s_[0, 0, :, 64:192, 64:192]
    made, wanted = made[face], (sample.expected["swapped_crops"] * share)[face]
    # Without it the mean is 2 to 9 levels too high (a face in a twelfth of the light is twice as
    # bright as it should be), and pixels are 8 to 15 off. What is left, 1.1 at most, is the
    # network's own: it sees this picture with a mean of 0.3 instead of 0.4 and more.
    assert abs(float((made - wanted).mean())) * 255 < 1.5
    assert float(np.abs(made.mean(0) - wanted.mean(0)).mean()) * 255 < 5.0


@pytest.mark.parametrize("name", OWN)
def test_a_face_in_the_light_is_shown_to_the_network_as_it_is(name: str) -> None:
    row = SWAPPERS[name]
    network = image_swapper.build_network(256) if row.weight is None else swapper_network(name)
    request = make_request(name, [[0.9]])
    assert request["crops"].mean() > row.least_light
    lit, plain = (
        run_graph(face_swapper.build(each, network), request)
        for each in (row, replace(row, least_light=0.0))
    )
    np.testing.assert_array_equal(lit, plain)
