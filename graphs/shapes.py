"""The operator builder's type, and small things that every graph does with shapes and types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import onnx_ir as ir

from networks.opset import MICROSOFT_DOMAIN


class Op(Protocol):
    """onnxscript's operator builder: `op.Add(x, y)` appends a node and gives its output."""

    def __getattr__(self, name: str) -> Callable[..., ir.Value]: ...


def dimension(op: Op, value: ir.Value, axis: int) -> ir.Value:
    """Size of `value` along `axis` (not negative): int64 [1]."""
    return op.Shape(value, start=axis, end=axis + 1)


def to_float(op: Op, value: ir.Value) -> ir.Value:
    """`value` as float32; itself where it is known to be that already."""
    if value.dtype == ir.DataType.FLOAT:
        return value
    return op.Cast(value, to=ir.DataType.FLOAT)


def to_int64(op: Op, value: ir.Value) -> ir.Value:
    """`value` as int64 (fractions are cut off)."""
    return op.Cast(value, to=ir.DataType.INT64)


def constant(op: Op, array: Any) -> ir.Value:
    """A NumPy array as a constant of its own dtype and shape."""
    return op.Constant(value=ir.tensor(array))


def per_channel(op: Op, values: Sequence[float]) -> ir.Value:
    """Three numbers of RGB as a float32 constant [1, 3, 1, 1]."""
    return constant(op, np.array(values, np.float32).reshape(1, 3, 1, 1))


def typed_value(name: str, dtype: ir.DataType, *dims: int | str) -> ir.Value:
    """A fresh value: an input or an output of the body of a `Loop` or of a branch of an `If`."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))


def outputs(made: Any) -> list[ir.Value]:
    """What a node with any number of outputs gave, as a list."""
    return [made] if isinstance(made, ir.Value) else list(cast("list[ir.Value]", made))


def split(op: Op, value: ir.Value, parts: int, axis: int) -> list[ir.Value]:
    """`value` cut into `parts` equal parts along `axis`."""
    return outputs(op.Split(value, num_outputs=parts, axis=axis, _outputs=parts))


def used_slots(op: Op, there: ir.Value) -> ir.Value:
    """How many slots there are up to the last that is used in any row, at least one: int64 [1].

    Args:
        there: bool [B, K].
    """
    slots = op.Squeeze(dimension(op, there, 1), [0])
    numbers = op.Add(op.Range(0, slots, 1), [1])
    last = op.ReduceMax(op.Where(there, numbers, [0]), [0, 1], keepdims=0)
    return op.Max(op.Unsqueeze(last, [0]), [1])


def sample_on_gpu(op: Op, image: ir.Value, grid: ir.Value) -> ir.Value:
    """Bilinear GridSample with repeated edges, of ONNX Runtime's own domain.

    ONNX's own operator ONNX Runtime 1.31 has on a GPU for channels-last tensors alone; this one it
    has there for [N, C, H, W] (onnxruntime/contrib_ops/cuda/grid_sample.cc).

    Args:
        image: [B, C, H, W] float32.
        grid: [B, h, w, 2] float32, x y; -1 and 1 are the outer edges of the outermost pixels.
    """
    builder: Any = op
    own: Op = builder.builder.opset(MICROSOFT_DOMAIN, 1)
    found = own.GridSample(image, grid, mode="bilinear", padding_mode="border", align_corners=0)
    # shapes and types are inferred for ONNX's own operators alone
    found.dtype = ir.DataType.FLOAT
    return found
