"""The comparison of precisions asks the served graph what the network was trained to answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fetching import weights
from networks.swappers import SWAPPERS
from training.checkpoints import load_swapper
from training.precision import Face, make_request, strayed, swap_pairs, typed_graphs

pytestmark = pytest.mark.training
NAME = "frameswap_256_small"


def make_face(seed: int) -> Face:
    """A crop of bytes that has edges, and a mesh a few pixels from the mean."""
    torch.manual_seed(seed)
    swapper, _ = load_swapper(weights.path(NAME))
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), size=256)
    crop = (0.9 * coarse + 0.1 * torch.rand(1, 3, 256, 256)).mul(255).round() / 255
    points = swapper.retargeter.mean.view(1, 478, 3) + torch.randn(1, 478, 3)
    return Face(crop.contiguous(), points.detach())


def test_float32_is_the_trained_network_and_fewer_bits_stray_more() -> None:
    swapper, _ = load_swapper(weights.path(NAME))
    source, target = make_face(1), make_face(2)
    with torch.inference_mode():
        wanted = swapper.eval()(target.crop, target.points, source.crop, source.points).image
    row = SWAPPERS[NAME]
    request = make_request(row, source, target)
    made = {
        precision: swap_pairs(graph, row, [(source, target)])
        for precision, graph in typed_graphs(row, [request])
    }
    (exact,) = made["fp32"]
    # sums in another order, as where the bare networks are compared
    np.testing.assert_allclose(exact.numpy(), wanted.clamp(0, 1).numpy(), rtol=0, atol=1e-4)
    psnr = {
        precision: strayed(found, [exact])["crop PSNR, worst pair, dB"]
        for precision, found in made.items()
        if precision != "fp32"
    }
    assert 60 < psnr["fp16"] < 120
    for precision in ("int8", "fp8"):
        assert 25 < psnr[precision] < psnr["fp16"] - 10
