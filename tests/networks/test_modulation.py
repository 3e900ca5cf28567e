"""Modulated convolutions without computed weights: the same numbers, and any batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from networks.batching import with_free_batch
from networks.modulation import split_modulation
from tests.generated_networks import NetworkWriter, enhancer_network
from tests.graphs.evaluation import open_session

SIDE = 12
CHANNELS = 4


def modulated(
    *, demodulate: bool = True, keepdims: int = 0, square: str = "Pow"
) -> onnx.ModelProto:
    """`image` [1, 4, 12, 12] and `style` [1, 4] to `made` [1, 6, 12, 12]."""
    net = NetworkWriter(3)

    def shaped(value: str, *dims: int) -> str:
        return net.node("Reshape", value, net.constant(np.array(dims, np.int64)))

    trained = net.weight(1, 6, CHANNELS, 3, 3)
    weight = net.node("Mul", trained, shaped("style", 1, 1, CHANNELS, 1, 1))
    if demodulate:
        two = (weight, net.scalar(2.0)) if square == "Pow" else (weight, weight)
        total = net.node(
            "ReduceSum", net.node(square, *two), axes=[2, 3, 4], keepdims=keepdims
        )
        length = net.node("Sqrt", net.node("Add", total, net.scalar(1e-8)))
        factor = shaped(net.node("Div", net.scalar(1.0), length), 1, 6, 1, 1, 1)
        weight = net.node("Mul", weight, factor)
    weight = shaped(weight, 6, CHANNELS, 3, 3)
    made = net.node("Conv", "image", weight, net.bias(6), pads=[1] * 4)
    net.node("Identity", made, output="made")
    return net.model(
        {"image": [1, CHANNELS, SIDE, SIDE], "style": [1, CHANNELS]}, {"made": [1, 6, SIDE, SIDE]}
    )


def feeds(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(count, CHANNELS, SIDE, SIDE)).astype(np.float32)
    return {"image": image, "style": rng.normal(size=(count, CHANNELS)).astype(np.float32) + 1}


@pytest.mark.parametrize(
    "network",
    [
        modulated(), modulated(demodulate=False), modulated(keepdims=1), modulated(square="Mul"),
    ],
    ids=["as exported", "not demodulated", "axes kept", "squared by product"],
)  # fmt: skip
def test_a_batch_is_each_picture_by_itself(network: onnx.ModelProto) -> None:
    free = with_free_batch(split_modulation(network))
    given = feeds(3)
    (batch,) = open_session(free).run(None, given)
    single = open_session(network)
    for row in range(3):
        (wanted,) = single.run(None, {name: value[row : row + 1] for name, value in given.items()})
        np.testing.assert_allclose(batch[row : row + 1], wanted, rtol=1e-4, atol=1e-5)


def test_no_weight_is_computed_and_no_large_product_made() -> None:
    split = split_modulation(modulated())
    initializers = {tensor.name for tensor in split.graph.initializer}
    for node in split.graph.node:
        assert node.op_type != "ReduceSum"
        if node.op_type == "Conv":
            assert node.input[1] in initializers


def test_without_it_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="Conv"):
        with_free_batch(modulated())


def test_other_networks_come_back_with_the_same_meaning() -> None:
    network = enhancer_network("restoreformer_plus_plus")
    given = {"input": np.random.default_rng(0).random((1, 3, 512, 512), dtype=np.float32)}
    (wanted,) = open_session(network).run(None, given)
    (found,) = open_session(split_modulation(network)).run(None, given)
    np.testing.assert_array_equal(found, wanted)
