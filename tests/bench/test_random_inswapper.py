"""The performance network: the published one's size to the number, and values a GPU can hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.random_inswapper import build, count
from graphs import face_swapper
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors
from tests.graphs.evaluation import open_session

WIDTH = 64


def test_the_full_width_has_the_published_cost_and_file_size() -> None:
    model = build()
    cost = count(model)
    assert cost.macs == 174_575_321_088
    assert cost.parameters == 138_292_739
    # The published inswapper_128.onnx has 554,253,681 bytes; names alone differ.
    assert abs(model.ByteSize() - 554_253_681) < 0.001 * 554_253_681


def test_it_has_the_contract_of_the_published_file() -> None:
    model = build(channels=WIDTH)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    image = [1, 3, 128, 128]
    assert shapes == {"target": image, "source": [1, 512], "output": image}
    assert list(model.graph.initializer[-1].dims) == [512, 512]
    assert not any(model.graph.initializer[-1].name in node.input for node in model.graph.node)
    onnx.checker.check_model(model, full_check=True)


def test_activations_stay_far_below_the_end_of_half_precision_and_the_output_is_not_saturated() -> (
    None
):
    model = build(channels=WIDTH)
    watched = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Add", "Mul")]
    for name in watched:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    target = np.random.default_rng(0).random((1, 3, 128, 128), dtype=np.float32)
    source = source_vectors(SWAPPERS["inswapper_128"], 1)
    output, *values = open_session(model).run(None, {"target": target, "source": source})
    # Squares are taken of these: 250 ** 2 is the largest that float16 holds.
    assert max(float(np.abs(value).max()) for value in values) < 250
    assert 0.05 < output.std() < 0.3
    assert ((output > 0.99) | (output < 0.01)).mean() < 0.01


def test_the_swapper_graph_takes_it_as_it_takes_the_published_file() -> None:
    model = face_swapper.build(SWAPPERS["inswapper_128"], build(channels=WIDTH))
    crops = np.random.default_rng(0).random((2, 1, 3, 128, 128), dtype=np.float32)
    faces = np.zeros((2, 16, 15), np.float32)
    faces[:, 0, 4] = 0.9
    source = source_vectors(SWAPPERS["inswapper_128"], 2)[:, None]
    (swapped,) = open_session(model).run(None, {"crops": crops, "source": source, "faces": faces})
    assert swapped.std() > 0.05
    assert np.abs(swapped[0] - swapped[1]).max() > 0.05


def test_a_seed_gives_the_same_bytes_and_another_seed_other_ones() -> None:
    first, second, other = (build(seed, 8).SerializeToString() for seed in (0, 0, 1))
    assert first == second
    assert first != other
    emap = numpy_helper.to_array(build(0, 8).graph.initializer[-1])
    assert 0.5 < np.linalg.norm(emap[:, 0]) < 2


def test_a_width_that_cannot_be_halved_three_times_is_refused() -> None:
    with pytest.raises(ValueError, match="positive multiple of 8, got 12"):
        build(channels=12)
