"""The client's copy of the contract against the deployment side's."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from frameswap import BadOptions, FaceOrder, SwapOptions, contract

from graphs import contract as served
from networks.swappers import ProvenanceMark


@pytest.mark.parametrize(
    "name",
    [
        "CONTRACT_VERSION",
        "MAX_DETECTIONS",
        "FRAME_FORMATS",
        "FACE_COLUMNS",
        "SCORE_COLUMN",
        "LANDMARK_COLUMN",
        "OPTION_COUNT",
        "FRAME",
        "SWAPPED_FRAME",
        "PADDING_BASE",
        "ENHANCER_BASE",
    ],
)
def test_a_constant_is_the_same_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name)


@pytest.mark.parametrize(
    "name", [name for name in vars(contract) if name.startswith("PARAMETER_")]
)
def test_a_parameter_has_the_same_key_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name)


@pytest.mark.parametrize("name", ["SOURCE", "OPTIONS", "FACES", "VERDICTS", "LANDMARKS", "POSE"])
def test_a_tensor_has_the_same_name_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name).name


@pytest.mark.parametrize(
    "name",
    ["Option", "FaceOrder", "ColorMatrix", "ColorRange", "ChromaLocation", "Refinement",
     "MaskFlag", "KeepFlag", "RegionFlag", "Verdict"],
)  # fmt: skip
def test_an_enumeration_is_the_same_on_both_sides(name: str) -> None:
    ours, theirs = getattr(contract, name), getattr(served, name)
    # `__members__`, because flags leave their zero out when they are walked through.
    assert {n: m.value for n, m in ours.__members__.items()} == {
        n: m.value for n, m in theirs.__members__.items()
    }


def test_what_an_output_may_be_is_the_same_on_both_sides() -> None:
    assert contract.PROVENANCES == get_args(contract.Provenance) == get_args(ProvenanceMark)


@pytest.mark.parametrize(
    "model",
    [
        *contract.SWAP_MODELS.values(), *contract.FIND_MODELS.values(),
        *contract.SWAP_FOUND_MODELS.values(), contract.ENCODE_MODEL,
    ],
)  # fmt: skip
def test_the_tensors_of_an_ensemble_are_the_same_on_both_sides(model: str) -> None:
    from frameswap.models import _SIGNATURES

    spec = served.ENSEMBLE_SPECS[model]
    assert _SIGNATURES[model] == (
        frozenset(tensor.name for tensor in spec.inputs),
        frozenset(tensor.name for tensor in spec.outputs),
    )


def test_options_left_alone_are_all_zero() -> None:
    np.testing.assert_array_equal(SwapOptions().to_tensor(), np.zeros(16, np.float32))


def test_each_option_has_its_place() -> None:
    options = SwapOptions(
        face_order=FaceOrder.RIGHT_TO_LEFT,
        color_matrix=contract.ColorMatrix.BT2020,
        color_range=contract.ColorRange.FULL,
        chroma_location=contract.ChromaLocation.TOP_LEFT,
        score_threshold=0.25,
        nms_threshold=0.75,
        refinement=contract.Refinement.NONE,
        masks=contract.MaskFlag.BOX | contract.MaskFlag.SWAPPER | contract.MaskFlag.REGIONS,
        keep=contract.KeepFlag.EYES | contract.KeepFlag.LIPS,
        box_blur=0.5,
        box_padding=(1, 2, 3, 63),
        weight=0.75,
        pose_limit=40.0,
        areas=contract.AreaFlag.LOWER_FACE | contract.AreaFlag.MOUTH,
        regions=contract.RegionFlag.NOSE | contract.RegionFlag.SKIN,
        enhance=0.8,
        enhancer_weight=0.0,
    )
    padding = 1 + 2 * 64 + 3 * 64**2 + 63 * 64**3
    np.testing.assert_array_equal(
        options.to_tensor(),
        np.float32([3, 3, 1, 2, 0.25, 0.75, 1, 69, 10, 0.5, padding, 0.75, 40, 6, 81 + 128, 65]),
    )


def test_a_weight_or_a_blur_of_none_is_asked_for_by_next_to_nothing() -> None:
    tensor = SwapOptions(weight=0.0, box_blur=0.0).to_tensor()
    for option in (contract.Option.SWAPPER_WEIGHT, contract.Option.BOX_BLUR):
        assert 0 < tensor[option] < 1e-20


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"masks": contract.MaskFlag.NONE | contract.MaskFlag.BOX}, "NONE stands alone"),
        ({"masks": 3}, "masks must be one of MaskFlag's BOX, HULL, SWAPPER, NONE, .*, not 3"),
        ({"keep": "mouth"}, "keep must be one of KeepFlag's MOUTH, EYES, BROWS, LIPS, not 'mouth'"),
        ({"weight": 1.01}, "weight is how much of the swap is shown, from 0 to 1, not 1.01"),
        ({"weight": float("nan")}, "from 0 to 1, not nan"),
        ({"enhance": 1.5}, "enhance is how much of the enhanced face is shown, from 0 to 1"),
        ({"enhancer_weight": -1}, "enhancer_weight is how closely the enhancer keeps to the face"),
        ({"regions": "nose"}, "regions must be one of RegionFlag's SKIN, .*, not 'nose'"),
        ({"regions": contract.RegionFlag.NOSE, "masks": contract.MaskFlag.BOX},
         "regions are parts that the mask regions shows, and masks without it are named"),
        ({"pose_limit": 0.0}, "greater than 0 and at most 180 degrees"),
        ({"box_blur": -0.1}, "box_blur is a share of the crop's side, from 0 to 1, not -0.1"),
        ({"box_padding": (0, 0, 0, 64)}, "each between 0 and 63 percent"),
        ({"box_padding": (1, 2, 3)}, "top, right, bottom and left"),
    ],
)
def test_an_option_that_is_none_is_refused_in_a_sentence(given: dict, text: str) -> None:
    with pytest.raises(BadOptions, match=text):
        SwapOptions(**given)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(BadOptions, match="greater than 0 and at most 1"):
        SwapOptions(score_threshold=value)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(BadOptions, match=r"FaceOrder's LARGEST_FIRST, .*not 'biggest'"):
        SwapOptions(face_order="biggest")
