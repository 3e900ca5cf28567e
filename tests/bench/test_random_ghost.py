"""The second performance network: its contract, and values that half precision can hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bench.random_ghost import build
from graphs import face_swapper
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors
from tests.graphs.evaluation import open_session

WIDTH = 64


def test_it_has_the_contract_of_its_row() -> None:
    model = build(channels=WIDTH)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    image = [1, 3, 256, 256]
    assert shapes == {"target": image, "source": [1, 512], "output": image}
    onnx.checker.check_model(model, full_check=True)
    served = face_swapper.build(SWAPPERS["ghost_1_256"], model)
    assert served.graph.output[0].name == "swapped_crops"


def test_every_input_reaches_the_output_and_nothing_leaves_half_precision() -> None:
    model = build(channels=WIDTH)
    watched = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Add", "Mul")]
    for name in watched:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    rng = np.random.default_rng(0)
    target = rng.random((2, 1, 3, 256, 256), dtype=np.float32) * 2 - 1
    source = source_vectors(SWAPPERS["ghost_1_256"], 2)[:, None]
    session = open_session(model)

    def run(picture: int, person: int) -> list[np.ndarray]:
        return session.run(None, {"target": target[picture], "source": source[person]})

    output, *values = run(0, 0)
    # float16 ends at 65,504; the normalisation's squares are kept in float32.
    assert max(float(np.abs(value).max()) for value in values) < 1000
    assert 0.1 < output.std() < 0.9
    assert np.abs(output - run(0, 1)[0]).mean() > 0.01
    assert np.abs(output - run(1, 0)[0]).mean() > 0.01


@pytest.mark.parametrize("channels", [0, 48])
def test_a_width_that_cannot_be_halved_five_times_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"positive multiple of 32, got {channels}"):
        build(channels=channels)
