from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)

PASS = ["upsample_channels_last"]


def resized(net: NetworkWriter, image: str, scales: list[float], **attributes: str) -> str:
    return net.node("Resize", image, "", net.constant(np.array(scales, np.float32)), **attributes)


def test_both_doublings_become_two_products_each() -> None:
    counts = count(assert_same_outputs(inswapper_network(), PASS))
    assert (counts["Resize"], counts["MatMul"]) == (0, 4)


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel"])
@pytest.mark.parametrize("shape", [(4, 12, 10), (3, 2, 7)])
def test_maps_of_any_size_are_doubled_with_their_edges_repeated(
    mode: str, shape: tuple[int, int, int]
) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        options = {"mode": "linear", "coordinate_transformation_mode": mode}
        return resized(net, image, [1, 1, 2, 2], **options)

    assert count(assert_same_outputs(map_network(layers, shape=shape), PASS))["Resize"] == 0


@pytest.mark.parametrize(
    ("scales", "mode", "coordinates"),
    [
        ([1, 1, 3, 3], "linear", "half_pixel"),
        ([1, 1, 2, 1], "linear", "half_pixel"),
        ([1, 1, 2, 2], "nearest", "half_pixel"),
        ([1, 1, 2, 2], "cubic", "half_pixel"),
        ([1, 1, 2, 2], "linear", "align_corners"),
        ([1, 1, 2, 2], "linear", "asymmetric"),
    ],
)
def test_other_resizes_stay(scales: list[float], mode: str, coordinates: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        options = {"mode": mode, "coordinate_transformation_mode": coordinates}
        return resized(net, image, scales, **options)

    assert_untouched(map_network(layers), PASS)
