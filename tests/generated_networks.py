"""Tiny stand-ins for published networks, with exactly their tensor contracts.

Names, shapes, static batch 1, opset, where the emap is, how many outputs: all as published; only
the weights (seeded noise) and the depth differ. Every output value depends on every input, so a
wrong channel order, a missing projection or a swapped slot shows in exact numbers.

Contracts: FaceFusion 3.8.1 and 3.9.0 (face_swapper, face_recognizer) and insightface 2.1
(inswapper.py, arcface_onnx.py). None of these swaps a face.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from networks.frameswap_network import build_network
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS, Swapper
from tests.reference import frameswap

Array = npt.NDArray[np.floating]

_CHANNELS = 8


class NetworkWriter:
    """Collects nodes and seeded weights; names count up, so two runs give the same bytes."""

    def __init__(self, seed: int, *, half: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.float16 if half else np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op_type}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [name], name=f"n_{name}", **attributes)
        )
        return name

    def constant(self, array: npt.ArrayLike) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, self.dtype))

    def weight(self, *shape: int) -> str:
        """Noise scaled so that a layer keeps its input's variance."""
        fan_in = math.prod(shape[1:])
        return self.constant((self.rng.normal(size=shape) / fan_in**0.5).astype(self.dtype))

    def bias(self, length: int) -> str:
        return self.constant((0.1 * self.rng.normal(size=length)).astype(self.dtype))

    def conv(self, x: str, cin: int, cout: int, size: int, **attributes: Any) -> str:
        weight, bias = self.weight(cout, cin, size, size), self.bias(cout)
        return self.node("Conv", x, weight, bias, kernel_shape=[size, size], **attributes)

    def linear(self, x: str, cin: int, cout: int) -> str:
        return self.node("Gemm", x, self.weight(cout, cin), self.bias(cout), transB=1)

    def model(
        self,
        inputs: dict[str, list[int | str]],
        outputs: dict[str, list[int | str]],
        *,
        opset: int = 11,
    ) -> onnx.ModelProto:
        def infos(values: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in values.items()
            ]

        graph = helper.make_graph(
            self.nodes, "published", infos(inputs), infos(outputs), self.initializers
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def swapper_network(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A network with the published contract of swapper `name` (a key of SWAPPERS).

    The project's own is itself, with a narrow U-Net of random weights.
    """
    row = SWAPPERS[name]
    if row.points:
        return build_network(small_weights_file())
    half = name == "inswapper_128_fp16" or name.startswith("hyperswap")
    net = NetworkWriter(seed, half=half)
    target, source = "target", "source"
    if half:
        target = net.node("Cast", target, to=TensorProto.FLOAT16)
        source = net.node("Cast", source, to=TensorProto.FLOAT16)
    source_dims: list[int | str] = [1, row.source_length]
    if row.source_size is not None:
        source_dims = [1, 3, row.source_size, row.source_size]
        source = _encode_image(net, source, row.source_size)
    size = row.crop_size
    image: list[int | str] = [1, 3, size, size]
    # inswapper and blendswap answer [0, 1]; hyperswap, ghost and uniface [-1, 1]; simswap [0, 1].
    generated = _generate(net, target, source, size, signed=row.denormalize)
    outputs = {"output": image}
    if name.startswith("hyperswap"):
        outputs["mask"] = [1, 1, size, size]
        mask = net.node("Sigmoid", net.conv(target, 3, 1, 3, pads=[1] * 4))
        rest = net.node("Mul", target, net.node("Sub", net.scalar(1.0), mask))
        generated = net.node("Add", net.node("Mul", generated, mask), rest)
        net.node("Cast", mask, to=TensorProto.FLOAT, output="mask")
    net.node("Cast", generated, to=TensorProto.FLOAT, output="output")
    if row.project_identity:
        emap = net.rng.normal(size=(512, 512)).astype(np.float32)
        net.initializers.append(numpy_helper.from_array(emap, "buff2fs"))
    return net.model({"target": image, "source": source_dims}, outputs)


def small_weights_file() -> bytes:
    """A `swapper.npz` of the project's own swapper, narrow and random."""
    file = io.BytesIO()
    np.savez(file, **frameswap.small_weights())
    return file.getvalue()


def _encode_image(net: NetworkWriter, source: str, size: int) -> str:
    """A source image to [1, 512], each of its 16 parts with weights of its own."""
    part = size // 4
    features = net.conv(source, 3, 4, part, strides=[part, part])
    return net.linear(net.node("Flatten", features, axis=1), 64, 512)


def _generate(net: NetworkWriter, target: str, source: str, size: int, *, signed: bool) -> str:
    """One styled convolution block as published networks have it, normalisation written out."""
    c = _CHANNELS
    pads = net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    x = net.conv(net.node("Pad", target, pads, mode="reflect"), 3, c, 3)
    style = net.linear(source, 512, 2 * c)
    style = net.node("Reshape", style, net.constant(np.array([1, 2, c, 1, 1], np.int64)))
    scale = net.node("Gather", style, net.constant(np.int64(0)), axis=1)
    shift = net.node("Gather", style, net.constant(np.int64(1)), axis=1)
    centred = net.node("Sub", x, net.node("ReduceMean", x, axes=[2, 3], keepdims=1))
    squared = net.node("Mul", centred, centred)
    variance = net.node("ReduceMean", squared, axes=[2, 3], keepdims=1)
    # 1e-3, not the published 1e-8, which float16 cannot hold.
    deviation = net.node("Sqrt", net.node("Add", variance, net.scalar(1e-3)))
    x = net.node("Mul", centred, net.node("Div", net.scalar(1.0), deviation))
    x = net.node("Add", net.node("Mul", x, scale), shift)
    x = net.conv(net.node("LeakyRelu", x, alpha=0.2), c, 3, 3, pads=[1] * 4)
    x = net.node("Tanh", net.node("Add", x, target))
    if signed:
        return x
    return net.node("Mul", net.node("Add", x, net.scalar(1.0)), net.scalar(0.5))


def recognizer_network(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A network with the published contract of recogniser `name` (a key of RECOGNIZERS)."""
    row = RECOGNIZERS[name]
    net = NetworkWriter(seed)
    source, result, batch = ("data", "fc1", 1) if name == "sface" else ("input.1", "683", "None")
    x = source
    if name == "sface":
        # The published graph scales 0..255 for itself.
        x = net.node("Mul", net.node("Sub", x, net.scalar(127.5)), net.scalar(0.0078125))
    x = net.conv(x, 3, _CHANNELS, 7, strides=[7, 7])
    slope = net.constant(np.full((_CHANNELS, 1, 1), 0.25, np.float32))
    x = net.node("Flatten", net.node("PRelu", x, slope), axis=1)
    x = net.linear(x, _CHANNELS * 16 * 16, row.embedding_length)
    # Lengths differ from 1, as a raw embedding's do.
    net.node("Mul", x, net.scalar(20.0), output=result)
    size = row.crop_size
    return net.model({source: [batch, 3, size, size]}, {result: [batch, row.embedding_length]})


def converter_network(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A network with the contract of a published identity converter: [1, 512] -> [1, 512].

    Like those, it scales its input to unit length itself, and its output has any length.
    """
    wanted = {row.converter for row in SWAPPERS.values() if row.converter}
    if name not in wanted:
        raise KeyError(f"{name} is none of {sorted(wanted)}")
    net = NetworkWriter(seed + len(name))
    norm = net.node("ReduceL2", "input", axes=[1], keepdims=1)
    x = net.node(
        "Div", "input", net.node("Expand", norm, net.constant(np.array([1, 512], np.int64)))
    )
    x = net.node("Tanh", net.linear(net.node("Mul", x, net.scalar(10.0)), 512, 64))
    net.node("Mul", net.linear(x, 64, 512), net.scalar(3.0), output="output")
    return net.model({"input": [1, 512]}, {"output": [1, 512]})


def source_vectors(row: Swapper, count: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Sources as an encoder would give them: vectors, of unit length but for raw ones, or packed
    images and, for some, landmarks behind them."""
    rng = np.random.default_rng(seed)
    if row.source_kind == "image":
        pixels = row.source_length - 3 * row.points
        red, green, blue = rng.integers(0, 256, (3, count, pixels))
        places = np.float32(0.3 + 0.4 * rng.random((count, 3 * row.points)))
        return np.hstack([np.float32(red + 256 * green + 65_536 * blue), places])
    vectors = rng.normal(size=(count, row.source_length)).astype(np.float32)
    if row.raw_identity:
        return vectors
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
