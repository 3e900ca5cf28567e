from __future__ import annotations

import numpy as np
import pytest

from networks.passes.pad_channels_last import reflected_indices
from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)

PASS = ["pad_channels_last"]


@pytest.mark.parametrize(
    ("size", "before", "after"), [(5, 1, 1), (5, 0, 0), (5, 4, 0), (5, 0, 4), (2, 1, 1), (9, 3, 2)]
)
def test_indices_are_numpys_reflection(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    assert reflected_indices(size, before, after) == expected.tolist()


def test_small_maps_are_padded_by_one_product_and_large_ones_by_slices() -> None:
    network = inswapper_network()
    # Exact: every padded value is one value times 1.
    counts = count(assert_same_outputs(network, PASS, atol=0))
    assert counts["Pad"] == 0
    assert counts["MatMul"] == 12
    # Two pads of 3 on 128 x 128, two axes each.
    assert counts["Concat"] == 4


@pytest.mark.parametrize(
    "pads", [[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 3, 0, 0, 0, 0, 2], [0, 0, 0, 5, 0, 0, 4, 0]]
)
@pytest.mark.parametrize("side", [10, 60])
def test_any_amounts_on_any_side_are_exact(pads: list[int], side: int) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        return net.node("Pad", image, net.constant(pads), mode="reflect")

    network = map_network(layers, shape=(4, 12, side))
    assert count(assert_same_outputs(network, PASS, atol=0))["Pad"] == 0


@pytest.mark.parametrize(
    ("mode", "pads"),
    [
        ("constant", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("edge", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("reflect", [0, 1, 1, 1, 0, 0, 1, 1]),
    ],
)
def test_other_pads_stay(mode: str, pads: list[int]) -> None:
    assert_untouched(
        map_network(lambda net, image: net.node("Pad", image, net.constant(pads), mode=mode)), PASS
    )
