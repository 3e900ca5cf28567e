"""What the parts of the network share: sizes, weights by name, matrices that blur and resize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[np.floating[Any]]
Arrays = Mapping[str, npt.NDArray[np.float32]]
"""Weights by the names of the modules in `training/networks.py`, float32."""

CROP: Final = 256
"""Side of the crops, pixels."""


class Op(Protocol):
    """onnxscript's operator builder: `op.Add(x, y)` appends a node and gives its output."""

    def __getattr__(self, name: str) -> Callable[..., ir.Value]: ...


def constant(op: Op, values: npt.ArrayLike) -> ir.Value:
    """Numbers as a float32 constant of their shape."""
    return op.Constant(value=ir.tensor(np.ascontiguousarray(values, np.float32)))


def window_means(size: int, *windows: int) -> Array:
    """(size, size): means over a window (odd) along an axis, over fewer values at the ends.

    A mean over a square window is one such matrix from the left and one from the right, also at
    the border. Several windows: one after the other.
    """
    position = np.arange(size)
    matrix = np.eye(size)
    for window in windows:
        near = np.abs(position[:, None] - position) <= window // 2
        matrix = near / near.sum(1, keepdims=True) @ matrix
    return matrix


def block_means(size: int, block: int) -> Array:
    """(size / block, size): means over neighbouring blocks along an axis."""
    return np.repeat(np.eye(size // block), block, axis=1) / block


def enlargement(size: int, larger: int) -> Array:
    """(larger, size): bilinear interpolation along an axis, pixel centres at half steps."""
    at = ((np.arange(larger) + 0.5) * size / larger - 0.5).clip(0, size - 1)
    low = np.minimum(np.floor(at).astype(int), size - 2)
    matrix = np.zeros((larger, size))
    rows = np.arange(larger)
    matrix[rows, low], matrix[rows, low + 1] = 1 - (at - low), at - low
    return matrix


def filter_axes(op: Op, images: ir.Value, matrix: Array) -> ir.Value:
    """[N, C, b, b] of [N, C, a, a]: a (b, a) matrix along both axes."""
    return op.MatMul(constant(op, matrix), op.MatMul(images, constant(op, matrix.T)))
