"""The three operators of MediaPipe's own that its face mesh with attention holds.

From the mesh a small affine matrix is made for each of lips and eyes; a crop of an early feature
map is taken with it, a head finds landmarks in the crop, and the matrix takes those back to the
image. Version 2 of each, in elementwise float32: no matrix product, which a GPU may run with a
10-bit mantissa.

Source of the meanings: google-ai-edge/mediapipe (Apache-2.0), mediapipe/util/tflite/operations:
landmarks_to_transform_matrix.cc, transform_tensor_bilinear.cc, transform_landmarks.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from flatbuffers import flexbuffers

from networks.tflite_reader.model import Operation, TfliteError
from networks.tflite_reader.reader import Reader, Rule

_VERSION: Final = 2
_ROUNDING: Final = 1e-6
"""Of a position on the map's edge, in halves of the map."""


def _options(operation: Operation) -> dict[str, Any]:
    """What the file says beside the operator. Raises TfliteError."""
    if operation.version != _VERSION:
        raise TfliteError(
            f"{operation.name} is of version {operation.version}, but this reader knows "
            f"version {_VERSION}"
        )
    if not operation.custom_options:
        return {}
    try:
        found = flexbuffers.Loads(operation.custom_options)
    except (ValueError, IndexError) as error:
        raise TfliteError(f"the options of {operation.name} cannot be read: {error}") from error
    return dict(found)


def _landmarks_to_matrix(reader: Reader, operation: Operation) -> None:
    """Crop to image, for a crop around some landmarks: [B, 4, 4].

    The crop's x axis goes from one landmark to another; the crop is `scale` times the extent of a
    subset of the landmarks along its axes, and `output_width` x `output_height` pixels large.
    Rows 2 and 3 are rows 0 and 1 once more: nothing reads them.
    """
    options = _options(operation)
    if options.get("target_rotation_radians", 0.0) != 0.0:
        raise TfliteError(f"{operation.name} with a target rotation is not known to this reader")
    node = reader.node
    places = node("Slice", reader.value(operation.inputs[0]), *_span(reader, 0, 2, axis=2))
    # [B, 2, 2]: the crop's axes in the image, unit length, along its width and along its height
    axes = _crop_axes(reader, places, (options["left_rotation_idx"], options["right_rotation_idx"]))
    subset = node("Gather", places, _numbers(reader, *options["subset_idxs"]), axis=1)
    # [B, n, 2]: where each landmark lies along them
    along = _sum(
        reader,
        node("Mul", node("Unsqueeze", subset, _numbers(reader, 2)),
             node("Unsqueeze", axes, _numbers(reader, 1))),
        3,
    )  # fmt: skip
    both_ends = node("Concat", along, node("Neg", along), axis=2)
    both_ends = node("ReduceMax", both_ends, _numbers(reader, 1), keepdims=0)
    shape = _numbers(reader, -1, 2, 1)
    high, low = (node("Reshape", end, shape) for end in reader.split(both_ends, 2, 1))
    middle = node("Mul", node("Sub", high, low), _floats(reader, 0.5))
    size = [options["output_width"], options["output_height"]]
    factors = np.array([options["scale_x"], options["scale_y"]]) / size
    extent = node("Mul", node("Add", high, low), _floats(reader, *factors, shape=(1, 2, 1)))
    steps = node("Mul", axes, extent)
    # From the box's middle half a crop back along both axes.
    halves = node("Mul", steps, _floats(reader, *(0.5 * np.array(size)), shape=(1, 2, 1)))
    corner = _sum(reader, node("Sub", node("Mul", axes, middle), halves), 1, keep=True)
    depth = node("Mul", corner, _floats(reader, 0.0))
    rows = node("Transpose", node("Concat", steps, depth, corner, axis=1), perm=[0, 2, 1])
    reader.set_value(operation.outputs[0], node("Concat", rows, rows, axis=1))


def _columns(
    reader: Reader, matrix: str, shape: tuple[int, ...], *, factors: str = "", shifts: str = ""
) -> tuple[str, str, str]:
    """What a step along x, and one along y, moves in the image, and where the crop's corner lies.

    Args:
        matrix: [B, 4, 4]. shape: of each column, of two numbers. factors, shifts: by which its
            first two rows are multiplied, and what is added then, where they are given.
    """
    rows = reader.node("Slice", matrix, *_span(reader, 0, 2, axis=1))
    if factors:
        rows = reader.node("Add", reader.node("Mul", rows, factors), shifts)
    across, down, _, corner = (
        reader.node("Reshape", column, _numbers(reader, -1, *shape))
        for column in reader.split(rows, 4, 2)
    )
    return across, down, corner


def _floats(reader: Reader, *values: float, shape: tuple[int, ...] = ()) -> str:
    return reader.initializer(np.array(values, np.float32).reshape(shape))


def _numbers(reader: Reader, *values: int) -> str:
    return reader.initializer(np.array(values, np.int64))


def _span(reader: Reader, start: int, stop: int, *, axis: int) -> tuple[str, str, str]:
    """Slice's other inputs."""
    first, last, along = (_numbers(reader, value) for value in (start, stop, axis))
    return first, last, along


def _sum(reader: Reader, values: str, axis: int, *, keep: bool = False) -> str:
    return reader.node("ReduceSum", values, _numbers(reader, axis), keepdims=int(keep))


def _crop_axes(reader: Reader, places: str, ends: tuple[int, int]) -> str:
    """Unit vectors [B, 2, 2]: from landmark ends[0] to landmark ends[1], and a right angle on."""
    node = reader.node
    first, last = (node("Gather", places, _numbers(reader, end), axis=1) for end in ends)
    line = node("Sub", last, first)
    squares = node("ReduceSum", node("Mul", line, line), _numbers(reader, 2), keepdims=1)
    # Two landmarks that are one point would divide by zero.
    unit = node("Div", line, node("Sqrt", node("Max", squares, _floats(reader, 1e-12))))
    swapped = node("Gather", unit, _numbers(reader, 1, 0), axis=2)
    onward = node("Mul", swapped, _floats(reader, -1.0, 1.0, shape=(1, 1, 2)))
    return node("Concat", unit, onward, axis=1)


def _transform_tensor(reader: Reader, operation: Operation) -> None:
    """A crop of a feature map [B, C, H, W], bilinear; 0 where it leaves the map.

    Crop pixel p is read at M (p + 0.5) - 0.5: the matrix is between pixels' corners.
    """
    options = _options(operation)
    width, height = options["output_width"], options["output_height"]
    _, map_height, map_width, _ = reader.model.shape(operation.inputs[0])
    node = reader.node
    # GridSample's -1 and 1 are the centres of the outermost pixels; x and y are its last axis.
    units = 2.0 / (np.array([map_width, map_height], np.float32) - 1.0)
    shifts = np.zeros((1, 2, 4), np.float32)
    shifts[0, :, 3] = -0.5 * units - 1.0
    factors, shift = (
        reader.initializer(values) for values in (units.reshape(1, 2, 1), shifts)
    )  # fmt: skip
    a, b, corner = _columns(
        reader, reader.value(operation.inputs[1]), (1, 1, 2), factors=factors, shifts=shift
    )
    x = _floats(reader, *(np.arange(width) + 0.5), shape=(1, 1, width, 1))
    y = _floats(reader, *(np.arange(height) + 0.5), shape=(1, height, 1, 1))
    grid = node("Add", node("Mul", a, x), node("Add", node("Mul", b, y), corner))
    sampled = node(
        "GridSample",
        reader.value(operation.inputs[0]),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=1,
    )
    inside = node("LessOrEqual", node("Abs", grid), _floats(reader, 1.0 + _ROUNDING))
    within = node("And", *reader.split(inside, 2, 3))
    # [B, h, w, 1] as [B, 1, h, w]
    within = node("Reshape", within, _numbers(reader, -1, 1, height, width))
    reader.set_value(operation.outputs[0], node("Where", within, sampled, _floats(reader, 0.0)))


def _transform_landmarks(reader: Reader, operation: Operation) -> None:
    """Landmarks [B, n, 2] through the columns of a matrix."""
    _options(operation)
    if reader.model.shape(operation.inputs[0])[2] != 2:
        raise TfliteError(f"{operation.name} of landmarks in space is not known to this reader")
    x, y = reader.split(reader.value(operation.inputs[0]), 2, 2)
    a, b, corner = _columns(reader, reader.value(operation.inputs[1]), (1, 2))
    node = reader.node
    moved = node("Add", node("Mul", x, a), node("Add", node("Mul", y, b), corner))
    reader.set_value(operation.outputs[0], moved)


MEDIAPIPE_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "Landmarks2TransformMatrix": _landmarks_to_matrix,
        "TransformTensorBilinear": _transform_tensor,
        "TransformLandmarks": _transform_landmarks,
    }
)
"""What each operator becomes, by the name in the file."""
