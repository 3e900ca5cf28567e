from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.precision import to_fp16
from networks.passes import apply_passes
from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import assert_same_outputs, count, map_network, run

PASS = ["sample_with_onnxruntime"]


def sampling(padding: str, align_corners: int) -> onnx.ModelProto:
    """Samples at positions from the picture itself, some of them outside of it."""

    def layers(net: NetworkWriter, image: str) -> str:
        grid = net.node("Transpose", net.conv(image, 4, 2, 3), perm=[0, 2, 3, 1])
        sampled = net.node(
            "GridSample", image, grid, mode="bilinear", padding_mode=padding,
            align_corners=align_corners,
        )  # fmt: skip
        return net.node("Neg", sampled)

    return map_network(layers)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("align_corners", [0, 1])
def test_samples_of_either_domain_are_the_same(padding: str, align_corners: int) -> None:
    rewritten = assert_same_outputs(sampling(padding, align_corners), PASS)
    assert count(rewritten)["GridSample"] == 1
    assert {node.domain for node in rewritten.graph.node if node.op_type == "GridSample"} == {
        "com.microsoft"
    }
    assert ("com.microsoft", 1) in {(one.domain, one.version) for one in rewritten.opset_import}


def test_in_half_precision_it_samples_in_float32() -> None:
    """Its kernels are of float32 alone."""

    def layers(net: NetworkWriter, image: str) -> str:
        # Positions that rounding does not move.
        places = np.random.default_rng(2).uniform(-1.2, 1.2, (1, 6, 5, 2)).astype(np.float32)
        rows = net.node("Shape", image, start=0, end=1)
        shape = net.node("Concat", rows, net.constant(np.array([6, 5, 2], np.int64)), axis=0)
        grid = net.node("Expand", net.constant(places), shape)
        sampled = net.node(
            "GridSample", net.conv(image, 4, 4, 3), grid, mode="bilinear", padding_mode="border",
            align_corners=1,
        )  # fmt: skip
        return net.conv(sampled, 4, 3, 1)

    network = map_network(layers)
    typed = to_fp16(apply_passes(network, PASS), prefix="")
    assert any(node.op_type == "Conv" for node in typed.graph.node)
    # Three operators rounded to a part in 2,048, of values up to about one.
    np.testing.assert_allclose(run(typed, 2), run(network, 2), rtol=0, atol=5e-3)
