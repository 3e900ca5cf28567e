from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    inswapper_network,
    map_network,
)

PASS = ["drop_cancelled_biases"]


def test_the_convolutions_before_a_normalisation_lose_their_bias_and_no_other_does() -> None:
    rewritten = assert_same_outputs(inswapper_network(), PASS)
    convolutions = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [3] * 4 + [2] * 12 + [3] * 4


def normalized(net: NetworkWriter, x: str, *, axes: tuple[int, ...] = (2, 3)) -> str:
    over = net.constant(list(axes))
    centred = net.node("Sub", x, net.node("ReduceMean", x, over))
    variance = net.node("ReduceMean", net.node("Pow", centred, net.scalar(2.0)), over)
    deviation = net.node("Sqrt", net.node("Add", net.scalar(1e-5), variance))
    return net.node("Div", centred, deviation)


@pytest.mark.parametrize("spelling", ["divided", "reciprocal", "one operator"])
def test_a_normalisation_is_known_in_every_spelling(spelling: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.conv(image, 4, 4, 3)
        if spelling == "divided":
            return normalized(net, x)
        if spelling == "one operator":
            ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
            return net.node("InstanceNormalization", x, net.constant(ones), net.constant(zeros))
        over = net.constant([2, 3])
        centred = net.node("Sub", x, net.node("ReduceMean", x, over))
        variance = net.node("ReduceMean", net.node("Mul", centred, centred), over)
        root = net.node("Sqrt", net.node("Add", variance, net.scalar(1e-5)))
        return net.node("Mul", net.node("Reciprocal", root), centred)

    rewritten = assert_same_outputs(map_network(layers), PASS)
    (conv,) = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert len(conv.input) == 2


def test_a_bias_that_something_else_sees_stays() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.conv(image, 4, 4, 3)
        return net.node("Add", normalized(net, x), x)

    rewritten = assert_same_outputs(map_network(layers), PASS)
    (conv,) = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert len(conv.input) == 3


def test_a_bias_stays_where_the_mean_is_not_over_all_pixels() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        return normalized(net, net.conv(image, 4, 4, 3), axes=(1,))

    rewritten = assert_same_outputs(map_network(layers), PASS)
    (conv,) = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert len(conv.input) == 3
