from __future__ import annotations

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    inswapper_network,
    map_network,
)

PASS = ["widen_image_channels"]


def test_the_images_convolution_sees_eight_channels_and_the_answer_is_the_same() -> None:
    # 64 wide: every other convolution has eight channels or more.
    rewritten = assert_same_outputs(inswapper_network(64), PASS, atol=1e-6)
    dims = {tensor.name: list(tensor.dims) for tensor in rewritten.graph.initializer}
    convolutions = [node for node in rewritten.graph.node if node.op_type == "Conv"]
    assert dims[convolutions[0].input[1]] == [8, 8, 7, 7]
    assert dims[convolutions[1].input[1]] == [16, 8, 3, 3]
    # The zeros come before the reflected pad, not after it.
    assert [node.op_type for node in rewritten.graph.node[:3]] == ["Pad", "Pad", "Conv"]


def test_grouped_and_wide_convolutions_stay() -> None:
    def grouped(net: NetworkWriter, image: str) -> str:
        return net.node("Conv", image, net.weight(4, 1, 3, 3), group=4)

    def wide(net: NetworkWriter, image: str) -> str:
        return net.conv(image, 8, 4, 3)

    assert_untouched(map_network(grouped), PASS)
    assert_untouched(map_network(wide, shape=(8, 6, 6)), PASS)
