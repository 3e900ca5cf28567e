from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    map_network,
)

PASS = ["widen_by_convolution"]


def padded(
    pads: list[int], *, value: float | None = None, mode: str = "constant"
) -> onnx.ModelProto:
    def layers(net: NetworkWriter, image: str) -> str:
        more = [] if value is None else [net.constant(np.float32(value))]
        return net.node("Pad", image, net.constant(np.array(pads, np.int64)), *more, mode=mode)

    return map_network(layers)


@pytest.mark.parametrize("value", [None, 0.0])
def test_channels_of_zeros_are_a_convolution(value: float | None) -> None:
    network = padded([0, 0, 0, 0, 0, 3, 0, 0], value=value)
    counts = count(assert_same_outputs(network, PASS, atol=0.0))
    assert counts["Pad"] == 0
    assert counts["Conv"] == 1


@pytest.mark.parametrize(
    ("pads", "value", "mode"),
    [
        ([0, 2, 0, 0, 0, 0, 0, 0], None, "constant"),
        ([0, 0, 1, 1, 0, 0, 1, 1], None, "constant"),
        ([0, 0, 0, 0, 0, 3, 0, 1], None, "constant"),
        ([0, 0, 0, 0, 0, 3, 0, 0], 0.5, "constant"),
        ([0, 0, 0, 0, 0, 3, 0, 0], None, "edge"),
        ([0, 0, 0, 0, 0, 0, 0, 0], None, "constant"),
    ],
)
def test_other_pads_stay(pads: list[int], value: float | None, mode: str) -> None:
    assert_untouched(padded(pads, value=value, mode=mode), PASS)
