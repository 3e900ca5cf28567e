from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import assert_same_outputs, count, map_network

PASS = ["sample_with_onnxruntime"]


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_samples_of_either_domain_are_the_same(padding: str) -> None:
    def layers(net: NetworkWriter, image: str) -> str:
        # Positions from the picture itself, some of them outside of it.
        grid = net.node("Transpose", net.conv(image, 4, 2, 3), perm=[0, 2, 3, 1])
        found = net.node(
            "GridSample", image, grid, mode="bilinear", padding_mode=padding, align_corners=0
        )
        return net.node("Mul", found, net.constant(np.float32(2.0)))

    network = map_network(layers)
    rewritten = assert_same_outputs(network, PASS)
    assert count(rewritten)["GridSample"] == 1
    assert {node.domain for node in rewritten.graph.node if node.op_type == "GridSample"} == {
        "com.microsoft"
    }
    assert ("com.microsoft", 1) in {(one.domain, one.version) for one in rewritten.opset_import}
