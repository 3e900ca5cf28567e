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
    Rows 2 and 3 are zeros: nothing reads them.
    """
    options = _options(operation)
    if options.get("target_rotation_radians", 0.0) != 0.0:
        raise TfliteError(f"{operation.name} with a target rotation is not known to this reader")
    node = reader.node
    # each [B, n, 1]
    x, y, _ = reader.split(reader.value(operation.inputs[0]), 3, 2)
    ends = options["left_rotation_idx"], options["right_rotation_idx"]
    cosine, sine = _direction(reader, x, y, ends)
    subset = reader.initializer(np.array(options["subset_idxs"], np.int64))
    x, y = (node("Gather", axis, subset, axis=1) for axis in (x, y))
    along = node("Add", node("Mul", x, cosine), node("Mul", y, sine))
    across = node("Sub", node("Mul", y, cosine), node("Mul", x, sine))
    width, height = options["output_width"], options["output_height"]
    middle_x, scale_x = _extent(reader, along, options["scale_x"] / width)
    middle_y, scale_y = _extent(reader, across, options["scale_y"] / height)

    # Shift to the box's middle @ rotation @ scale @ shift by half a crop.
    centre_x = node("Sub", node("Mul", middle_x, cosine), node("Mul", middle_y, sine))
    centre_y = node("Add", node("Mul", middle_x, sine), node("Mul", middle_y, cosine))
    rows = []
    for first, second, centre in (
        (node("Mul", cosine, scale_x), node("Neg", node("Mul", sine, scale_y)), centre_x),
        (node("Mul", sine, scale_x), node("Mul", cosine, scale_y), centre_y),
    ):
        half_x = node("Mul", first, _number(reader, width / 2))
        half_y = node("Mul", second, _number(reader, height / 2))
        shift = node("Sub", node("Sub", centre, half_x), half_y)
        depth = node("Sub", first, first)
        rows.append(node("Concat", first, second, depth, shift, axis=2))
    below = reader.initializer(np.array([0, 0, 0, 0, 2, 0], np.int64))
    reader.set_value(operation.outputs[0], node("Pad", node("Concat", *rows, axis=1), below))


def _number(reader: Reader, value: float) -> str:
    return reader.initializer(np.float32(value))


def _direction(reader: Reader, x: str, y: str, ends: tuple[int, int]) -> tuple[str, str]:
    """Cosine and sine [B, 1, 1] of the line from landmark ends[0] to landmark ends[1]."""
    node = reader.node
    first, last = (reader.initializer(np.array([end], np.int64)) for end in ends)
    dx, dy = (
        node("Sub", node("Gather", axis, last, axis=1), node("Gather", axis, first, axis=1))
        for axis in (x, y)
    )
    squares = node("Add", node("Mul", dx, dx), node("Mul", dy, dy))
    # Two landmarks that are one point would divide by zero.
    length = node("Sqrt", node("Max", squares, _number(reader, 1e-12)))
    return node("Div", dx, length), node("Div", dy, length)


def _extent(reader: Reader, values: str, factor: float) -> tuple[str, str]:
    """Middle, and `factor` times the extent, of values [B, n, 1]: [B, 1, 1] each."""
    node, axis = reader.node, reader.initializer(np.array([1], np.int64))
    low, high = (node(kind, values, axis, keepdims=1) for kind in ("ReduceMin", "ReduceMax"))
    middle = node("Mul", node("Add", low, high), _number(reader, 0.5))
    return middle, node("Mul", node("Sub", high, low), _number(reader, factor))


def _matrix_entries(reader: Reader, tensor: int) -> list[tuple[str, str, str]]:
    """(a, b, shift) of the first two rows of a matrix [B, 4, 4], each [B, 1, 1]."""
    rows = reader.split(reader.value(tensor), 4, 1)[:2]
    entries = [reader.split(row, 4, 2) for row in rows]
    return [(row[0], row[1], row[3]) for row in entries]


def _transform_tensor(reader: Reader, operation: Operation) -> None:
    """A crop of a feature map [B, C, H, W], bilinear; 0 where it leaves the map.

    Crop pixel p is read at M (p + 0.5) - 0.5: the matrix is between pixels' corners.
    """
    options = _options(operation)
    width, height = options["output_width"], options["output_height"]
    _, map_height, map_width, _ = reader.model.shape(operation.inputs[0])
    node = reader.node
    x = reader.initializer(np.arange(width, dtype=np.float32).reshape(1, 1, -1) + 0.5)
    y = reader.initializer(np.arange(height, dtype=np.float32).reshape(1, -1, 1) + 0.5)
    axes, inside = [], []
    for (a, b, shift), size in zip(
        _matrix_entries(reader, operation.inputs[1]), (map_width, map_height), strict=True
    ):
        turned = node("Add", node("Mul", x, a), node("Mul", y, b))
        position = node("Sub", node("Add", turned, shift), _number(reader, 0.5))
        inside.append(
            node(
                "And",
                node("GreaterOrEqual", position, _number(reader, 0.0)),
                node("LessOrEqual", position, _number(reader, size - 1.0)),
            )
        )
        # GridSample's -1 and 1 are the centres of the outermost pixels.
        units = node("Mul", position, _number(reader, 2.0 / (size - 1)))
        scaled = node("Sub", units, _number(reader, 1.0))
        axes.append(node("Unsqueeze", scaled, reader.initializer(np.array([3], np.int64))))
    sampled = node(
        "GridSample",
        reader.value(operation.inputs[0]),
        node("Concat", *axes, axis=3),
        mode="bilinear",
        padding_mode="border",
        align_corners=1,
    )
    within = node("Unsqueeze", node("And", *inside), reader.initializer(np.array([1], np.int64)))
    reader.set_value(operation.outputs[0], node("Where", within, sampled, _number(reader, 0.0)))


def _transform_landmarks(reader: Reader, operation: Operation) -> None:
    """Landmarks [B, n, 2] through the first two rows of a matrix."""
    _options(operation)
    if reader.model.shape(operation.inputs[0])[2] != 2:
        raise TfliteError(f"{operation.name} of landmarks in space is not known to this reader")
    x, y = reader.split(reader.value(operation.inputs[0]), 2, 2)
    node = reader.node
    moved = [
        node("Add", node("Add", node("Mul", x, a), node("Mul", y, b)), shift)
        for a, b, shift in _matrix_entries(reader, operation.inputs[1])
    ]
    reader.set_value(operation.outputs[0], node("Concat", *moved, axis=2))


MEDIAPIPE_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "Landmarks2TransformMatrix": _landmarks_to_matrix,
        "TransformTensorBilinear": _transform_tensor,
        "TransformLandmarks": _transform_landmarks,
    }
)
"""What each operator becomes, by the name in the file."""
