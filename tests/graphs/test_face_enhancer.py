"""face_enhancer against FaceFusion's way with the same networks, and what it leaves alone."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from engines.precision import to_fp16
from engines.rounding import with_explicit_rounding
from graphs import face_enhancer
from graphs.contract import (
    ENHANCER_BASE,
    FACE_COLUMNS,
    MAX_DETECTIONS,
    OPTION_COUNT,
    SCORE_COLUMN,
    Extras,
    Option,
)
from networks.enhancers import ENHANCERS
from tests.generated_networks import enhancer_network
from tests.graphs.evaluation import open_session
from tests.graphs.test_looking_masks import pictures
from tests.reference import enhancing as reference
from tests.reference.masks import box

SWAP_SIZE = 128
LEVEL = 1 / 255
RESTORERS = [name for name, row in ENHANCERS.items() if row.enhances == "context"]
FINER = [name for name, row in ENHANCERS.items() if row.enhances == "crops"]
FRAME = 320
# The frame's face lies turned by eight degrees in its surroundings, and the swap within those.
TURN = np.deg2rad(8)


@functools.cache
def graph(name: str, occludes: bool = False) -> onnx.ModelProto:
    extras = Extras(enhances=ENHANCERS[name].enhances, occludes=occludes)
    network = enhancer_network(name, size=SWAP_SIZE)
    return face_enhancer.build(ENHANCERS[name], network, crop_size=SWAP_SIZE, extras=extras)


@functools.cache
def session(name: str, occludes: bool = False) -> onnxruntime.InferenceSession:
    return open_session(graph(name, occludes))


def similarity(scale: float, centre: float) -> np.ndarray:
    """Frame to a crop of which `centre` is the middle, around the frame's middle."""
    cosine, sine = scale * np.cos(TURN), scale * np.sin(TURN)
    middle = FRAME / 2
    return np.array(
        [
            [cosine, -sine, centre - (cosine - sine) * middle],
            [sine, cosine, centre - (sine + cosine) * middle],
        ]
    )


def code(blend: int | None = None, weight: int | None = None) -> float:
    """ENHANCER of whole percentages."""
    parts = [0 if value is None else value + 1 for value in (blend, weight)]
    return parts[0] + ENHANCER_BASE * parts[1]


def request(name: str, options: list[float]) -> dict[str, np.ndarray]:
    """One face a row, in frames of FRAME pixels that differ; `options` are their ENHANCERs."""
    rows, size = len(options), ENHANCERS[name].size or SWAP_SIZE
    around, swap = similarity(size / FRAME, size / 2), similarity(0.5, SWAP_SIZE / 2)
    feeds = {
        "swapped_crops": pictures(rows, SWAP_SIZE, seed=3),
        "masks": np.tile(box(SWAP_SIZE), (rows, 1, 1, 1, 1)).astype(np.float32),
        "warps": np.tile(swap.astype(np.float32), (rows, 1, 1, 1)),
        "faces": np.zeros((rows, MAX_DETECTIONS, FACE_COLUMNS), np.float32),
        "options": np.zeros((rows, OPTION_COUNT), np.float32),
    }
    feeds["faces"][:, 0, SCORE_COLUMN] = 0.9
    feeds["options"][:, Option.ENHANCER] = options
    if name in RESTORERS:
        frames = pictures(rows, FRAME, seed=5)[:, 0].transpose(0, 2, 3, 1)
        cut = [reference.warp(f, around, size, cv2.BORDER_REPLICATE) for f in frames]
        feeds["context"] = np.array(cut, np.float32).transpose(0, 3, 1, 2)[:, None]
        feeds["context_warps"] = np.tile(around.astype(np.float32), (rows, 1, 1, 1))
    return feeds


def run(name: str, feeds: dict[str, np.ndarray], occludes: bool = False) -> list[np.ndarray]:
    return [np.asarray(value) for value in session(name, occludes).run(None, feeds)]


def shown(feeds: dict[str, np.ndarray], made: list[np.ndarray], row: int) -> np.ndarray:
    """What the blender would show in the enhancer's own framing: (X, X, 3)."""
    target = feeds["context"][row, 0]
    mixed = target + (made[0][row, 0] - target) * made[1][row, 0]
    return np.asarray(mixed.transpose(1, 2, 0))


def facefusion(
    name: str, feeds: dict[str, np.ndarray], row: int, blend: float, weight: float = 0.5,
    hidden: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The same by its way: the swap pasted into the surroundings, then enhanced there."""
    size = ENHANCERS[name].size
    assert size is not None
    context, swap = feeds["context_warps"][row, 0], feeds["warps"][row, 0]
    inverse = cv2.invertAffineTransform(context.astype(np.float64))
    lead = swap.astype(np.float64) @ np.vstack([inverse, [0, 0, 1]])
    below = feeds["context"][row, 0].transpose(1, 2, 0)
    crop = feeds["swapped_crops"][row, 0].transpose(1, 2, 0)
    swapped = reference.paste(below, crop, feeds["masks"][row, 0, 0], lead)

    def restore(picture: np.ndarray) -> np.ndarray:
        alone = open_session(enhancer_network(name))
        given = {"input": np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)}
        if ENHANCERS[name].takes_weight:
            given["weight"] = np.array([weight], np.float64)
        (found,) = alone.run(None, given)
        return np.asarray(found)[0].transpose(1, 2, 0)

    mask = box(size) if hidden is None else np.minimum(box(size), hidden)
    whole = np.array([[1.0, 0, 0], [0, 1, 0]])
    return reference.enhance(swapped, whole, size, mask, blend, restore)


@pytest.mark.parametrize("name", RESTORERS)
def test_a_restored_face_is_facefusions_within_a_level(name: str) -> None:
    feeds = request(name, [0.0])
    made = run(name, feeds)
    wanted = facefusion(name, feeds, 0, 0.8)
    assert np.abs(wanted - feeds["context"][0, 0].transpose(1, 2, 0)).max() > 0.2
    np.testing.assert_allclose(shown(feeds, made, 0), wanted, atol=LEVEL)
    np.testing.assert_array_equal(made[2], feeds["context_warps"])


@pytest.mark.parametrize("blend", [0, 1, 35, 100])
def test_each_row_has_the_blend_that_it_asks_for(blend: int) -> None:
    name = "gpen_bfr_256"
    feeds = request(name, [code(blend=50), code(blend=blend)])
    made = run(name, feeds)
    for row, share in enumerate((0.5, blend / 100)):
        wanted = facefusion(name, feeds, row, share)
        np.testing.assert_allclose(shown(feeds, made, row), wanted, atol=LEVEL)


def test_codeformers_weight_is_each_rows_own() -> None:
    name = "codeformer"
    feeds = request(name, [code(blend=100, weight=0), code(blend=100, weight=90)])
    made = run(name, feeds)
    wanted = [facefusion(name, feeds, row, 1.0, weight) for row, weight in enumerate((0.0, 0.9))]
    other = facefusion(name, feeds, 1, 1.0, 0.0)
    assert np.abs(wanted[1] - other).max() > 4 * LEVEL
    for row in range(2):
        np.testing.assert_allclose(shown(feeds, made, row), wanted[row], atol=LEVEL)


def test_what_covers_the_face_is_not_enhanced() -> None:
    name = "gpen_bfr_256"
    feeds = request(name, [code(blend=100)])
    feeds["occlusions"] = np.ones_like(feeds["masks"])
    clear = shown(feeds, run(name, feeds, occludes=True), 0)
    np.testing.assert_allclose(clear, facefusion(name, feeds, 0, 1.0), atol=LEVEL)
    feeds["occlusions"][..., : SWAP_SIZE // 2] = 0
    covered = shown(feeds, run(name, feeds, occludes=True), 0)
    untouched = facefusion(name, feeds, 0, 0.0)
    middle = slice(80, 176)
    np.testing.assert_allclose(covered[middle, 64:100], untouched[middle, 64:100], atol=LEVEL)
    np.testing.assert_allclose(covered[middle, 160:200], clear[middle, 160:200], atol=LEVEL)


@pytest.mark.parametrize("name", FINER)
def test_a_finer_crop_is_the_networks_own_in_a_crop_four_times_as_wide(name: str) -> None:
    feeds = request(name, [code(blend=100), code(blend=0), 0.0])
    crops, masks, warps = run(name, feeds)
    alone = open_session(enhancer_network(name, size=SWAP_SIZE))
    size = 4 * SWAP_SIZE
    for row, share in enumerate((1.0, 0.0, 0.8)):
        (found,) = alone.run(None, {"input": feeds["swapped_crops"][row]})
        wide = cv2.resize(feeds["swapped_crops"][row, 0].transpose(1, 2, 0), (size, size))
        wanted = wide.transpose(2, 0, 1) * (1 - share) + np.asarray(found)[0].clip(0, 1) * share
        np.testing.assert_allclose(crops[row, 0], wanted, atol=1e-5)
    np.testing.assert_allclose(masks[0, 0, 0], cv2.resize(box(SWAP_SIZE), (size, size)), atol=1e-5)
    # a frame point lands on the same spot: pixel centres at integers
    point = np.array([100.0, 130.0, 1.0])
    small = feeds["warps"][0, 0] @ point
    np.testing.assert_allclose(warps[0, 0] @ point, 4 * small + 1.5, atol=1e-3)


def test_a_gpus_form_answers_the_same() -> None:
    name = "gpen_bfr_256"
    extras = Extras(enhances="context")
    model = face_enhancer.build(
        ENHANCERS[name], enhancer_network(name), crop_size=SWAP_SIZE, extras=extras,
        runtime="onnxruntime_gpu",
    )  # fmt: skip
    feeds = request(name, [0.0, code(blend=100)])
    for value, wanted in zip(open_session(model).run(None, feeds), run(name, feeds), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_slots_without_a_face_are_zero_and_run_no_network() -> None:
    feeds = request("gpen_bfr_256", [0.0, 0.0])
    feeds["faces"][1] = 0
    feeds["swapped_crops"][1] = np.nan
    made = run("gpen_bfr_256", feeds)
    for value in made:
        assert not value[1].any()
    alone = run("gpen_bfr_256", {name: value[:1] for name, value in feeds.items()})
    for value, single in zip(made, alone, strict=True):
        np.testing.assert_allclose(value[:1], single, atol=1e-6)


def test_what_is_no_number_is_not_shown() -> None:
    feeds = request("gpen_bfr_256", [code(blend=0)])
    feeds["swapped_crops"][..., 40:80, 40:80] = np.nan
    crops, masks, _ = run("gpen_bfr_256", feeds)
    assert np.isfinite(crops).all()
    assert masks.min() == 0.0
    assert masks[0, 0, 0, 110:130, 110:130].max() == 0.0


@pytest.mark.parametrize("name", ["gpen_bfr_256", "codeformer", "realesr_animevideov3_x4"])
def test_in_float16_a_face_stays_within_the_gate(name: str) -> None:
    feeds = request(name, [0.0])
    typed = open_session(with_explicit_rounding(to_fp16(graph(name))))
    (crops,) = typed.run(["enhanced_crops"], feeds)
    # 50 dB, the limit of `engines.fidelity` for fp16
    assert np.mean((crops - run(name, feeds)[0]) ** 2) < 1e-5


def test_a_grey_target_stays_grey() -> None:
    feeds = request("gpen_bfr_256", [code(blend=100)])
    for name in ("swapped_crops", "context"):
        feeds[name][:] = feeds[name][:, :, :1]
    crops, _, _ = run("gpen_bfr_256", feeds)
    assert np.ptp(crops, axis=2).max() < 1e-6


def test_a_network_of_another_contract_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the network of gpen_bfr_512 should take"):
        face_enhancer.build(
            ENHANCERS["gpen_bfr_512"], enhancer_network("gpen_bfr_256"), crop_size=SWAP_SIZE
        )
