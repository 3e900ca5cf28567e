from __future__ import annotations

import onnx
import pytest

from tests.graphs.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)
from tests.graphs.passes.test_drop_cancelled_biases import normalized
from tests.networks import NetworkWriter

PASS = ["drop_cancelled_shifts"]


def test_the_residual_stream_gets_its_shifts_once_behind_the_last_block() -> None:
    before = inswapper_network()
    rewritten = assert_same_outputs(before, PASS)
    assert count(before)["Relu"] == count(rewritten)["Max"] == 6
    assert count(rewritten)["Relu"] == 0
    maps = {
        node.output[0]
        for node in rewritten.graph.node
        if node.op_type == "Add" and _pixels(rewritten, node.output[0]) == [32, 32]
    }
    # Six additions to the stream and one of all its shifts; there were twelve shifts of maps.
    assert len(maps) == 7


def _pixels(network: onnx.ModelProto, name: str) -> list[int]:
    (value,) = [v for v in network.graph.value_info if v.name == name]
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:]


def shift_of(net: NetworkWriter, channels: int = 4) -> str:
    style = net.node("Gemm", "source", net.weight(6, channels))
    return net.node("Reshape", style, net.constant([-1, channels, 1, 1]))


def reflect(net: NetworkWriter, x: str, pads: list[int]) -> str:
    return net.node("Pad", x, net.constant(pads), mode="reflect")


def block(
    net: NetworkWriter,
    image: str,
    *,
    pads: tuple[int, ...] = (0, 0, 1, 1, 0, 0, 1, 1),
    zeros: int = 0,
    norm: bool = True,
    twice: bool = False,
) -> str:
    x = net.node("Relu", net.node("Add", net.node("Tanh", image), shift_of(net)))
    y = net.conv(reflect(net, x, list(pads)), 4 + pads[1], 4, 3, pads=[zeros] * 4)
    y = normalized(net, y) if norm else y
    return net.node("Add", y, net.node("ReduceMean", x, net.constant([1, 2, 3]))) if twice else y


def test_a_shift_before_an_activation_becomes_its_floor() -> None:
    counts = count(assert_same_outputs(map_network(block), PASS))
    assert (counts["Relu"], counts["Max"]) == (0, 1)


@pytest.mark.parametrize(
    "reason", ["zeros at the edges", "no normalisation", "another reader", "channels reflected"]
)
def test_a_shift_that_would_be_seen_stays(reason: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        if reason == "zeros at the edges":
            return block(net, image, zeros=1)
        if reason == "no normalisation":
            return block(net, image, norm=False)
        if reason == "another reader":
            return block(net, image, twice=True)
        return block(net, image, pads=(0, 1, 1, 1, 0, 0, 1, 1))

    network = map_network(layers)
    assert_untouched(network, PASS)
    assert_same_outputs(network, PASS)


def test_shifts_on_both_sides_of_an_addition_are_added_up_and_still_seen_by_others() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first = net.node("Add", shift_of(net), net.node("Tanh", image))
        stream = net.node("Add", first, net.node("Add", net.node("Abs", image), shift_of(net)))
        y = normalized(net, net.conv(stream, 4, 4, 1))
        return net.node("Add", stream, y)

    assert_same_outputs(map_network(layers), PASS)


def test_a_convolution_without_a_pad_reads_the_unshifted_map() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        shifted = net.node("Add", net.node("Tanh", image), shift_of(net))
        return normalized(net, net.conv(shifted, 4, 4, 3))

    rewritten = assert_same_outputs(map_network(layers), PASS)
    assert count(rewritten)["Gemm"] == 0
