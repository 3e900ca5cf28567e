"""Small .tflite files made in the tests, and what their operators mean, in NumPy.

The oracle is written from the operators' descriptions (TensorFlow Lite's, and MediaPipe's C++ for
its own three), channels last and a batch of one, as in the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite
from flatbuffers import flexbuffers

Array = npt.NDArray[Any]

_TYPES = {
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.int32): tflite.TensorType.INT32,
    np.dtype(np.uint8): tflite.TensorType.UINT8,
}
_OPTION_TABLES = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
}


@dataclass
class TfliteFile:
    """A file under construction. Tensors are numbered; 0 is the image."""

    tensors: list[tuple[str, tuple[int, ...], Array | None]] = field(default_factory=list)
    operators: list[tuple[str, int, list[int], list[int], dict[str, Any]]] = field(
        default_factory=list
    )
    outputs: list[int] = field(default_factory=list)
    subgraphs: int = 1

    def tensor(self, *shape: int, name: str = "t") -> int:
        """A computed tensor; its number."""
        self.tensors.append((f"scope/{name}", shape, None))
        return len(self.tensors) - 1

    def constant(self, array: Array) -> int:
        self.tensors.append(("weights", array.shape, array))
        return len(self.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: list[int],
        shape: tuple[int, ...],
        *,
        version: int = 1,
        **options: Any,
    ) -> int:
        """An operator with one output of `shape`; a name that no builtin has is a custom one's."""
        made = self.tensor(*shape)
        self.operators.append((name, version, inputs, [made], options))
        return made

    def output(self, tensor: int, name: str) -> None:
        _, shape, _ = self.tensors[tensor]
        self.tensors[tensor] = (f"scope/{name}", shape, None)
        self.outputs.append(tensor)

    def content(self) -> bytes:
        """The finished file."""
        builder = flatbuffers.Builder(1024)
        buffers = [_table(builder, "Buffer")]
        tensors = []
        for name, shape, array in self.tensors:
            number = 0
            if array is not None:
                data = builder.CreateNumpyVector(np.frombuffer(array.tobytes(), np.uint8))
                buffers.append(_table(builder, "Buffer", Data=data))
                number = len(buffers) - 1
            dtype = np.dtype(np.float32) if array is None else array.dtype
            tensors.append(
                _table(
                    builder,
                    "Tensor",
                    Shape=builder.CreateNumpyVector(np.array(shape, np.int32)),
                    Type=_TYPES[dtype],
                    Buffer=number,
                    Name=builder.CreateString(name),
                )
            )
        codes, operators = [], []
        for name, version, inputs, outputs, options in self.operators:
            operators.append(_operator(builder, len(codes), name, inputs, outputs, options))
            codes.append(_operator_code(builder, name, version))
        subgraph = _table(
            builder,
            "SubGraph",
            Tensors=_vector(builder, tensors),
            Inputs=builder.CreateNumpyVector(np.array([0], np.int32)),
            Outputs=builder.CreateNumpyVector(np.array(self.outputs, np.int32)),
            Operators=_vector(builder, operators),
        )
        model = _table(
            builder,
            "Model",
            Version=3,
            OperatorCodes=_vector(builder, codes),
            Subgraphs=_vector(builder, [subgraph] * self.subgraphs),
            Buffers=_vector(builder, buffers),
        )
        builder.Finish(model, b"TFL3")
        return bytes(builder.Output())


def _table(builder: Any, name: str, **fields: Any) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for key, value in fields.items():
        getattr(tflite, f"{name}Add{key}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _operator(
    builder: Any,
    code: int,
    name: str,
    inputs: list[int],
    outputs: list[int],
    options: dict[str, Any],
) -> int:
    fields: dict[str, Any] = {
        "Inputs": builder.CreateNumpyVector(np.array(inputs, np.int32)),
        "Outputs": builder.CreateNumpyVector(np.array(outputs, np.int32)),
    }
    if name in _OPTION_TABLES:
        table = _OPTION_TABLES[name]
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        fields["BuiltinOptions"] = _table(builder, table, **options)
    elif not hasattr(tflite.BuiltinOperator, name) and options:
        data = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
        fields["CustomOptions"] = builder.CreateNumpyVector(data)
    return _table(builder, "Operator", OpcodeIndex=code, **fields)


def _operator_code(builder: Any, name: str, version: int) -> int:
    builtin = getattr(tflite.BuiltinOperator, name, tflite.BuiltinOperator.CUSTOM)
    fields: dict[str, Any] = {"DeprecatedBuiltinCode": min(builtin, 127), "BuiltinCode": builtin}
    if builtin == tflite.BuiltinOperator.CUSTOM:
        fields["CustomCode"] = builder.CreateString(name)
    return _table(builder, "OperatorCode", Version=version, **fields)


def _padded(x: Array, kernel: tuple[int, int], stride: int, same: bool, fill: float) -> Array:
    if not same:
        return x
    amounts = []
    for size, side in zip(x.shape[1:3], kernel, strict=True):
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        amounts.append((total // 2, total - total // 2))
    return np.pad(x, [(0, 0), *amounts, (0, 0)], constant_values=fill)


def _windows(x: Array, kernel: tuple[int, int], stride: int) -> Array:
    """[1, h, w, C, kh, kw]."""
    found: Array = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
    return found[:, ::stride, ::stride]


def convolve(x: Array, weight: Array, bias: Array, *, stride: int, same: bool) -> Array:
    """CONV_2D: x [1, H, W, I], weight [O, kh, kw, I]."""
    kernel = (weight.shape[1], weight.shape[2])
    windows = _windows(_padded(x, kernel, stride, same, 0.0), kernel, stride)
    found: Array = np.einsum("bhwikl,okli->bhwo", windows, weight) + bias
    return found


def convolve_depthwise(x: Array, weight: Array, bias: Array, *, stride: int, same: bool) -> Array:
    """DEPTHWISE_CONV_2D: x [1, H, W, C], weight [1, kh, kw, C]."""
    kernel = (weight.shape[1], weight.shape[2])
    windows = _windows(_padded(x, kernel, stride, same, 0.0), kernel, stride)
    found: Array = np.einsum("bhwckl,klc->bhwc", windows, weight[0]) + bias
    return found


def pool(x: Array, side: int, *, stride: int, same: bool) -> Array:
    """MAX_POOL_2D."""
    kernel = (side, side)
    windows = _windows(_padded(x, kernel, stride, same, -np.inf), kernel, stride)
    found: Array = windows.max(axis=(4, 5))
    return found


def landmarks_to_matrix(landmarks: Array, options: dict[str, Any]) -> Array:
    """Landmarks2TransformMatrix, version 2: landmarks (n, 3) to (4, 4)."""
    left, right = (landmarks[options[f"{side}_rotation_idx"], :2] for side in ("left", "right"))
    turn = -np.arctan2(right[1] - left[1], right[0] - left[0])

    def rotation(angle: float) -> Array:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    turned = landmarks[options["subset_idxs"], :2] @ rotation(turn).T
    low, high = turned.min(axis=0), turned.max(axis=0)
    size = np.array([options["output_width"], options["output_height"]], np.float64)
    scale = np.array([options["scale_x"], options["scale_y"]]) * (high - low) / size
    matrix = np.eye(4)
    matrix[:2, :2] = rotation(-turn) @ np.diag(scale)
    matrix[:2, 3] = rotation(-turn) @ ((low + high) / 2) - matrix[:2, :2] @ (size / 2)
    return matrix


def transform_tensor(x: Array, matrix: Array, width: int, height: int) -> Array:
    """TransformTensorBilinear, version 2: x (H, W, C) to (height, width, C)."""
    found = np.zeros((height, width, x.shape[2]))
    for row in range(height):
        for column in range(width):
            place = np.array([column + 0.5, row + 0.5, 0.0, 1.0])
            px, py = (matrix @ place)[:2] - 0.5
            if not (0 <= px <= x.shape[1] - 1 and 0 <= py <= x.shape[0] - 1):
                continue
            left, top = int(np.floor(px)), int(np.floor(py))
            beside, below = min(left + 1, x.shape[1] - 1), min(top + 1, x.shape[0] - 1)
            fx, fy = px - left, py - top
            upper = (1 - fx) * x[top, left] + fx * x[top, beside]
            lower = (1 - fx) * x[below, left] + fx * x[below, beside]
            found[row, column] = (1 - fy) * upper + fy * lower
    return found


def transform_landmarks(landmarks: Array, matrix: Array) -> Array:
    """TransformLandmarks, version 2: (n, 2) to (n, 2)."""
    return landmarks @ matrix[:2, :2].T + matrix[:2, 3]
