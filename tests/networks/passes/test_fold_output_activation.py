from __future__ import annotations

import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)

PASS = ["fold_output_activation"]


def test_the_output_is_a_sigmoid_of_the_last_convolution() -> None:
    rewritten = assert_same_outputs(inswapper_network(), PASS)
    last = rewritten.graph.node[-1]
    assert (last.op_type, list(last.output)) == ("Sigmoid", ["output"])
    assert count(rewritten)["Tanh"] == 0


@pytest.mark.parametrize("halved", ["Div", "Mul"])
def test_a_half_is_known_as_a_division_and_as_a_product(halved: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.node("Tanh", net.conv(image, 4, 3, 3))
        number = net.scalar(2.0 if halved == "Div" else 0.5)
        return net.node(halved, net.node("Add", net.scalar(1.0), x), number)

    assert count(assert_same_outputs(map_network(layers), PASS))["Sigmoid"] == 1


def test_other_numbers_and_other_readers_keep_the_tanh() -> None:
    def scaled(net: NetworkWriter, image: str) -> str:
        x = net.node("Tanh", net.conv(image, 4, 3, 3))
        return net.node("Mul", net.node("Add", net.scalar(1.0), x), net.scalar(0.25))

    def read_twice(net: NetworkWriter, image: str) -> str:
        x = net.node("Tanh", net.conv(image, 4, 3, 3))
        half = net.node("Mul", net.node("Add", x, net.scalar(1.0)), net.scalar(0.5))
        return net.node("Add", half, x)

    assert_untouched(map_network(scaled), PASS)
    assert_untouched(map_network(read_twice), PASS)
