"""The swappers' rows against literals from their publishers, and the pairings they refuse."""

import pytest

from networks.landmarkers import LANDMARKERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import (
    SWAPPERS,
    Swapper,
    check_landmarker,
    check_pairing,
    check_pixel_boost,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# name, S, template, (mean, std), denormalised output, D, converter
PUBLISHED = [
    ("inswapper_128", 128, "arcface_128", PLAIN, False, 512, None),
    ("inswapper_128_fp16", 128, "arcface_128", PLAIN, False, 512, None),
    ("hyperswap_1a_256", 256, "arcface_128", HALF, True, 512, None),
    ("hyperswap_1b_256", 256, "arcface_128", HALF, True, 512, None),
    ("hyperswap_1c_256", 256, "arcface_128", HALF, True, 512, None),
    ("simswap_256", 256, "arcface_112_v1", IMAGENET, False, 512, "crossface_simswap"),
    ("ghost_1_256", 256, "arcface_112_v1", HALF, True, 512, "crossface_ghost"),
    ("ghost_2_256", 256, "arcface_112_v1", HALF, True, 512, "crossface_ghost"),
    ("ghost_3_256", 256, "arcface_112_v1", HALF, True, 512, "crossface_ghost"),
    ("alphaface_256", 256, "arcface_128", PLAIN, False, 512, None),
    ("uniface_256", 256, "ffhq_512", HALF, True, 65536, None),
    ("blendswap_256", 256, "ffhq_512", PLAIN, False, 12544, None),
    # The project's own two: training/export.py, with the source's picture packed.
    ("frameswap_256", 256, "arcface_128", PLAIN, False, 256 * 256 + 478 * 3, None),
    ("frameswap_256_small", 256, "arcface_128", PLAIN, False, 256 * 256 + 478 * 3, None),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_a_published_swapper_has_its_published_contract(row: tuple[object, ...]) -> None:
    name, *expected = row
    swapper = SWAPPERS[str(name)]
    assert expected == [
        swapper.crop_size,
        swapper.template,
        (swapper.mean, swapper.std),
        swapper.denormalize,
        swapper.source_length,
        swapper.converter,
    ]


def test_the_table_holds_the_published_swappers_and_the_projects_own() -> None:
    assert set(SWAPPERS) == {"image_swapper_256", *(str(row[0]) for row in PUBLISHED)}


def test_only_the_authored_swapper_has_no_weight_file_and_no_trained_mark() -> None:
    authored = ["image_swapper_256"]
    assert [row.name for row in SWAPPERS.values() if row.weight is None] == authored
    assert [row.name for row in SWAPPERS.values() if row.provenance == "composite"] == authored


@pytest.mark.parametrize("swapper", SWAPPERS.values(), ids=lambda row: row.name)
def test_a_source_is_either_an_embedding_or_a_flat_image(swapper: Swapper) -> None:
    if swapper.source_kind == "identity":
        assert swapper.recognizer is not None
        assert swapper.source_length == RECOGNIZERS[swapper.recognizer].embedding_length
        assert (swapper.source_size, swapper.source_template) == (None, None)
    else:
        assert swapper.source_length == (swapper.source_size or 0) ** 2 + 3 * swapper.points
        assert swapper.source_template is not None
        assert (swapper.recognizer, swapper.converter) == (None, None)


def test_only_simswap_is_made_unit_length_after_its_converter() -> None:
    assert [row.name for row in SWAPPERS.values() if row.normalize_converted] == ["simswap_256"]


def test_only_alphaface_takes_the_embedding_with_the_length_it_has() -> None:
    assert [row.name for row in SWAPPERS.values() if row.raw_identity] == ["alphaface_256"]


def test_only_inswapper_projects_the_identity_with_its_own_matrix() -> None:
    assert [row.name for row in SWAPPERS.values() if row.project_identity] == [
        "inswapper_128",
        "inswapper_128_fp16",
    ]


def test_only_architectures_that_were_measured_so_run_channels_last() -> None:
    assert [row.name for row in SWAPPERS.values() if row.channels_last] == [
        "inswapper_128",
        "inswapper_128_fp16",
        "ghost_1_256",
        "ghost_2_256",
        "ghost_3_256",
    ]


@pytest.mark.parametrize(
    ("name", "boosts"),
    [
        ("inswapper_128", (1, 2, 3, 4, 6, 8)),
        ("hyperswap_1a_256", (1, 2, 3, 4)),
        ("image_swapper_256", (1,)),
    ],
)
def test_pixel_boosts_reach_1024_pixels_and_no_further(name: str, boosts: tuple[int, ...]) -> None:
    assert SWAPPERS[name].pixel_boosts == boosts


def test_a_recognizer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"inswapper_128 needs embeddings of w600k_r50 \(512.*use"):
        check_pairing(SWAPPERS["inswapper_128"], RECOGNIZERS["sface"])
    with pytest.raises(ValueError, match="takes a photo of the source and no recogniser"):
        check_pairing(SWAPPERS["image_swapper_256"], RECOGNIZERS["sface"])
    check_pairing(SWAPPERS["inswapper_128"], RECOGNIZERS["w600k_r50"])


@pytest.mark.parametrize("name", ["frameswap_256", "frameswap_256_small"])
def test_landmarks_that_the_swapper_cannot_use_are_refused(name: str) -> None:
    own = SWAPPERS[name]
    with pytest.raises(ValueError, match=r"goes by 478 landmarks .* but the landmarker is none"):
        check_landmarker(own, None)
    with pytest.raises(ValueError, match=r"478 .* is 2dfan4 with 68; use face_mesh_attention"):
        check_landmarker(own, LANDMARKERS["2dfan4"])
    check_landmarker(own, LANDMARKERS["face_landmarker_v2"])
    check_landmarker(SWAPPERS["inswapper_128"], None)
    check_landmarker(SWAPPERS["inswapper_128"], LANDMARKERS["2dfan4"])


def test_a_pixel_boost_that_a_swapper_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hyperswap_1a_256 takes .* 1, 2, 3, 4, but 8 was"):
        check_pixel_boost(SWAPPERS["hyperswap_1a_256"], 8)
    check_pixel_boost(SWAPPERS["inswapper_128"], 8)
