"""Loops as the author writes them: rounds, state and stacks; and networks in a graph."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphs.authoring import GraphAuthor
from graphs.shapes import constant, typed_value
from tests.graphs.evaluation import evaluate


def doubling(op, rounds, *, start=None, limit=None):
    """1, 2, 4, ... doubled `rounds` times or up to `limit`: the last number, and all on the way."""

    def body(op, index, go_on, number):
        doubled = op.Mul(number, 2.0)
        again = op.Identity(go_on) if limit is None else op.Less(doubled, float(limit))
        return [again, doubled, op.Add(number, op.Cast(index, to=ir.DataType.FLOAT))]

    floats = ir.DataType.FLOAT
    made = GraphAuthor.loop(
        op,
        body,
        op.Squeeze(rounds, [0]),
        [constant(op, np.float32(1.0))],
        name="doubling",
        index="round",
        before=[typed_value("number_before", floats)],
        after=[typed_value("number_after", floats), typed_value("seen", floats)],
        start=start,
    )
    return [op.Reshape(value, [-1]) for value in made]


@pytest.mark.parametrize(
    ("rounds", "limit", "last", "seen"),
    [(3, None, 8.0, [1.0, 3.0, 6.0]), (9, 8.0, 8.0, [1.0, 3.0, 6.0]), (0, None, 1.0, [])],
)
def test_a_loop_hands_its_state_on_and_stacks_what_rounds_give(rounds, limit, last, seen):
    found = evaluate(lambda op, n: doubling(op, n, limit=limit), np.array([rounds]))
    assert found[0] == last
    np.testing.assert_array_equal(found[1], seen)


def test_a_loop_need_not_start():
    def piece(op, rounds):
        return doubling(op, rounds, start=lambda: constant(op, np.array(False)))

    found = evaluate(piece, np.array([3]))
    assert (found[0], len(found[1])) == (1.0, 0)


def test_the_batch_of_an_embedded_network_is_not_the_graphs():
    """Four rows of faces in a batch of one frame: a runtime plans memory by the names of axes."""
    shape = ["B", 3]
    inner, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("half", "out")
    )
    network = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Relu", ["in"], ["half"]),
                helper.make_node("Neg", ["half"], ["out"]),
            ],
            "network", [helper.make_tensor_value_info("in", TensorProto.FLOAT, shape)], [output],
            value_info=[inner],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )  # fmt: skip
    author = GraphAuthor("rows")
    frames = author.builder.input("frames", ir.DataType.FLOAT, ["B", 4, 3])
    author.embed(network, {"in": author.op.Reshape(frames, [-1, 3])})
    values = {value.name: value for node in author.builder.graph for value in node.outputs}
    for name in ("network/half", "network/out"):
        assert values[name].shape == ir.Shape(["network/B", 3])
