from __future__ import annotations

import numpy as np
import pytest

from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
)
from tests.networks.passes.test_drop_cancelled_biases import normalized

PASS = ["fuse_instance_normalization"]


def test_seven_operators_a_normalisation_become_one_between_two_views() -> None:
    before = inswapper_network()
    counts = count(assert_same_outputs(before, PASS))
    assert counts["InstanceNormalization"] == 12
    for gone in ("ReduceMean", "Sub", "Sqrt", "Mul"):
        assert counts[gone] == 0
    assert counts["Add"] == count(before)["Add"] - 24


def styled(net: NetworkWriter, image: str, *, shared: bool) -> str:
    """A normalisation whose scale comes from the source and whose shift is a constant."""
    scale = net.node("Gemm", "source", net.weight(6, 4))
    scale = net.node("Reshape", scale, net.constant([-1, 4, 1, 1]))
    shift = net.constant(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)) if shared else scale
    return net.node("Add", net.node("Mul", normalized(net, image), scale), shift)


@pytest.mark.parametrize("shared", [True, False])
def test_a_style_shared_by_the_batch_is_repeated(shared: bool) -> None:
    network = map_network(lambda net, image: styled(net, image, shared=shared))
    counts = count(assert_same_outputs(network, PASS))
    assert counts["InstanceNormalization"] == 1
    assert counts["Expand"] == int(shared)


def test_epsilon_survives_as_it_was_written() -> None:
    network = map_network(lambda net, image: styled(net, image, shared=False))
    (node,) = [
        node
        for node in assert_same_outputs(network, PASS).graph.node
        if node.op_type == "InstanceNormalization"
    ]
    (epsilon,) = [attribute.f for attribute in node.attribute if attribute.name == "epsilon"]
    assert epsilon == np.float32(1e-5)


def test_a_normalisation_without_a_style_or_over_other_axes_stays() -> None:
    assert_untouched(map_network(lambda net, image: normalized(net, image)), PASS)
    assert_untouched(map_network(lambda net, image: normalized(net, image, axes=(1,))), PASS)
