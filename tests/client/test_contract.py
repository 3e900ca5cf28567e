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
    ],
)
def test_a_constant_is_the_same_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name)


@pytest.mark.parametrize(
    "name", [name for name in vars(contract) if name.startswith("PARAMETER_")]
)
def test_a_parameter_has_the_same_key_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name)


@pytest.mark.parametrize("name", ["SOURCE", "OPTIONS", "FACES"])
def test_a_tensor_has_the_same_name_on_both_sides(name: str) -> None:
    assert getattr(contract, name) == getattr(served, name).name


@pytest.mark.parametrize(
    "name", ["Option", "FaceOrder", "ColorMatrix", "ColorRange", "ChromaLocation"]
)
def test_an_enumeration_is_the_same_on_both_sides(name: str) -> None:
    ours, theirs = getattr(contract, name), getattr(served, name)
    assert {m.name: m.value for m in ours} == {m.name: m.value for m in theirs}


def test_what_an_output_may_be_is_the_same_on_both_sides() -> None:
    assert contract.PROVENANCES == get_args(contract.Provenance) == get_args(ProvenanceMark)


@pytest.mark.parametrize("model", [*contract.SWAP_MODELS.values(), contract.ENCODE_MODEL])
def test_the_tensors_of_an_ensemble_are_the_same_on_both_sides(model: str) -> None:
    from frameswap.models import _SIGNATURES

    spec = served.ENSEMBLE_SPECS[model]
    assert _SIGNATURES[model] == (
        frozenset(tensor.name for tensor in spec.inputs),
        frozenset(tensor.name for tensor in spec.outputs),
    )


def test_options_left_alone_are_all_zero() -> None:
    np.testing.assert_array_equal(SwapOptions().to_tensor(), np.zeros(8, np.float32))


def test_each_option_has_its_place() -> None:
    options = SwapOptions(
        face_order=FaceOrder.RIGHT_TO_LEFT,
        color_matrix=contract.ColorMatrix.BT2020,
        color_range=contract.ColorRange.FULL,
        chroma_location=contract.ChromaLocation.TOP_LEFT,
        score_threshold=0.25,
        nms_threshold=0.75,
    )
    np.testing.assert_array_equal(
        options.to_tensor(), np.array([3, 3, 1, 2, 0.25, 0.75, 0, 0], np.float32)
    )


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(BadOptions, match="greater than 0 and at most 1"):
        SwapOptions(score_threshold=value)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(BadOptions, match=r"FaceOrder's LARGEST_FIRST, .*not 'biggest'"):
        SwapOptions(face_order="biggest")
