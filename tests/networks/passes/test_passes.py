"""The orders of passes, whole."""

from __future__ import annotations

import re

import numpy as np
import pytest

from engines.compilers import choose_compiler
from engines.precision import to_fp16
from engines.profiles import AxisRange, ProfileLimits, make_profile
from graphs import face_swapper
from networks.passes import (
    CHANNELS_LAST_PASSES,
    CPU_LANDMARKER_PASSES,
    GPU_DETECTOR_PASSES,
    GPU_LANDMARKER_PASSES,
    GPU_SAMPLING_PASSES,
    PASSES,
    PORTABLE_PASSES,
    apply_passes,
)
from networks.swappers import SWAPPERS
from tests.networks.passes.comparison import (
    assert_same_outputs,
    count,
    inswapper_network,
    run,
)

ORDERS = {"portable": PORTABLE_PASSES, "channels last": CHANNELS_LAST_PASSES}


@pytest.mark.parametrize("order", ORDERS)
def test_outputs_stay_within_rounding(order: str) -> None:
    assert_same_outputs(inswapper_network(), ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
def test_outputs_stay_within_half_precisions_limit(order: str) -> None:
    network = inswapper_network()
    typed = to_fp16(apply_passes(network, ORDERS[order]), prefix="")
    error = run(typed, 2) - run(network, 2)
    # The contract asks for 50 dB of a float16 crop; random weights give 70 and more.
    assert -10 * np.log10((error**2).mean()) > 60


def test_between_the_convolutions_everything_is_channels_last() -> None:
    counts = count(assert_same_outputs(inswapper_network(32), CHANNELS_LAST_PASSES))
    # Two around each of the 12 convolutions of the style blocks and four where the decoder's
    # upsampling starts and ends.
    assert counts["Transpose"] == 28
    assert counts["ReduceMean"] == counts["Resize"] == 0


def test_the_portable_order_leaves_one_operator_for_each_normalisation() -> None:
    counts = count(apply_passes(inswapper_network(), PORTABLE_PASSES))
    assert counts["InstanceNormalization"] == 12
    assert counts["Gemm"] == 1
    assert counts["ReduceMean"] == counts["Sqrt"] == counts["Tanh"] == 0


@pytest.mark.parametrize("order", ORDERS)
def test_rewriting_twice_gives_the_same_bytes(order: str) -> None:
    first, second = (
        apply_passes(inswapper_network(), ORDERS[order]).SerializeToString() for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("order", ORDERS)
def test_a_real_compiler_takes_the_rewritten_swapper(order: str) -> None:
    model = face_swapper.build(
        SWAPPERS["inswapper_128"], inswapper_network(8), passes=ORDERS[order]
    )
    plan = choose_compiler("tensorrt_rtx").compile(
        to_fp16(model).SerializeToString(),
        profile=make_profile(model, ProfileLimits(AxisRange(1, 2, 2), AxisRange(1, 1, 2))),
        compute_capabilities=["8.9"],
    )
    assert len(plan.data) > 1000
    # Of these two the sizes alone are read, and they stay inputs.
    names = [re.findall(r"Input Tensor (\w+) is .* not being removed", w) for w in plan.warnings]
    assert sorted(names) == [["landmarks"], ["warps"]]


def test_a_name_that_is_no_pass_is_refused() -> None:
    with pytest.raises(KeyError, match="make_it_fast"):
        apply_passes(inswapper_network(), ["make_it_fast"])


def test_the_orders_are_made_of_passes_and_use_them_all() -> None:
    swappers = {*PORTABLE_PASSES, *CHANNELS_LAST_PASSES}
    landmarkers = {*CPU_LANDMARKER_PASSES, *GPU_LANDMARKER_PASSES}
    others = {*GPU_DETECTOR_PASSES, *GPU_SAMPLING_PASSES, *landmarkers}
    assert swappers | others == set(PASSES)
