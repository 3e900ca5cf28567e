"""Which shapes a plan takes, from the graph's own axis letters, and how much GPU memory that is.

Axis letters are the contract's (graphs/contract.py): B batch, K faces, F views, H and W frame.
Every combination of axes up to the maximum is valid at the same time, because Triton knows no other
limit than `max_batch_size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from engines.errors import MemoryLimitExceeded, ProfileError
from engines.manifest import PlannedMemory
from engines.shapes import GraphShapes, Shape

_MIB = 2**20


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


def planned_memory(
    shapes: GraphShapes, activation_bytes: int | None, weight_bytes: int | None
) -> PlannedMemory:
    """What the compiler said, completed by shape arithmetic.

    Args:
        shapes: the typed graph's tensors at the profile's maximum.
        activation_bytes, weight_bytes: the compiler's figures; None where it gave none.
    """
    return PlannedMemory(
        activation_bytes=shapes.peak_bytes if activation_bytes is None else activation_bytes,
        io_bytes=shapes.io_bytes,
        weight_bytes=shapes.weight_bytes if weight_bytes is None else weight_bytes,
    )


def check_memory(
    planned: Mapping[str, PlannedMemory],
    limit_bytes: int | None,
    contexts: Mapping[str, int] | None = None,
) -> int:
    """The bytes of all plans together.

    Args:
        contexts: execution contexts (instances) of each model; 1 where it says nothing.

    Raises:
        MemoryLimitExceeded: they need more than `limit_bytes`.
    """
    counts = contexts or {}
    needs = {name: plan.total_bytes(counts.get(name, 1)) for name, plan in planned.items()}
    total = sum(needs.values())
    if limit_bytes is not None and total > limit_bytes:
        largest = max(needs, key=lambda name: needs[name])
        raise MemoryLimitExceeded(
            f"the plans need {total // _MIB} MiB of GPU memory, {limit_bytes // _MIB} MiB are "
            f"allowed (--gpu-memory); the largest is {largest} with {needs[largest] // _MIB} MiB: "
            f"lower the largest batch, number of faces or frame size"
        )
    return total
