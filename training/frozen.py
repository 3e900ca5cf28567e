"""Frozen ONNX networks as PyTorch modules, so that gradients pass through them to their input.

Only the operators of the two judges are known: OpenCV Zoo's SFace (also its block-quantised file,
whose weights are unpacked once) and MediaPipe's Face Landmarker v2, converted to ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]
Value = Tensor | list[int]


class Node(NamedTuple):
    """One operator: its inputs and its one output by name."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes


class FrozenNetwork(nn.Module):
    """An ONNX file's graph, evaluated operator by operator; weights are buffers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(str(path)).graph
        constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.nodes = _fold(graph.node, constants)
        used = {name for node in self.nodes for name in node.inputs}
        self.input_name = next(v.name for v in graph.input if v.name in used - constants.keys())
        self.output_names = tuple(value.name for value in graph.output)
        self._integers: dict[str, list[int]] = {}
        self._buffer_names: dict[str, str] = {}
        for name in sorted(used & constants.keys()):
            self._keep(name, constants[name])
        self._last_use = {
            name: index for index, node in enumerate(self.nodes) for name in node.inputs
        }

    def _keep(self, name: str, value: Array) -> None:
        if value.dtype.kind == "i":
            self._integers[name] = [int(entry) for entry in value.reshape(-1)]
            return
        buffer = f"constant_{len(self._buffer_names)}"
        self._buffer_names[name] = buffer
        weights = torch.from_numpy(np.array(value, np.float32))
        self.register_buffer(buffer, weights, persistent=False)

    def forward(
        self, x: Tensor, features: Sequence[str] = ()
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The graph's outputs by name, and the named tensors on the way."""
        live: dict[str, Tensor] = {self.input_name: x}
        kept: dict[str, Tensor] = {}

        def value(name: str) -> Value:
            if name in live:
                return live[name]
            if name in self._buffer_names:
                return getattr(self, self._buffer_names[name])
            return self._integers[name]

        for index, node in enumerate(self.nodes):
            inputs = [value(name) for name in node.inputs if name]
            live[node.output] = OPERATORS[node.operator](inputs, node.attributes)
            if node.output in features:
                kept[node.output] = live[node.output]
            for name in node.inputs:
                if self._last_use[name] == index and name not in self.output_names:
                    live.pop(name, None)
        return {name: live[name] for name in self.output_names}, [kept[name] for name in features]


def _fold(nodes: Sequence[onnx.NodeProto], constants: dict[str, Array]) -> list[Node]:
    """The nodes that have work to do; what follows from constants alone goes into `constants`."""
    kept: list[Node] = []
    renamed: dict[str, str] = {}
    for proto in nodes:
        inputs = tuple(renamed.get(name, name) for name in proto.input)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        output = proto.output[0]
        if proto.op_type == "Constant":
            constants[output] = numpy_helper.to_array(attributes["value"])
        elif proto.op_type == "DequantizeLinear":
            constants[output] = _unpack([constants[name] for name in inputs], attributes)
        elif proto.op_type == "Reshape" and inputs[0] in constants:
            constants[output] = constants[inputs[0]].reshape(constants[inputs[1]])
        elif proto.op_type == "Dropout":
            renamed[output] = inputs[0]
        elif proto.op_type == "BatchNormalization":
            scale, shift = _batch_normalisation([constants[n] for n in inputs[1:5]], attributes)
            constants[f"{output}/scale"], constants[f"{output}/shift"] = scale, shift
            names = (inputs[0], f"{output}/scale", f"{output}/shift")
            kept.append(Node("ScaleShift", names, output, {}))
        elif proto.op_type in OPERATORS:
            kept.append(Node(proto.op_type, inputs, output, attributes))
        else:
            raise ValueError(f"{proto.name}: operator {proto.op_type} is not known here")
    return kept


def _unpack(inputs: Sequence[Array], attributes: Attributes) -> Array:
    """ONNX DequantizeLinear, blocked or with one scale: (x - zero point) * scale."""
    values, scale, zero = inputs
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)

    def spread(numbers: Array) -> Array:
        if numbers.size == 1:
            return numbers.reshape(()).astype(np.float32)
        if block == 0:
            shape = [1] * values.ndim
            shape[axis] = -1
            return numbers.reshape(shape).astype(np.float32)
        repeated = np.repeat(numbers.astype(np.float32), block, axis=axis)
        return repeated.take(range(values.shape[axis]), axis=axis)

    return (values.astype(np.float32) - spread(zero)) * spread(scale)


def _batch_normalisation(inputs: Sequence[Array], attributes: Attributes) -> tuple[Array, Array]:
    scale, bias, mean, variance = (value.astype(np.float64) for value in inputs)
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _conv(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, *bias = inputs
    strides = attributes.get("strides", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if attributes.get("auto_pad") == b"SAME_UPPER":
        need = [
            max((-(-x.shape[2 + d] // strides[d]) - 1) * strides[d]
                + weight.shape[2 + d] - x.shape[2 + d], 0)
            for d in (0, 1)
        ]  # fmt: skip
        top, left = need[0] // 2, need[1] // 2
        bottom, right = need[0] - top, need[1] - left
    if (top, left) == (bottom, right):
        padding = (top, left)
    else:
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    return F.conv2d(
        x, weight, bias[0] if bias else None, strides, padding,
        attributes.get("dilations", [1, 1]), attributes.get("group", 1),
    )  # fmt: skip


def _scale_shift(inputs: Sequence[Any], _: Attributes) -> Tensor:
    x, scale, shift = inputs
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)


def _max_pool(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x = inputs[0]
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if top or left or bottom or right:
        x = F.pad(x, (left, right, top, bottom), value=-1e30)
    return F.max_pool2d(x, attributes["kernel_shape"], attributes["strides"])


def _pad(inputs: Sequence[Any], _: Attributes) -> Tensor:
    x, pads = inputs[0], inputs[1]
    order = [pads[d + side * x.dim()] for d in reversed(range(x.dim())) for side in (0, 1)]
    return F.pad(x, order)


def _reshape(inputs: Sequence[Any], _: Attributes) -> Tensor:
    x, shape = inputs
    shape = [x.shape[d] if size == 0 else size for d, size in enumerate(shape)]
    # A batch fixed at 1 by the exporter is kept free.
    return x.reshape(x.shape[0], *shape[1:]) if shape[0] == 1 else x.reshape(shape)


def _gemm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias = inputs
    return F.linear(x.float(), weight if attributes.get("transB") else weight.t(), bias)


OPERATORS: Final[Mapping[str, Callable[[Sequence[Any], Attributes], Tensor]]] = {
    "Conv": _conv,
    "ScaleShift": _scale_shift,
    "PRelu": lambda i, _: F.prelu(i[0], i[1].reshape(-1).to(i[0].dtype)),
    "Add": lambda i, _: i[0] + i[1],
    "Sub": lambda i, _: i[0] - i[1],
    "Mul": lambda i, _: i[0] * i[1],
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Reshape": _reshape,
    "Transpose": lambda i, a: i[0].permute(*a["perm"]),
    "Sigmoid": lambda i, _: torch.sigmoid(i[0]),
    "Flatten": lambda i, _: i[0].flatten(1),
    "Gemm": _gemm,
}
