"""Arithmetic that several graphs do on values, with NaN and infinity in mind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from graphs.shapes import Op, to_float

LARGEST: Final = 1e6
"""No position of a face in pixels, no entry of a warp and no colour is as large as this."""


def is_number(op: Op, values: ir.Value) -> ir.Value:
    """Where `values` are numbers below LARGEST in size: bool, not for NaN, not for infinity."""
    # comparisons with NaN are false; the bound also takes infinity out
    return op.Less(op.Abs(values), LARGEST)


def are_numbers(op: Op, values: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Whether `values` along `axes`, which stay with size 1, are numbers one and all: bool."""
    # A maximum of the sizes may drop a NaN: count what is no number instead. (ONNX Runtime's sums
    # take a GPU a tenth of the time of its minima and maxima, which cuDNN makes.)
    others = to_float(op, op.Not(is_number(op, values)))
    return op.Less(op.ReduceSum(others, list(axes), keepdims=1), 0.5)


def any_of(op: Op, values: ir.Value) -> ir.Value:
    """Whether any of [B, 1] bool is true: a scalar."""
    return op.Greater(op.ReduceMax(to_float(op, values), [0, 1], keepdims=0), 0.5)


def lerp(op: Op, first: ir.Value, second: ir.Value, weight: ir.Value) -> ir.Value:
    """first + (second - first) * weight; `first`, bit for bit, where a finite one's weight is 0."""
    return op.Add(first, op.Mul(op.Sub(second, first), weight))


def unit_length(op: Op, vectors: ir.Value) -> ir.Value:
    """Each row of `vectors` [N, D] divided by its Euclidean length; a row of zeros stays zeros."""
    squares = op.ReduceSum(op.Mul(vectors, vectors), [1], keepdims=1)
    return op.Div(vectors, op.Max(op.Sqrt(squares), 1e-12))
