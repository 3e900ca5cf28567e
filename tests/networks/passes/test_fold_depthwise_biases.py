from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    map_network,
)

PASS = ["fold_depthwise_biases"]


def depthwise(
    net: NetworkWriter, x: str, channels: int, *, kernel: int = 3, stride: int = 1, pad: int = 1
) -> str:
    return net.node(
        "Conv", x, net.weight(channels, 1, kernel, kernel), net.bias(channels),
        group=channels, strides=[stride, stride], pads=[pad] * 4,
    )  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 1, 2)])
def test_of_a_depthwise_and_a_pointwise_convolution_the_second_alone_has_a_bias(
    kernel: int, stride: int, pad: int
) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = depthwise(net, image, 4, kernel=kernel, stride=stride, pad=pad)
        return net.node("Relu", net.conv(x, 4, 7, 1))

    rewritten = assert_same_outputs(map_network(layers), PASS)
    convolutions = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [2, 3]


def test_what_is_read_twice_or_padded_in_between_stays() -> None:
    def twice(net: NetworkWriter, image: str) -> str:
        x = depthwise(net, image, 4)
        return net.node("Add", net.conv(x, 4, 4, 1), x)

    def padded(net: NetworkWriter, image: str) -> str:
        x = depthwise(net, image, 4)
        return net.node("Conv", x, net.weight(5, 4, 1, 1), pads=[1, 1, 1, 1])

    def not_pointwise(net: NetworkWriter, image: str) -> str:
        return net.conv(depthwise(net, image, 4), 4, 5, 3)

    for layers in (twice, padded, not_pointwise):
        assert_untouched(map_network(layers), PASS)


def test_convolutions_that_are_not_depthwise_stay() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.node("Conv", image, net.constant(np.ones((4, 2, 3, 3), np.float32)), group=2)
        return net.conv(x, 4, 5, 1)

    assert_untouched(map_network(layers), PASS)
