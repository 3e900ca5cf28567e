"""The emulation of float16 on a CPU against NumPy, which rounds where it is told to."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import parser

from engines.rounding import with_explicit_rounding

# 1000 + 0.5044 is 1000.5 in float16, and 1000.5 * 0.001 - 1 cancels all that is left.
TWO_CONVOLUTIONS = """
<ir_version: 9, opset_import: ["": 18]>
cancelling (float[N, 1, 1, 1] x) => (float[N, 1, 1, 1] y)
<float16[1, 1, 1, 1] w1 = {25552}, float16[1] b1 = {25552},
 float16[1, 1, 1, 1] w2 = {5145}, float16[1] b2 = {48128}>
{
  x16 = Cast <to = 10> (x)
  a = Conv (x16, w1, b1)
  b = Conv (a, w2, b2)
  y = Cast <to = 1> (b)
}
"""

BRANCHED = """
<ir_version: 9, opset_import: ["": 18]>
branched (float[N] x, bool narrow) => (float[N] y)
<float16 big = {25552}>
{
  x16 = Cast <to = 10> (x)
  h = If (narrow) <
    then_branch = narrowed () => (float16[N] a) {
      s = Add (x16, big)
      a = Sub (s, big)
    },
    else_branch = kept () => (float16[N] b) {
      b = Identity (x16)
    }
  >
  y = Cast <to = 1> (h)
}
"""


def run(model: onnx.ModelProto, **feeds: NDArray[np.generic]) -> NDArray[np.float32]:
    output: NDArray[np.float32] = ort.InferenceSession(model.SerializeToString()).run(None, feeds)[
        0
    ]
    return output


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def two_convolutions(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float16 GPU's answer: float32 inside a convolution, float16 between two."""
    thousand, thousandth = np.float32(1000), np.float32(np.float16(0.001))
    first = rounded(rounded(x) * thousand + thousand)
    return rounded(first * thousandth - np.float32(1))


def test_a_chain_of_float16_nodes_is_rounded_at_every_step() -> None:
    model = parser.parse_model(TWO_CONVOLUTIONS)
    x = np.array([1e-4, 2e-4, 3e-4, 1.7e-3], np.float32).reshape(-1, 1, 1, 1)
    found = run(with_explicit_rounding(model), x=x)
    # A fused multiply-add may round the last float16 place the other way: 1e-6 here.
    np.testing.assert_allclose(found, two_convolutions(x), atol=1e-6)


def test_onnx_runtime_alone_would_flatter_that_chain() -> None:
    # Should this fail one day, the provider has learnt to round and the emulation can go.
    model = parser.parse_model(TWO_CONVOLUTIONS)
    x = np.array([1e-4], np.float32).reshape(-1, 1, 1, 1)
    assert abs(run(model, x=x).item() - two_convolutions(x).item()) > 5e-5


def test_branches_are_rounded_inside() -> None:
    model = with_explicit_rounding(parser.parse_model(BRANCHED))
    x = np.array([0.1, 0.3, 1.7], np.float32)
    # Near 1000 float16 counts in halves.
    np.testing.assert_array_equal(run(model, x=x, narrow=np.array(True)), [0.0, 0.5, 1.5])
    narrow = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(model, x=x, narrow=np.array(False)), narrow)


def test_a_float32_graph_keeps_its_answers() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    plain (float[N] x) => (float[N] y)
    <float third = {0.33333334}>
    { y = Mul (x, third) }
    """
    model = parser.parse_model(text)
    x = np.array([1.0, 2.0, 1e-30], np.float32)
    np.testing.assert_array_equal(run(with_explicit_rounding(model), x=x), run(model, x=x))
