"""face_masker's occluder and parser against FaceFusion's formulas and the same networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.precision import to_fp16
from engines.rounding import with_explicit_rounding
from graphs import face_masker
from graphs.contract import (
    FACE_COLUMNS,
    MAX_DETECTIONS,
    OPTION_COUNT,
    SCORE_COLUMN,
    Extras,
    MaskFlag,
    Option,
    RegionFlag,
)
from graphs.face_masker import MaskNetworks
from networks.maskers import OCCLUDERS, PARSERS
from networks.swappers import SWAPPERS
from tests.generated_networks import occluder_network, parser_network
from tests.graphs.evaluation import open_session
from tests.reference import looking_masks as reference
from tests.reference import masks as written_masks

SWAPPER = SWAPPERS["image_swapper_256"]
LEVEL = 1 / 255
POINTS = 478


@functools.cache
def graph(size: int, occluder: str | None, parser: str | None) -> onnx.ModelProto:
    networks = MaskNetworks(
        extras=Extras(occludes=occluder is not None, parses=parser is not None),
        occluder=None if occluder is None else (OCCLUDERS[occluder], occluder_network(occluder)),
        parser=None if parser is None else (PARSERS[parser], parser_network(parser)),
    )
    return face_masker.build(SWAPPER, crop_size=size, networks=networks)


@functools.cache
def session(
    size: int = 256, occluder: str | None = "xseg_1", parser: str | None = "bisenet_resnet_18"
) -> onnxruntime.InferenceSession:
    return open_session(graph(size, occluder, parser))


@functools.cache
def network(model: Callable[[str], onnx.ModelProto], name: str) -> reference.Network:
    alone = open_session(model(name))
    first = alone.get_outputs()[0].name
    given = alone.get_inputs()[0].name
    return lambda picture: np.asarray(alone.run([first], {given: picture})[0])


def pictures(count: int, size: int, seed: int = 1) -> np.ndarray:
    """Smooth pictures (count, 1, 3, S, S) RGB in [0, 1], partly dark and partly bright."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = [
        [0.5 + 0.5 * np.sin(a * x + b * y + c) for a, b, c in rng.uniform(2, 9, (3, 3))]
        for _ in range(count)
    ]
    return np.array(waves, np.float32)[:, None]


def request(size: int, options: list[dict[Option, float]]) -> dict[str, np.ndarray]:
    """One slot with a face a row; rows differ in pictures and options."""
    rows = len(options)
    feeds = {
        "swap_masks": np.ones((rows, 1, 1, size, size), np.float32),
        "crops": pictures(rows, size),
        "swapped_crops": pictures(rows, size, seed=2),
        "landmarks": np.zeros((rows, 1, POINTS, 3), np.float32),
        "warps": np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (rows, 1, 1, 1)),
        "faces": np.zeros((rows, MAX_DETECTIONS, FACE_COLUMNS), np.float32),
        "options": np.zeros((rows, OPTION_COUNT), np.float32),
    }
    feeds["faces"][:, 0, SCORE_COLUMN] = 0.9
    for row, asked in enumerate(options):
        for name, value in asked.items():
            feeds["options"][row, name] = value
    return feeds


def run(
    feeds: dict[str, np.ndarray], made: onnxruntime.InferenceSession | None = None
) -> np.ndarray:
    made = made or session(feeds["crops"].shape[-1])
    wanted = {value.name for value in made.get_inputs()}
    (masks,) = made.run(["masks"], {k: v for k, v in feeds.items() if k in wanted})
    return np.asarray(masks)[:, 0, 0]


def levels(crop: np.ndarray) -> np.ndarray:
    """(S, S, 3) BGR on the 8-bit scale of (1, 3, S, S) RGB in [0, 1]."""
    return crop[0].transpose(1, 2, 0)[:, :, ::-1] * 255


def one(**options: float) -> dict[Option, float]:
    return {Option[name.upper()]: value for name, value in options.items()}


@pytest.mark.parametrize("size", [128, 256, 512])
def test_an_occlusion_mask_is_facefusions(size: int) -> None:
    feeds = request(size, [one(masks=MaskFlag.OCCLUSION)] * 2)
    found = run(feeds)
    for row in range(2):
        wanted = reference.occlusion(
            levels(feeds["crops"][row]), network(occluder_network, "xseg_1"), 256
        )
        assert 0.05 < wanted.mean() < 0.95
        np.testing.assert_allclose(found[row], wanted, atol=LEVEL)


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize(
    "wanted", [RegionFlag.ALL, RegionFlag.SKIN | RegionFlag.NOSE, RegionFlag.LOWER_LIP]
)
def test_a_region_mask_is_facefusions(size: int, wanted: RegionFlag) -> None:
    feeds = request(size, [one(masks=MaskFlag.REGIONS, regions=wanted)] * 2)
    classes = [
        number for flag, number in PARSERS["bisenet_resnet_18"].regions.items()
        if flag & (wanted or sum(RegionFlag))
    ]  # fmt: skip
    found = run(feeds)
    for row in range(2):
        mask = reference.regions(
            levels(feeds["swapped_crops"][row]), network(parser_network, "bisenet_resnet_18"),
            512, classes,
        )  # fmt: skip
        # Where two classes all but tie, rounding decides: a pixel of 512 x 512 is one part in 157
        # of the blurred mask.
        np.testing.assert_allclose(found[row], mask, atol=LEVEL * 4)
        assert np.abs(found[row] - mask).mean() < LEVEL / 16


def test_every_row_of_the_tables_works() -> None:
    for name in OCCLUDERS:
        found = run(request(128, [one(masks=MaskFlag.OCCLUSION)]), session(128, name, None))
        assert 0 < found.mean() < 1
    for name in PARSERS:
        found = run(request(128, [one(masks=MaskFlag.REGIONS)]), session(128, None, name))
        assert found.max() <= 1


def test_masks_combine_by_minimum_and_each_row_has_its_own() -> None:
    codes = [
        MaskFlag.OCCLUSION, MaskFlag.REGIONS, MaskFlag.BOX,
        MaskFlag.BOX | MaskFlag.OCCLUSION | MaskFlag.REGIONS,
    ]  # fmt: skip
    feeds = request(256, [one(masks=code) for code in codes])
    feeds["crops"][:] = feeds["crops"][:1]
    feeds["swapped_crops"][:] = feeds["swapped_crops"][:1]
    occlusion, parts, box, all_three = run(feeds)
    np.testing.assert_array_equal(box, run(feeds)[2])
    np.testing.assert_allclose(box, written_masks.box(256), atol=1e-6)
    np.testing.assert_allclose(
        all_three, np.minimum(np.minimum(occlusion, parts), box), atol=1e-6
    )


def test_a_deployment_with_networks_uses_them_unless_told_otherwise() -> None:
    feeds = request(128, [{}, one(masks=MaskFlag.BOX | MaskFlag.HULL), one(masks=MaskFlag.NONE)])
    usual, without, whole = run(feeds)
    assert (whole == 1).all()
    np.testing.assert_allclose(without, written_masks.box(128), atol=1e-6)
    assert (usual <= without + 1e-6).all()
    assert (usual < without - 0.1).any()


def test_a_row_that_asks_for_a_mask_that_there_is_not_is_masked_by_the_defaults() -> None:
    occluded = session(128, "xseg_1", None)
    rows = [{}, one(masks=MaskFlag.REGIONS), one(masks=MaskFlag.OCCLUSION | MaskFlag.NONE)]
    feeds = request(128, rows)
    feeds["crops"][:] = feeds["crops"][:1]
    usual, asked, contradicted = run(feeds, occluded)
    np.testing.assert_array_equal(asked, usual)
    np.testing.assert_array_equal(contradicted, usual)


def test_what_is_no_number_in_a_crop_hides_nothing_else() -> None:
    feeds = request(128, [one(masks=MaskFlag.OCCLUSION)] * 2)
    clean = run(feeds)
    feeds["crops"][0, 0, :, 40:60, 40:60] = np.nan
    found = run(feeds)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1], clean[1])


def test_without_a_row_that_asks_no_network_runs() -> None:
    feeds = request(256, [one(masks=MaskFlag.BOX)])
    feeds["crops"][:] = np.nan
    np.testing.assert_allclose(run(feeds)[0], written_masks.box(256), atol=1e-6)


@pytest.mark.parametrize("flag", [MaskFlag.OCCLUSION, MaskFlag.REGIONS])
def test_in_float16_a_mask_stays_within_the_gate(flag: MaskFlag) -> None:
    typed = with_explicit_rounding(to_fp16(graph(128, "xseg_1", "bisenet_resnet_18")))
    feeds = request(128, [one(masks=flag)] * 2)
    error = np.mean((run(feeds, open_session(typed)) - run(feeds)) ** 2)
    # 50 dB, the limit of `engines.fidelity` for fp16
    assert error < 1e-5


def test_a_network_of_another_contract_is_refused() -> None:
    wrong = MaskNetworks(
        extras=Extras(occludes=True),
        occluder=(replace(OCCLUDERS["xseg_1"], size=128), occluder_network("xseg_1")),
    )
    with pytest.raises(ValueError, match="the network of xseg_1 should take"):
        face_masker.build(SWAPPER, crop_size=128, networks=wrong)
