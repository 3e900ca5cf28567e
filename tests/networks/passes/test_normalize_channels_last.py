from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.precision import to_fp16
from networks.passes import apply_passes
from tests.generated_networks import NetworkWriter
from tests.networks.passes.comparison import (
    assert_same_outputs,
    assert_untouched,
    count,
    inswapper_network,
    map_network,
    run,
)
from tests.networks.passes.test_drop_cancelled_biases import normalized
from tests.networks.passes.test_fuse_instance_normalization import styled

PASS = ["normalize_channels_last"]


def test_both_means_become_matrix_products_over_the_pixels() -> None:
    counts = count(assert_same_outputs(inswapper_network(), PASS))
    assert (counts["MatMul"], counts["ReduceMean"]) == (24, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_maps_that_are_not_square_and_shared_styles_are_rewritten(shared: bool) -> None:
    network = map_network(lambda net, image: styled(net, image, shared=shared))
    assert count(assert_same_outputs(network, PASS))["MatMul"] == 2


def test_a_normalisation_without_a_style_stays() -> None:
    assert_untouched(map_network(lambda net, image: normalized(net, image)), PASS)


def loud_network(gain: float) -> onnx.ModelProto:
    """A convolution whose output, squared, float16 cannot hold; the normalisation undoes it."""

    def layers(net: NetworkWriter, image: str) -> str:
        weight = net.rng.normal(size=(4, 4, 3, 3)) * gain
        # One silent channel: it has no gain to balance, and no variance to divide by.
        weight[2] = 0
        x = net.node("Conv", image, net.constant(weight.astype(np.float32)))
        return styled(net, x, shared=True)

    return map_network(layers)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 3e3])
def test_loud_and_faint_channels_stay_exact_and_fit_half_precision(gain: float) -> None:
    network = loud_network(gain)
    # 1e-4: where the deviation is near epsilon's root, rounding of the mean shows.
    rewritten = assert_same_outputs(network, PASS, atol=1e-4)
    typed = run(to_fp16(rewritten, prefix=""), 2)
    error = typed - run(network, 2)
    # Values reach 10; float16 resolves 1/128 there.
    assert np.abs(error).max() < 0.03


def test_a_channel_is_only_scaled_by_powers_of_two() -> None:
    network = loud_network(100.0)
    before, after = (
        next(t for t in model.graph.initializer if t.name == conv.input[1])
        for model in (network, apply_passes(network, PASS))
        for conv in model.graph.node
        if conv.op_type == "Conv"
    )
    old, new = numpy_helper.to_array(before), numpy_helper.to_array(after)
    ratios = np.unique(old[[0, 1, 3]] / new[[0, 1, 3]])
    assert (np.log2(ratios) == np.round(np.log2(ratios))).all()
    assert not new[2].any()
