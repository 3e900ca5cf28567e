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

from networks.enhancers import ENHANCERS
from networks.frameswap_network import build_network
from networks.maskers import OCCLUDERS, PARSERS
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


def occluder_network(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A network with the contract of occluder `name`, of operators that the published ones have.

    What is bright shows, smoothly: a level of input moves the output by less than a level.
    """
    side = OCCLUDERS[name].size
    net = NetworkWriter(seed + len(name))
    x = net.node("Transpose", "input", perm=[0, 3, 1, 2])
    x = net.node("Relu", net.conv(x, 3, _CHANNELS, 4, strides=[4, 4]))
    pooled = net.node("GlobalAveragePool", x)
    x = net.node("Add", x, net.node("Mul", pooled, net.scalar(0.1)))
    # it cuts off more at one side, as the published ones do
    weight, bias = net.weight(_CHANNELS, 1, 5, 5), net.bias(1)
    x = net.node(
        "ConvTranspose", x, weight, bias, kernel_shape=[5, 5], strides=[4, 4], pads=[0, 0, 1, 1],
    )  # fmt: skip
    bright = net.node("ReduceMean", net.node("Transpose", "input", perm=[0, 3, 1, 2]), axes=[1])
    x = net.node("Add", net.node("Mul", x, net.scalar(0.2)), bright)
    # steeper than any published one's interior, flatter than one level a level
    x = net.node("Sigmoid", net.node("Mul", net.node("Sub", x, net.scalar(0.4)), net.scalar(3.0)))
    net.node("Transpose", x, perm=[0, 2, 3, 1], output="output")
    return net.model({"input": [1, side, side, 3]}, {"output": [1, side, side, 1]})


def parser_network(name: str, *, seed: int = 0) -> onnx.ModelProto:
    """A network with the contract of parser `name`: three outputs, of which the first counts."""
    row = PARSERS[name]
    side = row.size
    net = NetworkWriter(seed + len(name))
    x = net.node("Relu", net.conv("input", 3, _CHANNELS, 16, strides=[16, 16]))
    x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    sizes = net.constant(np.array([1, 1, 32, 32], np.float32))
    roi = net.constant(np.zeros(0, np.float32))
    for position in range(3):
        scores = net.conv(x, _CHANNELS, row.classes, 1)
        net.node(
            "Resize", scores, roi, sizes, mode="linear",
            coordinate_transformation_mode="half_pixel", output=f"output_{position}",
        )  # fmt: skip
    shape: list[int | str] = [1, row.classes, side, side]
    return net.model(
        {"input": [1, 3, side, side]}, {f"output_{position}": shape for position in range(3)}
    )


def enhancer_network(name: str, *, size: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """A network with the contract of enhancer `name`; `size` of one that leaves it open.

    What it answers follows its input's colours, so that a level in moves about a level out.
    """
    row = ENHANCERS[name]
    side = row.size or size or 128
    net = NetworkWriter(seed + len(name))
    detail = net.conv("input", 3, _CHANNELS, 3, pads=[1] * 4)
    if name.startswith(("gfpgan", "gpen")):
        detail = _modulated(net, detail, side)
    detail = net.node("Mul", net.node("Tanh", detail), net.scalar(0.2))
    x = net.node("Add", "input", net.conv(detail, _CHANNELS, 3, 1))
    inputs: dict[str, list[int | str]] = {"input": [1, 3, side, side]}
    if row.takes_weight:
        # a float64, as it is published
        share = net.node("Cast", "weight", to=TensorProto.FLOAT)
        x = net.node("Add", x, net.node("Mul", net.node("Sub", "input", x), share))
        inputs["weight"] = [1]
    if row.scale > 1:
        roi = net.constant(np.zeros(0, np.float32))
        scales = net.constant(np.array([1, 1, row.scale, row.scale], np.float32))
        x = net.node("Resize", x, roi, scales, mode="nearest")
    net.node("Mul", x, net.scalar(1.05), output="output")
    made = side * row.scale
    model = net.model(inputs, {"output": [1, 3, made, made]})
    for value in model.graph.input:
        if value.name == "weight":
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def _modulated(net: NetworkWriter, x: str, side: int) -> str:
    """StyleGAN2's modulated and demodulated convolution, as PyTorch exports it for one picture."""
    c = _CHANNELS

    def shaped(value: str, *dims: int) -> str:
        return net.node("Reshape", value, net.constant(np.array(dims, np.int64)))

    seen = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
    style = net.node("Add", net.linear(seen, c, c), net.scalar(1.0))
    weight = net.weight(1, c, c, 3, 3)
    weight = net.node("Mul", weight, shaped(style, 1, 1, c, 1, 1))
    squared = net.node("Pow", weight, net.scalar(2.0))
    total = net.node("ReduceSum", squared, axes=[2, 3, 4], keepdims=0)
    length = net.node("Sqrt", net.node("Add", total, net.scalar(1e-4)))
    demodulation = shaped(net.node("Reciprocal", length), 1, c, 1, 1, 1)
    weight = shaped(net.node("Mul", weight, demodulation), c, c, 3, 3)
    made = net.node("Conv", shaped(x, 1, c, side, side), weight, pads=[1] * 4, group=1)
    made = shaped(made, 1, c, side, side)
    return net.node("LeakyRelu", net.node("Add", made, net.bias(1)), alpha=0.2)


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
