from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    map_network,
)

PASS = ["merge_sibling_convolutions"]


def join(net: NetworkWriter, *parts: str) -> str:
    """Whatever the parts' channels: their means over them, added."""
    means = [net.node("ReduceMean", part, net.constant([1])) for part in parts]
    total = means[0]
    for mean in means[1:]:
        total = net.node("Add", net.node("Mul", total, net.scalar(0.7)), mean)
    return total


def test_heads_of_one_map_become_one_with_what_is_depthwise_behind_them() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        heads = []
        for channels in (1, 4, 10):
            head = net.conv(image, 4, channels, 1)
            weight = net.weight(channels, 1, 3, 3)
            pads = [1, 1, 1, 1]
            heads.append(
                net.node("Conv", head, weight, net.bias(channels), group=channels, pads=pads)
            )
        return join(net, *heads)

    counts = count(assert_same_outputs(map_network(layers), PASS))
    assert (counts["Conv"], counts["Split"]) == (2, 1)


def test_heads_with_and_without_bias_are_joined() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        return join(
            net,
            net.node("Conv", image, net.weight(2, 4, 3, 3)),
            net.conv(image, 4, 3, 3),
        )

    assert count(assert_same_outputs(map_network(layers), PASS))["Conv"] == 1


def test_a_head_that_is_read_twice_keeps_its_own_depthwise_part() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first, second = net.conv(image, 4, 2, 1), net.conv(image, 4, 3, 1)
        deep = [
            net.node("Conv", head, net.weight(channels, 1, 3, 3), group=channels)
            for head, channels in ((first, 2), (second, 3))
        ]
        pooled = net.node("ReduceMean", net.node("Tanh", second), net.constant([1, 2, 3]))
        return net.node("Add", join(net, *deep), pooled)

    assert count(assert_same_outputs(map_network(layers), PASS))["Conv"] == 3


def test_nodes_without_a_name_are_joined_map_by_map() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        heads = [net.conv(value, 4, n, 1) for value in (image, net.node("Tanh", image))
                 for n in (2, 3)]  # fmt: skip
        for node in net.nodes:
            node.name = ""
        return join(net, *heads)

    assert count(assert_same_outputs(map_network(layers), PASS))["Conv"] == 2


def test_what_a_branch_reads_stays() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        first, second = net.conv(image, 4, 2, 1), net.conv(image, 4, 2, 1)
        weight = net.weight(2, 4, 1, 1)
        branches = [
            helper.make_graph(
                [helper.make_node("Conv", [image, weight], [name])], name, [],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            )
            for name in ("shown", "hidden")
        ]  # fmt: skip
        condition = net.constant(np.array(True))
        chosen = net.node("If", condition, then_branch=branches[0], else_branch=branches[1])
        return join(net, first, second, chosen)

    assert count(assert_same_outputs(map_network(layers), PASS))["Conv"] == 1


def test_convolutions_of_other_shapes_and_of_other_maps_stay() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        small = net.conv(image, 4, 2, 1)
        large = net.conv(image, 4, 2, 3, pads=[1, 1, 1, 1])
        strided = net.conv(net.node("Tanh", image), 4, 2, 1)
        grouped = net.node("Conv", image, net.weight(4, 2, 1, 1), group=2)
        return join(net, small, large, strided, grouped)

    assert_untouched(map_network(layers), PASS)
