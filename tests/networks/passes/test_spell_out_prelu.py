from __future__ import annotations

import numpy as np

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    map_network,
)

PASS = ["spell_out_prelu"]


def test_prelu_with_slopes_of_any_size_gives_the_same_bits() -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        slopes = np.array([0.25, -5.0, 20.0, 0.0, 1.0], np.float32).reshape(5, 1, 1)
        x = net.node("PRelu", net.conv(image, 4, 5, 3), net.constant(slopes))
        return net.node("PRelu", net.conv(x, 5, 3, 1), net.constant(slopes[:3]))

    counts = count(assert_same_outputs(map_network(layers), PASS, atol=0.0))
    assert counts["PRelu"] == 0
    assert counts["Relu"] == counts["Sub"] == 2


def test_other_activations_stay() -> None:
    assert_untouched(
        map_network(lambda net, image: net.node("LeakyRelu", image, alpha=0.1)), PASS
    )
