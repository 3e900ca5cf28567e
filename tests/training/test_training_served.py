"""The network that is served, written from the weights without PyTorch, is the one of training."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from fetching import weights
from training.checkpoints import load_swapper
from training.export import Served, pack_source
from training.networks import Swapper
from training.warping import canonical_face

pytestmark = pytest.mark.training
TOLERANCE = 1e-4
"""Of values in [0, 1]; 2e-5 is seen. Sums are made in another order, as in the exported file."""


def make_inputs(swapper: Swapper, rows: int) -> dict[str, torch.Tensor]:
    """Crops that have edges, and meshes a few pixels from the mean."""
    torch.manual_seed(0)
    mean = swapper.retargeter.mean.view(1, 478, 3)
    marks = mean + torch.randn(2 * rows, 478, 3) + 4 * torch.randn(2 * rows, 1, 3)
    coarse = torch.nn.functional.interpolate(torch.rand(2 * rows, 3, 24, 24), size=256)
    crops = (0.9 * coarse + 0.1 * torch.rand(2 * rows, 3, 256, 256)).contiguous()
    return {
        "target": crops[:rows], "target_landmarks": marks[:rows] / 256,
        "source": crops[rows:], "source_landmarks": marks[rows:] / 256,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["frameswap_256", "frameswap_256_small"])
def test_what_is_served_equals_pytorch(name: str) -> None:
    swapper, _ = load_swapper(weights.path(name))
    inputs = make_inputs(swapper, 2)
    source = pack_source(inputs["source"], inputs["source_landmarks"] * 256)
    with torch.inference_mode():
        wanted = Served(swapper).eval()(inputs["target"], inputs["target_landmarks"], source)
    session = onnxruntime.InferenceSession(
        weights.load_network(name).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {name: value.numpy() for name, value in inputs.items()}
    # The five points are for faces without landmarks: nothing here may depend on them.
    feeds["target_points"] = np.full((2, 5, 2), np.nan, np.float32)
    given = session.run(["output", "mask"], feeds)
    for want, got, output in zip(wanted, given, ("output", "mask"), strict=True):
        assert want.std() > 0.05, output
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=TOLERANCE, err_msg=output)


def test_both_draw_the_same_labels() -> None:
    from networks.frameswap_network import warping

    with np.load(weights.path("frameswap_256"), allow_pickle=False) as stored:
        shape = stored["mean_shape"]
    ours, theirs = warping.canonical_face(shape), canonical_face(shape)
    np.testing.assert_array_equal(ours.labels.astype(np.float32), theirs.labels)
    np.testing.assert_allclose(ours.points, theirs.points, rtol=0, atol=1e-7)
