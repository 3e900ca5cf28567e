"""Typing a network: what becomes float16, what stays float32, and what it costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from engines.errors import PrecisionError
from engines.precision import to_fp16

RNG_SEED = 20240607

# inswapper's instance normalisation as its exporter wrote it: mean, difference, mean of squares,
# epsilon 1e-8, root, reciprocal, product.
NORMALIZED = """
<ir_version: 9, opset_import: ["": 18]>
normalized (float[N, 3, 8, 8] x) => (float[N, 3, 16, 16] out)
<float[4, 3, 3, 3] w1, float[4] gamma, float[4] beta, float[4] mean, float[4] variance,
 int64[2] axes = {2, 3}, float eps = {1e-8}, float one = {1.0},
 float[4] scales = {1.0, 1.0, 2.0, 2.0}, float[3, 4, 3, 3] w2>
{
  ["network/conv_1"] c = Conv <pads = [1, 1, 1, 1]> (x, w1)
  ["network/norm"] bn = BatchNormalization (c, gamma, beta, mean, variance)
  ["network/relu"] r = Relu (bn)
  ["network/mean"] mu = ReduceMean (r, axes)
  ["network/difference"] d = Sub (r, mu)
  ["network/square"] sq = Mul (d, d)
  ["network/variance"] var = ReduceMean (sq, axes)
  ["network/epsilon"] ve = Add (var, eps)
  ["network/root"] sd = Sqrt (ve)
  ["network/reciprocal"] inv = Div (one, sd)
  ["network/normalize"] n = Mul (d, inv)
  ["network/resize"] up = Resize <mode = "linear"> (n, "", scales)
  ["network/conv_2"] out = Conv <pads = [1, 1, 1, 1]> (up, w2)
}
"""

GUARDED = """
<ir_version: 9, opset_import: ["": 18]>
guarded (float[N, 4] x, float[N] score) => (float[N, 4] out)
<float[4, 4] w, float zero = {0.0}>
{
  ["preprocess/scaled"] scaled = Add (x, x)
  ["preprocess/any"] best = ReduceMax <keepdims = 0> (score)
  ["preprocess/found"] found = Greater (best, zero)
  out = If (found) <
    then_branch = run () => (float[N, 4] swapped) {
      ["network/product"] product = MatMul (scaled, w)
      swapped = Identity (product)
    },
    else_branch = skip () => (float[N, 4] empty) {
      empty = Identity (scaled)
    }
  >
}
"""


def parse(text: str) -> onnx.ModelProto:
    """The model of `text`; weights declared without values are drawn, always the same."""
    model = parser.parse_model(text)
    rng = np.random.default_rng(RNG_SEED)
    for declared in list(model.graph.value_info):
        shape = [dim.dim_value for dim in declared.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape).astype(np.float32)
        if declared.name == "variance":
            values = np.abs(values) + np.float32(0.1)
        model.graph.initializer.append(numpy_helper.from_array(values, declared.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, **feeds: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    output: NDArray[np.float32] = session.run(None, feeds)[0]
    return output


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value and initializer by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def node_inputs(model: onnx.ModelProto, name: str) -> list[int]:
    found = types(model)
    (node,) = [node for node in model.graph.node if node.name == name]
    return [found[value] for value in node.input if value]


def images(scale: float = 1.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(RNG_SEED)
    return (scale * rng.standard_normal((2, 3, 8, 8))).astype(np.float32)


def test_convolutions_are_float16_and_the_inputs_and_outputs_stay_float32() -> None:
    typed = to_fp16(parse(NORMALIZED))
    for name in ("network/conv_1", "network/conv_2"):
        assert set(node_inputs(typed, name)) == {TensorProto.FLOAT16}
    assert types(typed)["x"] == types(typed)["out"] == TensorProto.FLOAT


@pytest.mark.parametrize(
    "node", ["mean", "square", "variance", "epsilon", "root", "reciprocal", "normalize"]
)
def test_the_statistics_of_a_normalisation_stay_float32(node: str) -> None:
    typed = to_fp16(parse(NORMALIZED))
    floats = set(node_inputs(typed, f"network/{node}")) - {TensorProto.INT64}
    assert floats == {TensorProto.FLOAT}


def test_a_resize_keeps_its_scales_in_float32() -> None:
    typed = to_fp16(parse(NORMALIZED))
    assert node_inputs(typed, "network/resize") == [TensorProto.FLOAT16, TensorProto.FLOAT]


def test_a_batch_normalisation_is_folded_into_its_convolution() -> None:
    typed = to_fp16(parse(NORMALIZED))
    assert "BatchNormalization" not in {node.op_type for node in typed.graph.node}


def test_the_typed_network_is_close_to_the_untyped_one() -> None:
    model = parse(NORMALIZED)
    typed = to_fp16(model)
    # The last convolution sums 36 products of about 1, each rounded to 11 bits (5e-4) twice, and
    # rounds a sum of up to 12 (4e-3).
    np.testing.assert_allclose(run(typed, x=images()), run(model, x=images()), atol=2e-2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_statistics_neither_underflow_nor_overflow(scale: float) -> None:
    # Squares of 300 pass 65504, and 1e-8 is nothing in float16: both would show here.
    text = NORMALIZED.replace("BatchNormalization (c, gamma, beta, mean, variance)", "Identity (c)")
    model = parse(text)
    expected = run(model, x=images(scale))
    found = ReferenceEvaluator(to_fp16(model)).run(None, {"x": images(scale)})[0]
    assert np.isfinite(found).all()
    # After the normalisation everything is of order 1 again, so one bound serves all scales.
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_typing_twice_gives_the_same_bytes() -> None:
    model = parse(NORMALIZED)
    first, second = to_fp16(model), to_fp16(model)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_typing_does_not_change_its_argument() -> None:
    model = parse(NORMALIZED)
    before = model.SerializeToString(deterministic=True)
    to_fp16(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_network_inside_a_branch_is_typed_too() -> None:
    model = parse(GUARDED)
    typed = to_fp16(model)
    (branch,) = [node for node in typed.graph.node if node.op_type == "If"]
    body = next(a.g for a in branch.attribute if a.name == "then_branch")
    assert [node.op_type for node in body.node] == ["Cast", "MatMul", "Cast", "Identity"]
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    for score in (0.0, 1.0):
        feeds = {"x": x, "score": np.full(3, score, np.float32)}
        # One product of four terms of about 2: 11 bits leave 4e-3.
        np.testing.assert_allclose(run(typed, **feeds), run(model, **feeds), atol=1e-2)


def test_geometry_outside_the_network_is_not_touched() -> None:
    typed = to_fp16(parse(GUARDED))
    assert types(typed)["scaled"] == TensorProto.FLOAT


def test_a_bare_network_is_typed_with_an_empty_prefix() -> None:
    model = parse(NORMALIZED.replace("network/", ""))
    typed = to_fp16(model, prefix="")
    assert node_inputs(typed, "conv_1")[0] == TensorProto.FLOAT16
    assert types(typed)["out"] == TensorProto.FLOAT


def test_shape_arithmetic_in_floats_keeps_its_precision() -> None:
    # 2049 is not a float16 number: a size computed in it would be 2048.
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    sized (float[N, W] x) => (float[N, V] out)
    <int64 one = {1}, float half = {0.5}, float[2] w, int64[1] row = {-1}>
    {
      ["network/shape"] width = Shape <start = 1> (x)
      ["network/float"] wide = Cast <to = 1> (width)
      ["network/half"] narrow = Mul (wide, half)
      ["network/floor"] floored = Floor (narrow)
      ["network/int"] size = Cast <to = 7> (floored)
      ["network/rows"] n = Shape <start = 0, end = 1> (x)
      ["network/target"] target = Concat <axis = 0> (n, size)
      ["network/zeros"] zeros = ConstantOfShape (target)
      ["network/out"] out = Identity (zeros)
    }
    """
    model = parse(text)
    x = np.zeros((1, 4099), np.float32)
    assert run(to_fp16(model), x=x).shape == run(model, x=x).shape == (1, 2049)


def test_a_comparison_sees_float32_on_both_sides() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    compared (float[N, 4] x) => (bool[N, 4] out)
    {
      ["network/relu"] r = Relu (x)
      ["network/equal"] out = Equal (r, x)
    }
    """
    typed = to_fp16(parse(text))
    assert node_inputs(typed, "network/equal") == [TensorProto.FLOAT, TensorProto.FLOAT]


def test_a_network_that_is_float16_already_is_left_alone() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    narrow (float[N, 4] x) => (float[N, 4] out)
    <float16[4] w = {1, 2, 3, 4}>
    {
      ["network/in"] h = Cast <to = 10> (x)
      ["network/product"] p = Mul (h, w)
      ["network/out"] out = Cast <to = 1> (p)
    }
    """
    model = parse(text)
    assert [n.op_type for n in to_fp16(model).graph.node] == ["Cast", "Mul", "Cast"]


def test_a_weight_beyond_float16_is_refused_by_name() -> None:
    model = parse(NORMALIZED)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w2"]
    weight.CopyFrom(numpy_helper.from_array(np.full((3, 4, 3, 3), 1e6, np.float32), "w2"))
    with pytest.raises(PrecisionError, match=r"the weight w2 reaches 1e\+06, but float16 ends"):
        to_fp16(model)


def test_a_graph_without_a_network_is_refused() -> None:
    with pytest.raises(PrecisionError, match="no node named network/"):
        to_fp16(parse(NORMALIZED.replace("network/", "postprocess/")))


def test_an_output_that_the_network_itself_reads_keeps_its_name_and_type() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    chained (float[N, 4] x) => (float[N, 4] first, float[N, 4] second)
    <float[4, 4] w>
    {
      ["network/one"] first = MatMul (x, w)
      ["network/two"] second = Relu (first)
    }
    """
    model = parse(text)
    typed = to_fp16(model)
    assert [output.name for output in typed.graph.output] == ["first", "second"]
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(run(typed, x=x), run(model, x=x), atol=1e-2)  # 11 bits of about 4


OPERATORS: list[tuple[str, Callable[[], onnx.NodeProto]]] = [
    ("Softmax", lambda: helper.make_node("Softmax", ["h"], ["y"], name="network/op", axis=-1)),
    ("Sqrt", lambda: helper.make_node("Sqrt", ["h"], ["y"], name="network/op")),
    ("Exp", lambda: helper.make_node("Exp", ["h"], ["y"], name="network/op")),
]


@pytest.mark.parametrize(("operator", "make"), OPERATORS)
def test_a_delicate_operator_computes_in_float32(
    operator: str, make: Callable[[], onnx.NodeProto]
) -> None:
    relu = helper.make_node("Relu", ["x"], ["h"], name="network/relu")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([relu, make()], operator, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    typed = to_fp16(model)
    assert node_inputs(typed, "network/op") == [TensorProto.FLOAT]
    assert node_inputs(typed, "network/relu") == [TensorProto.FLOAT16]
