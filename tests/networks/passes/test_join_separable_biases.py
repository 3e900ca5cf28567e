from __future__ import annotations

from typing import Any

import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    map_network,
)

PASS = ["join_separable_biases"]
PADS = [1, 1, 1, 1]


def depthwise(
    net: NetworkWriter, x: str, channels: int, *, bias: bool = True, **attributes: Any
) -> str:
    operands = [net.weight(channels, 1, 3, 3), *([net.bias(channels)] if bias else [])]
    return net.node("Conv", x, *operands, **{"group": channels, "pads": PADS, **attributes})


@pytest.mark.parametrize("shape", [(4, 12, 10), (4, 3, 2), (4, 2, 3)])
def test_both_biases_are_added_once_and_less_of_the_first_at_the_border(
    shape: tuple[int, int, int],
) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first = net.node("Relu", depthwise(net, net.conv(image, 4, 6, 1), 6))
        return depthwise(net, net.conv(first, 6, 3, 1), 3)

    rewritten = assert_same_outputs(map_network(layers, shape=shape), PASS)
    assert count(rewritten)["Add"] == 2
    assert all(len(node.input) == 2 for node in rewritten.graph.node if node.op_type == "Conv")


@pytest.mark.parametrize("which", ["pointwise", "depthwise"])
def test_one_bias_is_enough(which: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        weight = net.weight(6, 4, 1, 1)
        operands = [weight, net.bias(6)] if which == "pointwise" else [weight]
        return depthwise(net, net.node("Conv", image, *operands), 6, bias=which == "depthwise")

    assert count(assert_same_outputs(map_network(layers), PASS))["Add"] == 1


def test_what_has_no_bias_gets_no_addition() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        return depthwise(net, net.node("Conv", image, net.weight(6, 4, 1, 1)), 6, bias=False)

    assert_untouched(map_network(layers), PASS)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [0, 0, 0, 0]},
        {"pads": [1, 1, 0, 0]},
        {"strides": [2, 2]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_other_depthwise_convolutions_stay(attributes: dict[str, Any]) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        padded = {} if "auto_pad" in attributes else {"pads": PADS}
        operands = [net.weight(6, 1, 3, 3), net.bias(6)]
        pointwise = net.conv(image, 4, 6, 1)
        return net.node("Conv", pointwise, *operands, group=6, **{**padded, **attributes})

    assert_untouched(map_network(layers), PASS)


def test_dense_convolutions_and_maps_that_are_read_twice_stay() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        read_twice = net.conv(image, 4, 6, 1)
        dense = net.conv(net.conv(image, 4, 6, 1), 6, 6, 3, pads=PADS)
        wide = net.conv(image, 4, 6, 3, pads=PADS)
        added = net.node("Add", depthwise(net, read_twice, 6), read_twice)
        return net.node("Add", net.node("Add", added, dense), depthwise(net, wide, 6))

    assert_untouched(map_network(layers), PASS)
