from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.precision import to_fp16
from networks.passes import apply_passes
from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import assert_same_outputs, map_network, run

PASS = ["sample_channels_first"]


def sampling(align_corners: int, *, convolved: bool = False) -> onnx.ModelProto:
    def layers(net: NetworkWriter, image: str) -> str:
        places = np.random.default_rng(2).uniform(-1.2, 1.2, (1, 6, 5, 2)).astype(np.float32)
        grid = net.node("Expand", net.constant(places), net.node("Concat", *(
            net.node("Shape", image, start=0, end=1), net.constant(np.array([6, 5, 2], np.int64)),
        ), axis=0))  # fmt: skip
        image = net.conv(image, 4, 4, 3) if convolved else image
        sampled = net.node(
            "GridSample", image, grid, mode="bilinear", padding_mode="border",
            align_corners=align_corners,
        )  # fmt: skip
        return net.conv(sampled, 4, 3, 1) if convolved else net.node("Neg", sampled)

    return map_network(layers)


@pytest.mark.parametrize("align_corners", [0, 1])
def test_the_other_domains_operator_gives_the_same_numbers(align_corners: int) -> None:
    rewritten = assert_same_outputs(sampling(align_corners), PASS)
    domains = [node.domain for node in rewritten.graph.node if node.op_type == "GridSample"]
    assert domains == ["com.microsoft"]


def test_in_half_precision_it_samples_in_float32() -> None:
    """Its kernels are of float32 alone."""
    network = sampling(1, convolved=True)
    typed = to_fp16(apply_passes(network, PASS), prefix="")
    assert any(node.op_type == "Conv" for node in typed.graph.node)
    # Three operators rounded to a part in 2,048, of values up to about one.
    np.testing.assert_allclose(run(typed, 2), run(network, 2), rtol=0, atol=5e-3)
