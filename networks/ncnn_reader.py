"""ONNX networks from ncnn's files, as Real-ESRGAN is published in them.

A .param is text: a line a layer with its kind, its name, what it reads and makes, and numbered
parameters. A .bin is the weights of the layers in that order. The network made of the two is in
float32 with a free batch. Only what the files that this project knows hold is read: a layer, an
activation or a form beyond that is refused with one sentence that names it.

Source: ncnn 20240410, docs/developer-guide/param-and-model-file-structure.md and
operation-param-weight-table.md; src/layer for what each layer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from networks.opset import as_network

Array = npt.NDArray[Any]

_MAGIC: Final = "7767517"
_HALF_FLAG: Final = 0x01306B47
"""In front of weights that are float16; 0 stands in front of float32."""

_ADD, _SUM, _NEAREST, _RELU, _LEAKY = 0, 1, 1, 1, 2
"""Codes of BinaryOp, Eltwise, Interp and of a convolution's activation."""


class NcnnError(ValueError):
    """A file that this reader cannot make a network of; one sentence."""


@dataclass(frozen=True)
class Layer:
    """One line of a .param. parameters: number to its value; a list where the number is coded."""

    kind: str
    name: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    parameters: Mapping[int, float | tuple[float, ...]]

    def integer(self, number: int, default: int = 0) -> int:
        """A parameter that is a whole number."""
        value = self.parameters.get(number, default)
        if isinstance(value, tuple) or value != int(value):
            raise NcnnError(f"parameter {number} of {self.name} is {value}, not a whole number")
        return int(value)

    def numbers(self, number: int) -> tuple[float, ...]:
        """A parameter that is a list."""
        value = self.parameters.get(number, ())
        return value if isinstance(value, tuple) else (value,)


def read_layers(text: str) -> list[Layer]:
    """The layers of a .param.

    Raises:
        NcnnError: it is none.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != [_MAGIC]:
        raise NcnnError(f"a .param of ncnn begins with {_MAGIC}")
    layers = []
    for words in lines[2:]:
        reads, makes = int(words[2]), int(words[3])
        names = words[4 : 4 + reads + makes]
        parameters: dict[int, float | tuple[float, ...]] = {}
        for entry in words[4 + reads + makes :]:
            key, _, value = entry.partition("=")
            number = int(key)
            # -23300 - n: a list, its length in front
            if number <= -23300:
                parameters[-23300 - number] = tuple(float(part) for part in value.split(",")[1:])
            else:
                parameters[number] = float(value)
        layers.append(
            Layer(words[0], words[1], tuple(names[:reads]), tuple(names[reads:]), parameters)
        )
    if len(layers) != int(lines[1][0]):
        raise NcnnError(f"the .param says {lines[1][0]} layers and holds {len(layers)}")
    return layers


class _Weights:
    """The bytes of a .bin, taken from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def raw(self, count: int, dtype: npt.DTypeLike = "<f4") -> Array:
        """The next `count` numbers; float16 ones fill up to whole words."""
        kind = np.dtype(dtype)
        size = count * kind.itemsize
        if self._place + size > len(self._content):
            raise NcnnError("the .bin ends before the weights of the .param do")
        found = np.frombuffer(self._content, kind, count, self._place)
        self._place += -(-size // 4) * 4
        return found.astype(np.float32)

    def flagged(self, count: int) -> Array:
        """The next `count` numbers of whichever type the flag in front of them says."""
        (flag,) = np.frombuffer(self._content, "<u4", 1, self._place)
        self._place += 4
        if flag not in (0, _HALF_FLAG):
            raise NcnnError(f"the .bin holds weights of the kind {flag:#x}, which is not known")
        return self.raw(count, "<f2" if flag else "<f4")

    def check_end(self) -> None:
        if self._place != len(self._content):
            left = len(self._content) - self._place
            raise NcnnError(f"the .bin holds {left} bytes more than the layers of the .param take")


class _Writer:
    """Nodes and initializers under construction."""

    def __init__(self, weights: _Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op_type: str, reads: list[str], makes: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, reads, [makes], name=makes, **attributes))

    def constant(self, name: str, array: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _convolution(writer: _Writer, layer: Layer) -> None:
    made, kernel = layer.integer(0), layer.integer(1)
    count = layer.integer(6)
    channels = count // (made * kernel * kernel)
    weight = writer.weights.flagged(count).reshape(made, channels, kernel, kernel)
    inputs = [layer.reads[0], writer.constant(f"{layer.name}/weight", weight)]
    if layer.integer(5):
        inputs.append(writer.constant(f"{layer.name}/bias", writer.weights.raw(made)))
    known = {0, 1, 4, 5, 6, 9, 10}
    odd = set(layer.parameters) - known - {2, 3}
    if odd or layer.integer(2, 1) != 1 or layer.integer(3, 1) != 1:
        raise NcnnError(f"the convolution {layer.name} has a form that is not known: {layer}")
    activation = layer.integer(9)
    raw = layer.makes[0] if not activation else f"{layer.name}/linear"
    writer.node(
        "Conv", inputs, raw, kernel_shape=[kernel] * 2, pads=[layer.integer(4)] * 4
    )
    if activation == _RELU:
        writer.node("Relu", [raw], layer.makes[0])
    elif activation == _LEAKY:
        writer.node("LeakyRelu", [raw], layer.makes[0], alpha=layer.numbers(10)[0])
    elif activation:
        raise NcnnError(f"{layer.name} has the activation {activation}, which is not known")


def _prelu(writer: _Writer, layer: Layer) -> None:
    slope = writer.weights.raw(layer.integer(0)).reshape(-1, 1, 1)
    name = writer.constant(f"{layer.name}/slope", slope)
    writer.node("PRelu", [layer.reads[0], name], layer.makes[0])


def _binary(writer: _Writer, layer: Layer) -> None:
    if layer.integer(0) != _ADD or len(layer.reads) != 2:
        raise NcnnError(f"{layer.name} is a BinaryOp other than a sum of two")
    writer.node("Add", list(layer.reads), layer.makes[0])


def _eltwise(writer: _Writer, layer: Layer) -> None:
    if layer.integer(0) != _SUM:
        raise NcnnError(f"{layer.name} is an Eltwise other than a sum")
    terms = []
    shares = layer.numbers(1) or (1.0,) * len(layer.reads)
    for position, (read, share) in enumerate(zip(layer.reads, shares, strict=True)):
        if share == 1.0:
            terms.append(read)
            continue
        terms.append(f"{layer.name}/term_{position}")
        factor = writer.constant(f"{layer.name}/share_{position}", np.array(share, np.float32))
        writer.node("Mul", [read, factor], terms[-1])
    writer.node("Sum", terms, layer.makes[0])


def _interp(writer: _Writer, layer: Layer) -> None:
    high, wide = (float(layer.numbers(number)[0]) for number in (1, 2))
    if layer.integer(0) != _NEAREST or high != int(high) or wide != int(wide):
        raise NcnnError(f"{layer.name} is an Interp other than nearest by whole numbers")
    scales = writer.constant(f"{layer.name}/scales", np.array([1, 1, high, wide], np.float32))
    writer.node(
        "Resize", [layer.reads[0], "", scales], layer.makes[0], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


def _pixel_shuffle(writer: _Writer, layer: Layer) -> None:
    if layer.integer(1):
        raise NcnnError(f"{layer.name} is a PixelShuffle of another order than PyTorch's")
    writer.node(
        "DepthToSpace", [layer.reads[0]], layer.makes[0], blocksize=layer.integer(0), mode="CRD"
    )


def _concat(writer: _Writer, layer: Layer) -> None:
    if layer.integer(0):
        raise NcnnError(f"{layer.name} joins along another axis than the channels")
    writer.node("Concat", list(layer.reads), layer.makes[0], axis=1)


def _split(writer: _Writer, layer: Layer) -> None:
    for made in layer.makes:
        writer.node("Identity", [layer.reads[0]], made)


_RULES: Final[Mapping[str, Callable[[_Writer, Layer], None]]] = MappingProxyType(
    {
        "BinaryOp": _binary,
        "Concat": _concat,
        "Convolution": _convolution,
        "Eltwise": _eltwise,
        "Interp": _interp,
        "PReLU": _prelu,
        "PixelShuffle": _pixel_shuffle,
        "Split": _split,
    }
)


def read_ncnn(layers: str, weights: bytes) -> onnx.ModelProto:
    """The network of a .param's text and a .bin's bytes, in this project's opset.

    Returns:
        A model with the files' one input [B, 3, H, W] and one output [B, C, h, w] by name, all
        float32. Two calls give the same bytes.

    Raises:
        NcnnError: damaged, or a layer (or a form of one) that this reader does not know.
    """
    writer = _Writer(_Weights(weights))
    inputs: list[str] = []
    made: list[str] = []
    read: set[str] = set()
    for layer in read_layers(layers):
        read.update(layer.reads)
        made += layer.makes
        if layer.kind == "Input":
            inputs += layer.makes
            continue
        if layer.kind not in _RULES:
            raise NcnnError(f"the .param holds the layer {layer.kind}, which is not known")
        _RULES[layer.kind](writer, layer)
    writer.weights.check_end()
    outputs = [name for name in made if name not in read]
    if len(inputs) != 1 or len(outputs) != 1:
        raise NcnnError(f"one picture in and one out are expected, not {inputs} and {outputs}")
    graph = helper.make_graph(
        writer.nodes,
        "ncnn",
        [helper.make_tensor_value_info(inputs[0], onnx.TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [helper.make_tensor_value_info(outputs[0], onnx.TensorProto.FLOAT, ["B", "C", "h", "w"])],
        writer.initializers,
    )
    return as_network(graph)
