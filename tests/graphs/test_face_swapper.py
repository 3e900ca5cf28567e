"""face_swapper against the NumPy oracle, insightface's INSwapper and a real TensorRT compiler."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from graphs import face_swapper, image_swapper
from graphs.contract import (
    FACE_COLUMNS,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    OPTION_COUNT,
    SCORE_COLUMN,
    Option,
)
from networks.face_points import MEDIAPIPE_POINTS
from networks.passes import CHANNELS_LAST_PASSES, PORTABLE_PASSES
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors, swapper_network
from tests.graphs.evaluation import open_session
from tests.reference import swapping

PUBLISHED = [name for name, row in SWAPPERS.items() if row.weight is not None and not row.points]
OWN = "frameswap_256"

# Two runtimes' float32 sums over one small network; crops are in [0, 1].
FP32_ROUNDING = 2e-5
# The half-precision networks round every value to 11 bits, in another order for other batches.
FP16_ROUNDING = 4e-3


def tolerance(name: str) -> float:
    return FP16_ROUNDING if "fp16" in name or "hyperswap" in name else FP32_ROUNDING


def make_faces(scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """[B, M, 15] with the given scores [B, n] in the first rows."""
    scores = np.asarray(scores, np.float32)
    faces = np.zeros((len(scores), MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[:, : scores.shape[1], SCORE_COLUMN] = scores
    return faces


def make_request(
    name: str, scores: npt.ArrayLike, *, boost: int = 1
) -> dict[str, npt.NDArray[np.float32]]:
    row = SWAPPERS[name]
    faces = make_faces(scores)
    batch, slots = np.asarray(scores).shape
    side = boost * row.crop_size
    crops = np.random.default_rng(1).random((batch, slots, 3, side, side), dtype=np.float32)
    sources = source_vectors(row, batch * slots).reshape(batch, slots, -1)
    return {"crops": crops, "source": sources, "faces": faces, **places(batch, slots)}


def places(batch: int, slots: int) -> dict[str, npt.NDArray[np.float32]]:
    """Where faces lie, which no published swapper asks, and the default options."""
    return {
        "landmarks": np.zeros((batch, slots, MEDIAPIPE_POINTS, 3), np.float32),
        "warps": np.zeros((batch, slots, 2, 3), np.float32),
        "options": np.zeros((batch, OPTION_COUNT), np.float32),
    }


def single_runner(name: str, network: onnx.ModelProto) -> swapping.Network:
    """The published network as it is, one crop at a time."""
    row, session = SWAPPERS[name], open_session(network)

    def run(crop: swapping.Array, source: swapping.Array) -> swapping.Array:
        if row.source_size is not None:
            source = swapping.unpack(source, row.source_size)
        feeds = {"target": crop[None], "source": source[None]}
        outputs = session.run(None, {key: v.astype(np.float32) for key, v in feeds.items()})
        return np.asarray(outputs[0][0])

    return run


def expected_crops(
    name: str, network: onnx.ModelProto, request: dict[str, npt.NDArray[np.float32]], boost: int = 1
) -> npt.NDArray[np.float32]:
    row, run = SWAPPERS[name], single_runner(name, network)
    emap = None
    if name.startswith("inswapper"):
        emap = numpy_helper.to_array(network.graph.initializer[-1])
    swapped = np.zeros_like(request["crops"])
    for b, k in np.ndindex(swapped.shape[:2]):
        if request["faces"][b, k, SCORE_COLUMN] > 0:
            swapped[b, k] = swapping.swap_slot(
                run,
                request["crops"][b, k],
                request["source"][b, k],
                mean=np.array(row.mean),
                std=np.array(row.std),
                denormalize=row.denormalize,
                boost=boost,
                emap=emap,
            )
    return swapped


def run_graph(
    model: onnx.ModelProto, request: dict[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    return np.asarray(open_session(model).run(["swapped_crops"], request)[0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_contract_equals_its_single_runs(name: str) -> None:
    network = swapper_network(name)
    request = make_request(name, [[0.9, 0.8], [0.7, 0.0]])
    result = run_graph(face_swapper.build(SWAPPERS[name], network), request)
    expected = expected_crops(name, network, request)
    assert expected[0].std() > 0.05
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance(name))


def test_the_projects_own_swapper_equals_its_single_runs() -> None:
    name, network = "image_swapper_256", image_swapper.build_network(256)
    request = make_request(name, [[0.9, 0.8], [0.7, 0.0]])
    result = run_graph(face_swapper.build(SWAPPERS[name], network), request)
    expected = expected_crops(name, network, request)
    np.testing.assert_allclose(result, expected, rtol=0, atol=FP32_ROUNDING)


def test_the_projects_own_network_is_told_where_landmarks_lie() -> None:
    network, draw = swapper_network(OWN), np.random.default_rng(4)
    request = make_request(OWN, [[0.9, 0.8], [0.7, 0.0]])
    turned, scale = np.deg2rad(20), 0.6
    linear = scale * np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    warp = np.column_stack([linear, [31.0, -12.0]])
    request["warps"][:] = warp
    # Anywhere in a frame whose crop this is; the second slot's face has none.
    in_crop = 60 + 140 * draw.random((2, 2, MEDIAPIPE_POINTS, 2))
    depth = draw.normal(size=(2, 2, MEDIAPIPE_POINTS, 1)) * 20
    in_frame = (in_crop - warp[:, 2]) @ np.linalg.inv(linear).T
    request["landmarks"][:] = np.concatenate([in_frame, depth / scale], axis=3)
    request["landmarks"][0, 1] = 0.0
    five = 60 + 140 * draw.random((2, 2, 5, 2))
    points = (five - warp[:, 2]) @ np.linalg.inv(linear).T
    request["faces"][:, :2, LANDMARK_COLUMN:] = points.reshape(2, 2, 10)
    swapped, masks = open_session(face_swapper.build(SWAPPERS[OWN], network)).run(None, request)
    single = open_session(network)
    for b, k in ((0, 0), (0, 1), (1, 0)):
        marks = np.concatenate([in_crop[b, k], depth[b, k]], axis=1) * ((b, k) != (0, 1))
        source = request["source"][b, k]
        feeds = {
            "target": request["crops"][b, k],
            "target_landmarks": marks / 256,
            "target_points": five[b, k] / 256,
            "source": swapping.unpack(source[: 256 * 256], 256),
            "source_landmarks": source[256 * 256 :].reshape(MEDIAPIPE_POINTS, 3),
        }
        fed = {name: np.float32(array)[None] for name, array in feeds.items()}
        image, mask = (np.asarray(value[0]) for value in single.run(None, fed))
        # Places in a frame are float32 too: 3e-5 px, and a crop of noise changes by 0.5 a pixel.
        np.testing.assert_allclose(swapped[b, k], image, rtol=0, atol=1e-3)
        np.testing.assert_allclose(masks[b, k], mask, rtol=0, atol=1e-3)
        assert np.abs(image - request["crops"][b, k]).max() > 0.1
    assert not swapped[1, 1].any()
    assert not masks[1, 1].any()


@pytest.mark.parametrize("order", [PORTABLE_PASSES, CHANNELS_LAST_PASSES], ids=["portable", "last"])
@pytest.mark.parametrize("name", ["inswapper_128", "inswapper_128_fp16", "hyperswap_1a_256"])
def test_rewritten_networks_swap_the_same_crops(name: str, order: tuple[str, ...]) -> None:
    network = swapper_network(name)
    request = make_request(name, [[0.9, 0.8], [0.7, 0.0]])
    result = run_graph(face_swapper.build(SWAPPERS[name], network, passes=order), request)
    expected = expected_crops(name, network, request)
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance(name))


@pytest.mark.parametrize(
    ("name", "boost"), [("inswapper_128", 2), ("inswapper_128", 3), ("ghost_1_256", 2)]
)
def test_pixel_boost_equals_interleaved_single_runs(name: str, boost: int) -> None:
    network = swapper_network(name)
    request = make_request(name, [[0.9, 0.8]], boost=boost)
    model = face_swapper.build(SWAPPERS[name], network, pixel_boost=boost)
    expected = expected_crops(name, network, request, boost)
    np.testing.assert_allclose(run_graph(model, request), expected, rtol=0, atol=FP32_ROUNDING)


@pytest.mark.parametrize("boost", [1, 2])
@pytest.mark.parametrize("skip_empty", [True, False])
def test_a_networks_own_mask_comes_out_tile_by_tile(boost: int, skip_empty: bool) -> None:
    name = "hyperswap_1a_256"
    network = swapper_network(name)
    request = make_request(name, [[0.9, 0.8], [0.0, 0.7]], boost=boost)
    model = face_swapper.build(
        SWAPPERS[name], network, pixel_boost=boost, skip_empty=skip_empty
    )
    (masks,) = open_session(model).run(["swap_masks"], request)
    session, expected = open_session(network), np.zeros_like(request["crops"][:, :, :1])
    for b, k in ((0, 0), (0, 1), (1, 1)):
        for i, j in np.ndindex(boost, boost):
            target = request["crops"][b, k, :, i::boost, j::boost][None] * 2 - 1
            feeds = {"target": target, "source": request["source"][b, k][None]}
            (expected[b, k, :, i::boost, j::boost],) = session.run(["mask"], feeds)[0]
    assert expected[0].std() > 0.01
    np.testing.assert_allclose(masks, expected, rtol=0, atol=FP16_ROUNDING)


def test_without_a_mask_of_the_networks_own_every_held_slot_has_ones() -> None:
    request = make_request("ghost_1_256", [[0.9, 0.0]])
    model = face_swapper.build(SWAPPERS["ghost_1_256"], swapper_network("ghost_1_256"))
    (masks,) = open_session(model).run(["swap_masks"], request)
    assert masks.shape == (1, 2, 1, 256, 256)
    np.testing.assert_array_equal(masks[0, :, 0, 0, 0], [1, 0])
    assert (masks[0, 0] == 1).all()
    assert not masks[0, 1].any()


@pytest.mark.parametrize("weight", [0.25, 0.6, 1.0])
def test_the_weight_mixes_the_swap_with_the_target_row_by_row(weight: float) -> None:
    name = "ghost_1_256"
    request = make_request(name, [[0.9], [0.9]])
    model = face_swapper.build(SWAPPERS[name], swapper_network(name))
    full = run_graph(model, request)
    request["options"][1, Option.SWAPPER_WEIGHT] = weight
    mixed = run_graph(model, request)
    np.testing.assert_array_equal(mixed[0], full[0])
    expected = weight * full[1].astype(np.float64) + (1 - weight) * request["crops"][1]
    np.testing.assert_allclose(mixed[1], expected, rtol=0, atol=1e-6)
    if weight == 1.0:
        np.testing.assert_array_equal(mixed[1], full[1])


@pytest.mark.parametrize("weight", [-0.5, 1.5, np.nan])
def test_a_weight_that_is_none_is_the_default(weight: float) -> None:
    name = "ghost_1_256"
    request = make_request(name, [[0.9]])
    model = face_swapper.build(SWAPPERS[name], swapper_network(name))
    full = run_graph(model, request)
    request["options"][0, Option.SWAPPER_WEIGHT] = weight
    np.testing.assert_array_equal(run_graph(model, request), full)


@pytest.mark.parametrize("skip_empty", [True, False])
def test_empty_slots_answer_zeros_even_when_their_crop_is_nan(skip_empty: bool) -> None:
    name = "inswapper_128"
    request = make_request(name, [[0.0, 0.9], [0.0, 0.0]])
    request["crops"][0, 0] = np.nan
    request["source"][1] = 0.0
    model = face_swapper.build(SWAPPERS[name], swapper_network(name), skip_empty=skip_empty)
    result = run_graph(model, request)
    assert not result[0, 0].any()
    assert not result[1].any()
    assert result[0, 1].std() > 0.05


def test_the_network_is_skipped_only_when_no_slot_of_the_batch_has_a_face() -> None:
    name = "ghost_1_256"
    model = face_swapper.build(SWAPPERS[name], swapper_network(name))
    (branch,) = [node for node in model.graph.node if node.op_type == "If"]
    bodies = {attribute.name: attribute.g for attribute in branch.attribute}
    assert any(node.op_type == "Conv" for node in bodies["then_branch"].node)
    assert {node.op_type for node in bodies["else_branch"].node} <= {
        "Shape", "Concat", "Constant", "Expand"
    }
    assert not any(node.op_type == "Conv" for node in model.graph.node)
    assert not run_graph(model, make_request(name, [[0.0], [0.0]])).any()
    assert not run_graph(model, make_request(name, [[np.nan], [0.0]])).any()
    # A face in the last slot of the last row alone is enough.
    assert run_graph(model, make_request(name, [[0.0, 0.0], [0.0, 0.5]]))[1, 1].any()


@pytest.mark.parametrize("slots", [1, 5, MAX_DETECTIONS])
def test_any_number_of_slots_up_to_the_detectors_rows_is_swapped(slots: int) -> None:
    name = "inswapper_128"
    request = make_request(name, [[0.5] * slots])
    model = face_swapper.build(SWAPPERS[name], swapper_network(name))
    result = run_graph(model, request)
    assert result.shape == request["crops"].shape
    assert (result.std(axis=(2, 3, 4)) > 0.05).all()


# insightface 2.1 calls a function that scikit-image 2.2 will drop.
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
def test_insightface_swaps_the_same_crop_within_a_grey_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inswapper: Any = importlib.import_module("insightface.model_zoo.inswapper")
    network = swapper_network("inswapper_128")
    path = tmp_path / "inswapper_128.onnx"
    onnx.save(network, path)
    peer = inswapper.INSwapper(str(path), session=open_session(network))
    capsys.readouterr()
    frame = smooth_frame()
    (identity,) = source_vectors(SWAPPERS["inswapper_128"], 1)
    # The template itself, larger and moved: the crop is insightface's own, only the swap differs.
    points, _ = swapping.TEMPLATES["arcface_112_v2"]
    landmarks = np.array(points, np.float32).reshape(5, 2) * 1.7 + np.float32([60, 40])
    swapped_bgr, warp = peer.get(
        frame,
        SimpleNamespace(kps=landmarks),
        SimpleNamespace(normed_embedding=identity),
        paste_back=False,
    )
    crop_bgr = cv2.warpAffine(frame, warp, (128, 128), borderValue=0.0)
    crops = crop_bgr[..., ::-1].transpose(2, 0, 1)[None, None].astype(np.float32) / 255
    request = {
        "crops": crops,
        "source": identity[None, None],
        "faces": make_faces([[0.9]]),
        **places(1, 1),
    }
    model = face_swapper.build(SWAPPERS["inswapper_128"], network)
    (ours_rgb,) = run_graph(model, request)[0]
    # insightface truncates to uint8: up to one grey level below ours.
    difference = ours_rgb[::-1].transpose(1, 2, 0) * 255 - swapped_bgr.astype(np.float32)
    assert difference.min() > -1e-2
    assert difference.max() < 1.0 + 1e-2


def smooth_frame() -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    frame: npt.NDArray[np.uint8] = np.asarray(cv2.resize(noise, (320, 240)), np.uint8)
    return frame


def test_the_projected_identity_is_unit_length_whatever_the_given_length() -> None:
    name = "inswapper_128"
    request = make_request(name, [[0.9]])
    model = face_swapper.build(SWAPPERS[name], swapper_network(name))
    scaled = {**request, "source": request["source"] * 7}
    # 1e-5: one more rounding in the scaled identity.
    np.testing.assert_allclose(run_graph(model, request), run_graph(model, scaled), atol=1e-5)


def test_building_twice_gives_the_same_bytes_and_leaves_the_network_alone() -> None:
    network = swapper_network("hyperswap_1a_256")
    before = network.SerializeToString(deterministic=True)
    builds = [
        face_swapper.build(SWAPPERS["hyperswap_1a_256"], network).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    ]
    assert builds[0] == builds[1]
    assert network.SerializeToString(deterministic=True) == before


def test_an_output_that_nobody_reads_is_left_out() -> None:
    name = "hyperswap_1a_256"
    row = replace(SWAPPERS[name], gives_mask=False)
    model = face_swapper.build(row, swapper_network(name))
    (branch,) = [node for node in model.graph.node if node.op_type == "If"]
    (body,) = [a.g for a in branch.attribute if a.name == "then_branch"]
    # The mask is still composited with; its own output Cast is what goes.
    names = [name for node in body.node for name in node.output]
    assert len(body.output) == 1
    assert not [name for name in names if name.endswith("/mask")]


@pytest.mark.parametrize(
    ("row", "network", "message"),
    [
        ("ghost_1_256", "inswapper_128", r"ghost_1_256 should take target \[3, 256, 256\]"),
        ("uniface_256", "ghost_1_256", r"source \[3, 256, 256\].*is this the file of another"),
        ("inswapper_128", "ghost_1_256", r"last initializer should be its 512 x 512 emap"),
    ],
)
def test_the_file_of_another_swapper_is_refused(row: str, network: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        face_swapper.build(SWAPPERS[row], swapper_network(network))


def test_a_boost_that_the_swapper_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="image_swapper_256 takes a pixel boost of 1, but 2"):
        face_swapper.build(
            SWAPPERS["image_swapper_256"], swapper_network("uniface_256"), pixel_boost=2
        )


@pytest.mark.parametrize(
    ("name", "boost"),
    [("inswapper_128", 1), ("inswapper_128", 2), ("hyperswap_1a_256", 1), ("uniface_256", 1)],
)
def test_a_real_compiler_takes_the_graph(name: str, boost: int) -> None:
    from engines.compilers import choose_compiler
    from engines.profiles import AxisRange, ProfileLimits, make_profile

    model = face_swapper.build(SWAPPERS[name], swapper_network(name), pixel_boost=boost)
    limits = ProfileLimits(batch=AxisRange(1, 2, 2), faces=AxisRange(1, 1, 2))
    plan = choose_compiler("tensorrt_rtx").compile(
        model.SerializeToString(),
        profile=make_profile(model, limits),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 1000
