"""source_encoder against the NumPy oracle, for every swapper, and a real compiler."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from engines.compilers import choose_compiler
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import source_encoder
from graphs.contract import MAX_VIEWS
from networks.face_points import MEDIAPIPE_POINTS
from networks.swappers import SWAPPERS
from tests.generated_networks import converter_network, recognizer_network
from tests.graphs.evaluation import open_session
from tests.graphs.test_face_recognizer import LANDMARKS, make_faces, make_frames
from tests.reference import swapping

# Crops in float32 against float64, through two small networks.
ROUNDING = 1e-4

IMAGE_SOURCES = [
    # name, side and template of the source crop, as published
    ("image_swapper_256", 256, SWAPPERS["image_swapper_256"].source_template),
    ("uniface_256", 256, "ffhq_512"),
    ("blendswap_256", 112, "arcface_112_v2"),
]
# name, converter, whether the source is of unit length
OWN = "frameswap_256"
IDENTITY_SOURCES = [
    ("inswapper_128", None, True),
    ("hyperswap_1a_256", None, True),
    ("simswap_256", "crossface_simswap", True),
    ("ghost_1_256", "crossface_ghost", False),
    ("alphaface_256", None, False),
]


def build(name: str) -> onnx.ModelProto:
    row = SWAPPERS[name]
    recognizer = None if row.recognizer is None else recognizer_network(row.recognizer)
    converter = None if row.converter is None else converter_network(row.converter)
    return source_encoder.build(row, recognizer_network=recognizer, converter_network=converter)


def run_graph(
    model: onnx.ModelProto, frames: npt.NDArray[np.uint8], faces: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Sources [B, D]; no swapper here asks where the source's landmarks are."""
    landmarks = np.zeros((len(frames), MAX_VIEWS, MEDIAPIPE_POINTS, 3), np.float32)
    feeds = {"frame": frames, "faces": faces, "landmarks": landmarks}
    return np.asarray(open_session(model).run(None, feeds)[0])


def test_a_source_of_the_projects_own_network_holds_its_landmarks_too() -> None:
    row, draw = SWAPPERS[OWN], np.random.default_rng(3)
    frames, faces = make_frames(3), make_faces()
    meshes = draw.random((3, MAX_VIEWS, MEDIAPIPE_POINTS, 3), dtype=np.float32) * 200
    meshes[1, 0] = 0.0
    feeds = {"frame": frames, "faces": faces, "landmarks": meshes}
    result = np.asarray(open_session(build(OWN)).run(None, feeds)[0])
    assert result.shape == (3, row.source_length)
    for at, landmarks in enumerate(LANDMARKS):
        warp = swapping.fit(landmarks, "arcface_128", 256)
        crop = swapping.warp(frames[at], warp, 256)
        found = swapping.unpack(result[at, : 256 * 256], 256)
        # as for the image sources below
        np.testing.assert_allclose(found, crop, rtol=0, atol=0.5 / 255 + 1e-4)
        placed = meshes[at, 0].astype(np.float64)
        placed[:, :2] = placed[:, :2] @ warp[:, :2].T + warp[:, 2]
        placed[:, 2] *= np.linalg.norm(warp[:, 0])
        expected = np.zeros_like(placed) if at == 1 else placed / 256
        assert at == 1 or expected.std() > 0.1
        # float32 positions of some hundred pixels
        np.testing.assert_allclose(
            result[at, 256 * 256 :], expected.reshape(-1), rtol=0, atol=1e-5
        )


def raw_embedding(frame: npt.NDArray[np.uint8], landmarks: swapping.Array) -> swapping.Array:
    crop = swapping.warp(frame, swapping.fit(landmarks, "arcface_112_v2", 112), 112)
    image = ((crop * 255 - 127.5) / 127.5)[None].astype(np.float32)
    session = open_session(recognizer_network("w600k_r50"))
    return np.asarray(session.run(None, {"input.1": image})[0][0])


@pytest.mark.parametrize(("name", "converter", "unit_length"), IDENTITY_SOURCES)
def test_an_identity_is_the_embedding_in_the_swappers_own_space(
    name: str, converter: str | None, unit_length: bool
) -> None:
    frames, faces = make_frames(3), make_faces()
    result = run_graph(build(name), frames, faces)
    for row, landmarks in enumerate(LANDMARKS):
        expected = raw_embedding(frames[row], landmarks)
        if converter is not None:
            # The raw embedding goes in here, the unit one in the graph: the converter scales it.
            session = open_session(converter_network(converter))
            expected = np.asarray(session.run(None, {"input": expected[None]})[0][0])
        if unit_length:
            expected = swapping.unit(expected)
        np.testing.assert_allclose(result[row], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["ghost_1_256", "alphaface_256"])
def test_a_source_that_is_wanted_as_it_is_has_not_unit_length(name: str) -> None:
    result = run_graph(build(name), make_frames(3), make_faces())
    assert (np.abs(np.linalg.norm(result, axis=1) - 1) > 0.1).all()


@pytest.mark.parametrize(("name", "size", "template"), IMAGE_SOURCES)
def test_an_image_source_is_the_packed_rgb_crop(name: str, size: int, template: str) -> None:
    frames, faces = make_frames(3), make_faces()
    result = run_graph(build(name), frames, faces)
    assert result.shape == (3, size * size)
    for row, landmarks in enumerate(LANDMARKS):
        expected = swapping.warp(frames[row], swapping.fit(landmarks, template, size), size)
        found = swapping.unpack(result[row], size)
        # Half a level, and 1e-4: coordinates near 200 in float32 are off by up to 1.5e-5 pixels, an
        # edge is 1 a pixel.
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.5 / 255 + 1e-4)
        assert np.abs(found - np.round(expected * 255) / 255).mean() < 1e-4


@pytest.mark.parametrize("name", SWAPPERS)
def test_a_photo_without_a_face_gives_zeros(name: str) -> None:
    faces = make_faces()
    faces[0] = 0.0
    faces[1] = np.nan
    result = run_graph(build(name), make_frames(3), faces)
    assert result.shape == (3, SWAPPERS[name].source_length)
    assert not result[:2].any()
    assert result[2].any()


@pytest.mark.parametrize(
    ("name", "networks", "message"),
    [
        ("inswapper_128", {}, "inswapper_128 needs the recogniser w600k_r50, but no network"),
        ("uniface_256", {"recognizer": "w600k_r50"}, "uniface_256 has no recogniser, but the"),
        (
            "ghost_1_256",
            {"recognizer": "w600k_r50"},
            "ghost_1_256 needs the converter crossface_ghost, but no network was given",
        ),
        (
            "inswapper_128",
            {"recognizer": "w600k_r50", "converter": "crossface_ghost"},
            "inswapper_128 has no converter, but the network of one was given",
        ),
        ("inswapper_128", {"recognizer": "sface"}, r"answer \[\[512\]\].*answers \[\[128\]\]"),
    ],
)
def test_networks_that_do_not_belong_to_the_swapper_are_refused(
    name: str, networks: dict[str, str], message: str
) -> None:
    recognizer, converter = networks.get("recognizer"), networks.get("converter")
    with pytest.raises(ValueError, match=message):
        source_encoder.build(
            SWAPPERS[name],
            recognizer_network=recognizer_network(recognizer) if recognizer else None,
            converter_network=converter_network(converter) if converter else None,
        )


def test_building_twice_gives_the_same_bytes() -> None:
    assert build("simswap_256").SerializeToString() == build("simswap_256").SerializeToString()


@pytest.mark.parametrize("name", ["simswap_256", "blendswap_256"])
def test_a_real_compiler_takes_the_graph(name: str) -> None:
    model = build(name)
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, ProfileLimits(batch=AxisRange(1, 1, 2))),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 1000
