"""Transposed convolutions with pads of one size: the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from networks.symmetric_pads import with_symmetric_pads
from tests.generated_networks import NetworkWriter
from tests.graphs.evaluation import open_session


def network(**attributes: Any) -> onnx.ModelProto:
    net = NetworkWriter(2)
    weight, bias = net.weight(3, 2, 3, 4), net.bias(2)
    net.node("ConvTranspose", "image", weight, bias, output="made", **attributes)
    return net.model({"image": [1, 3, 5, 7]}, {"made": [1, 2, "h", "w"]})


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "pads": [0, 0, 1, 1]},
        {"strides": [2, 2], "pads": [1, 2, 0, 0]},
        {"strides": [2, 1], "pads": [1, 2, 2, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
    ],
)
def test_what_is_cut_off_behind_is_what_was_cut_off_inside(attributes: dict[str, Any]) -> None:
    given = {"image": np.random.default_rng(0).random((1, 3, 5, 7), dtype=np.float32)}
    before = network(**attributes)
    after = with_symmetric_pads(before)
    (wanted,) = open_session(before).run(None, given)
    (found,) = open_session(after).run(None, given)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    (node,) = (node for node in after.graph.node if node.op_type == "ConvTranspose")
    (pads,) = (list(entry.ints) for entry in node.attribute if entry.name == "pads")
    assert pads[:2] == pads[2:]
    assert all(entry.name != "auto_pad" for entry in node.attribute)


def test_one_that_is_symmetric_is_left_alone() -> None:
    before = network(strides=[2, 2], pads=[1, 1, 1, 1])
    after = with_symmetric_pads(before)
    assert [node.op_type for node in after.graph.node] == ["ConvTranspose"]
