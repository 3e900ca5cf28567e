"""Which shapes a plan takes: min, opt and max of every input, from the graph's own axis letters.

Axis letters are the contract's (graphs/contract.py): B batch, K faces, F views, H and W frame.
Every combination of axes up to the maximum is valid at the same time, because Triton knows no other
limit than `max_batch_size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from engines.errors import ProfileError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input, batch axis first: every axis in [min, max], tuned for opt."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ProfileError(f"min, opt and max differ in rank: {self}")
        for low, best, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= best <= high:
                raise ProfileError(f"min <= opt <= max does not hold on every axis: {self}")


Profile = Mapping[str, ShapeRange]
"""Input name to its shapes."""


@dataclass(frozen=True)
class AxisRange:
    """The sizes of one axis."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class ProfileLimits:
    """The axes that a request decides. Sizes in pixels; H and W even, for I420's sake."""

    batch: AxisRange = AxisRange(1, 8, 8)
    faces: AxisRange = AxisRange(1, 1, 4)
    views: AxisRange = AxisRange(1, 4, 4)
    height: AxisRange = AxisRange(64, 1080, 1080)
    width: AxisRange = AxisRange(64, 1920, 1920)

    def axis(self, letter: str) -> AxisRange | None:
        """Sizes of the axis that the contract calls `letter`; None for one it does not bound."""
        rows = AxisRange(*(size * 3 // 2 for size in _sizes(self.height)))
        return {
            "B": self.batch,
            "K": self.faces,
            "F": self.views,
            "H": self.height,
            "W": self.width,
            "H*3/2": rows,
        }.get(letter)


def make_profile(model: onnx.ModelProto, limits: ProfileLimits) -> dict[str, ShapeRange]:
    """The profile of every input of `model`, by the names of its free axes.

    Raises:
        ProfileError: a free axis has no name, or one that the limits do not bound.
    """
    return {value.name: _input_range(value, limits) for value in model.graph.input}


def _input_range(value: onnx.ValueInfoProto, limits: ProfileLimits) -> ShapeRange:
    axes = []
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            axes.append(AxisRange(dim.dim_value, dim.dim_value, dim.dim_value))
            continue
        sizes = limits.axis(dim.dim_param)
        if sizes is None:
            raise ProfileError(
                f"input {value.name!r} has the free axis {dim.dim_param!r}, which is none of "
                f"B, K, F, H, W, H*3/2: fix its size when the graph is built"
            )
        axes.append(sizes)
    columns = zip(*(_sizes(axis) for axis in axes), strict=True)
    return ShapeRange(*columns)


def _sizes(axis: AxisRange) -> tuple[int, int, int]:
    return axis.min, axis.opt, axis.max
