from __future__ import annotations

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import assert_same_outputs, assert_untouched, map_network

PASS = ["pool_before_relu"]


def pool(net: NetworkWriter, x: str) -> str:
    return net.node(
        "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
    )


def test_a_pooled_relu_runs_behind_the_pooling_and_gives_the_same_numbers() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        return pool(net, net.node("Relu", net.conv(image, 4, 5, 3)))

    rewritten = assert_same_outputs(map_network(layers), PASS, atol=0.0)
    order = [node.op_type for node in rewritten.graph.node]
    assert order.index("MaxPool") < order.index("Relu")


def test_a_relu_that_others_read_stays_where_it_is() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        active = net.node("Relu", image)
        pooled = net.node("ReduceMean", pool(net, active), net.constant([1, 2, 3]))
        return net.node("Add", active, pooled)

    network = map_network(layers)
    assert_untouched(network, PASS)
    before = [node.op_type for node in network.graph.node]
    rewritten = assert_same_outputs(network, PASS, atol=0.0)
    assert [node.op_type for node in rewritten.graph.node] == before
