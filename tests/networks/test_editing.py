"""Constants and nodes put into a graph, and read back from it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from networks.editing import (
    NodeInserter,
    add_initializer,
    constant_array,
    known_array,
    only_user,
    producer,
    replace,
    scalar,
)


def relu_graph() -> ir.Graph:
    """y = relu(x), [2] float32."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    node = ir.node("Relu", [x], name="relu")
    node.outputs[0].name = "y"
    return ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 18}, name="relu")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int8, np.bool_])
def test_an_initializer_has_its_array_s_own_type_and_shape(dtype: type) -> None:
    array = np.array([[1, 0, 1]]).astype(dtype)
    value = add_initializer(relu_graph(), "numbers", array)
    assert value.dtype == ir.DataType.from_numpy(array.dtype)
    assert value.shape == ir.Shape([1, 3])
    np.testing.assert_array_equal(known_array(value), array)


def test_eight_bit_floats_keep_their_type() -> None:
    value = add_initializer(relu_graph(), "q", np.ones(3).astype(ml_dtypes.float8_e4m3fn))
    assert value.dtype == ir.DataType.FLOAT8E4M3FN


def test_only_constants_have_numbers() -> None:
    graph = relu_graph()
    (x,) = graph.inputs
    assert constant_array(x) is None
    assert constant_array(None) is None
    assert scalar(add_initializer(graph, "half", np.float32([[0.5]]))) == 0.5
    assert scalar(add_initializer(graph, "two", np.float32([1, 2]))) is None
    with pytest.raises(AssertionError, match="has no constant numbers"):
        known_array(x)


def test_a_replaced_output_keeps_its_name() -> None:
    graph = relu_graph()
    (old,) = graph.outputs
    node = old.producer()
    assert node is not None
    inserter = NodeInserter(node)
    two = inserter.constant(2.0, "two", like=graph.inputs[0])
    assert two.dtype == ir.DataType.FLOAT
    doubled = inserter.node("Mul", [graph.inputs[0], two])
    assert only_user(two) is producer(doubled, "Mul")
    replace(old, doubled)
    (new,) = graph.outputs
    assert (new, new.name) == (doubled, "y")
    assert [node.op_type for node in graph] == ["Mul", "Relu"]
