from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    map_network,
)

PASS = ["cancel_transposes"]


def to_last(net: NetworkWriter, x: str) -> str:
    return net.node("Transpose", x, perm=[0, 2, 3, 1])


def to_first(net: NetworkWriter, x: str) -> str:
    return net.node("Transpose", x, perm=[0, 3, 1, 2])


def test_transposes_meet_through_activations_and_scalars() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.node("LeakyRelu", to_first(net, net.node("Relu", image)), alpha=0.1)
        x = net.node("Mul", x, net.scalar(3.0))
        return net.node("Relu", to_last(net, net.node("Tanh", x)))

    rewritten = assert_same_outputs(map_network(layers), PASS, atol=0)
    assert count(rewritten)["Transpose"] == 0
    (leaky,) = [node for node in rewritten.graph.node if node.op_type == "LeakyRelu"]
    assert [attribute.name for attribute in leaky.attribute] == ["alpha"]


def test_a_residual_stream_goes_channels_last_at_its_first_addition() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        stream = net.conv(image, 4, 4, 3, pads=[1] * 4)
        for _ in range(3):
            y = to_last(net, stream)
            y = net.node("MatMul", y, net.weight(4, 4))
            stream = net.node("Add", stream, to_first(net, y))
        return stream

    counts = count(assert_same_outputs(map_network(layers), PASS))
    # One on the way in, one on the way out.
    assert counts["Transpose"] == 2


def test_a_map_that_others_read_as_it_was_is_still_there() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first = to_first(net, net.node("Relu", image))
        last = to_last(net, net.node("Tanh", first))
        pooled = net.node("ReduceMean", first, net.constant([1, 2, 3]))
        return net.node("Add", net.node("Relu", last), pooled)

    assert_same_outputs(map_network(layers), PASS)


@pytest.mark.parametrize("permutation", [[0, 1, 3, 2], [0, 3, 2, 1], [3, 0, 1, 2]])
def test_other_transposes_stay(permutation: list[int]) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.node("Relu", net.node("Transpose", image, perm=permutation))
        return net.node("Transpose", x, perm=[0, 2, 3, 1])

    assert_untouched(map_network(layers), PASS)


def test_an_operand_of_one_value_a_channel_is_turned_instead_of_the_map() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        x = net.node("Max", to_first(net, net.node("Relu", image)), net.weight(1, 10, 1, 1))
        return to_last(net, x)

    rewritten = assert_same_outputs(map_network(layers), PASS, atol=0)
    (transpose,) = [node for node in rewritten.graph.node if node.op_type == "Transpose"]
    (vector,) = [t for t in rewritten.graph.initializer if list(t.dims) == [1, 10, 1, 1]]
    assert transpose.input[0] == vector.name


def test_an_operand_of_lower_rank_keeps_the_transpose_where_it_is() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        row = net.constant(np.arange(12, dtype=np.float32))
        return to_last(net, net.node("Mul", to_first(net, net.node("Relu", image)), row))

    assert_untouched(map_network(layers, shape=(12, 12, 10)), PASS)
