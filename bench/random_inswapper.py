"""A network with inswapper_128's architecture and random weights: for measuring speed alone.

It has every layer, tensor name and shape of the published file (batch 1 baked in, instance
normalisation written out, a style Linear per convolution, the emap as last initializer), so what
it costs is what the published network costs. Its pixels mean nothing: it swaps no face.

Layers: the published file's own, as counted from it; encoder 14.80, style blocks 115.96, decoder
43.80 GMAC. Both totals are asserted whenever the full width is built.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS: Final = 1024
GMAC: Final = 174.575
PARAMETERS: Final = 138_292_739
"""Of the full width, without the emap, which no layer uses."""

SIZE: Final = 128
IDENTITY_LENGTH: Final = 512
BLOCKS: Final = 6
EPSILON: Final = 1e-8
OUTPUT_SPAN: Final = 1.0
"""From the darkest to the brightest value of the output."""


@dataclass(frozen=True)
class Cost:
    """What one image costs: multiply-accumulate operations, and trained numbers."""

    macs: int
    parameters: int


def build(seed: int = 0, channels: int = CHANNELS) -> onnx.ModelProto:
    """The network, opset 11, batch 1.

    Args:
        seed: of the weights; the same seed gives the same bytes.
        channels: width of the style blocks, a multiple of 8; the published width is 1024, and
            the other layers keep their proportion to it.

    Returns:
        inputs `target` [1, 3, 128, 128] RGB in [0, 1] and `source` [1, 512], output `output`
        [1, 3, 128, 128] in [0, 1], all float32; the last initializer is a 512 x 512 emap. Weights
        are scaled so that activations stay of order one and the output does not saturate.

    Raises:
        ValueError: a width that cannot be halved three times.
    """
    if channels < 8 or channels % 8:
        raise ValueError(f"channels should be a positive multiple of 8, got {channels}")
    writer = NetworkWriter(seed, channels)
    model = writer.write()
    if channels == CHANNELS:
        cost = count(model)
        assert round(cost.macs / 1e9, 3) == GMAC, cost
        assert cost.parameters == PARAMETERS, cost
    return model


def count(model: onnx.ModelProto) -> Cost:
    """Cost of a network of Conv and Gemm nodes, from its own shapes and weights."""
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model))
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    macs = parameters = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        trained = [weights[name] for name in node.input[1:]]
        parameters += sum(int(np.prod(dims)) for dims in trained)
        positions = int(np.prod(shapes[node.output[0]][2:])) if node.op_type == "Conv" else 1
        macs += positions * int(np.prod(trained[0]))
    return Cost(macs, parameters)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same shapes, with trained numbers declared as inputs: half a gigabyte less to copy."""
    graph, inputs, kept = model.graph, list(model.graph.input), []
    for tensor in graph.initializer:
        if np.prod(tensor.dims) > 16:
            inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            kept.append(tensor)
    light = helper.make_graph(graph.node, graph.name, inputs, graph.output, kept)
    return helper.make_model(light, opset_imports=model.opset_import, ir_version=model.ir_version)


class NetworkWriter:
    """Collects nodes and random weights; names count up, so that two runs give the same bytes."""

    def __init__(self, seed: int, channels: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.channels = channels
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def write(self) -> onnx.ModelProto:
        c = self.channels
        x = self.convolve("target", "encoder.0", 3, c // 8, 7, reflect=3, gain=2.0)
        x = self.convolve(self.leaky(x), "encoder.1", c // 8, c // 4, 3, pad=1)
        x = self.convolve(self.leaky(x), "encoder.2", c // 4, c // 2, 3, pad=1, stride=2)
        x = self.convolve(self.leaky(x), "encoder.3", c // 2, c, 3, pad=1, stride=2)
        x = self.leaky(x)
        for block in range(BLOCKS):
            x = self.style_block(x, f"styles.{block}")
        x = self.leaky(self.convolve(self.upsample(x), "up0.1", c, c // 2, 3, pad=1))
        x = self.leaky(self.convolve(self.upsample(x), "up1.1", c // 2, c // 4, 3, pad=1))
        x = self.leaky(self.convolve(x, "up2.0", c // 4, c // 8, 3, pad=1))
        # Most of the residual stream's energy arrives here; 0.3 keeps tanh away from its ends.
        x = self.node("Tanh", self.convolve(x, "up3.1", c // 8, 3, 7, reflect=3, gain=0.3))
        x = self.node("Add", x, self.number(1.0, "one"))
        self.node("Div", x, self.number(2.0, "two"), output="output")
        emap = self.noise(IDENTITY_LENGTH, IDENTITY_LENGTH) / np.float32(IDENTITY_LENGTH**0.5)
        self.constant(emap, "buff2fs")
        return self.model()

    def style_block(self, x: str, name: str) -> str:
        """x + AdaIN(conv(ReLU(AdaIN(conv(x))))), convolutions after a reflected pad."""
        y = self.convolve(x, f"{name}.conv1.1", self.channels, self.channels, 3, reflect=1)
        y = self.node("Relu", self.apply_style(self.normalize(y), f"{name}.style1"))
        y = self.convolve(y, f"{name}.conv2.1", self.channels, self.channels, 3, reflect=1)
        return self.node("Add", x, self.apply_style(self.normalize(y), f"{name}.style2"))

    def normalize(self, x: str) -> str:
        """(x - mean) / sqrt(variance + 1e-8) over each channel's pixels, as it was exported."""
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes=[2, 3], keepdims=1))
        squared = self.node("Mul", centred, centred)
        variance = self.node("ReduceMean", squared, axes=[2, 3], keepdims=1)
        shifted = self.node("Add", variance, self.number(EPSILON, "epsilon"))
        inverse = self.node("Div", self.number(1.0, "one"), self.node("Sqrt", shifted))
        return self.node("Mul", centred, inverse)

    def apply_style(self, x: str, name: str) -> str:
        """x * scale + shift, both one Linear of the source; scale is about 1, shift about 0."""
        c = self.channels
        weight = self.noise(2 * c, IDENTITY_LENGTH) * np.float32(0.3)
        bias = np.concatenate([np.ones(c), np.zeros(c)])
        style = self.node(
            "Gemm",
            "source",
            self.constant(weight, f"{name}.linear.weight"),
            self.constant(bias.astype(np.float32), f"{name}.linear.bias"),
            transB=1,
        )
        style = self.node("Unsqueeze", self.node("Unsqueeze", style, axes=[2]), axes=[3])
        axes = self.integers("axis_1", 1)
        ends = self.integers("start", 0), self.integers("middle", c), self.integers("end", 2 * c)
        scale = self.node("Slice", style, ends[0], ends[1], axes)
        shift = self.node("Slice", style, ends[1], ends[2], axes)
        return self.node("Add", self.node("Mul", x, scale), shift)

    def convolve(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        size: int,
        *,
        stride: int = 1,
        pad: int = 0,
        reflect: int = 0,
        gain: float = 1.2,
    ) -> str:
        """Conv with bias; `gain` 1.2 keeps the variance of what a leaky ReLU let through."""
        if reflect:
            amounts = self.integers(f"reflect_{reflect}", *[0, 0, reflect, reflect] * 2)
            x = self.node("Pad", x, amounts, mode="reflect")
        fan_in = cin * size * size
        weight = self.noise(cout, cin, size, size) * np.float32(gain / fan_in**0.5)
        bias = self.noise(cout) * np.float32(0.05)
        return self.node(
            "Conv",
            x,
            self.constant(weight, f"{name}.weight"),
            self.constant(bias, f"{name}.bias"),
            dilations=[1, 1],
            group=1,
            kernel_shape=[size, size],
            pads=[pad] * 4,
            strides=[stride, stride],
        )

    def noise(self, *shape: int) -> npt.NDArray[np.float32]:
        """Uniform, mean 0, variance 1: five times as fast to draw as a normal distribution."""
        values = self.rng.random(shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(12**0.5)
        return values

    def leaky(self, x: str) -> str:
        return self.node("LeakyRelu", x, alpha=0.2)

    def upsample(self, x: str) -> str:
        empty = self.constant_once(np.zeros(0, np.float32), "roi")
        scales = self.constant_once(np.array([1, 1, 2, 2], np.float32), "twice")
        return self.node(
            "Resize",
            *(x, empty, scales),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def node(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op_type}_{len(self.nodes)}_output_0"
        label = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=label, **attributes))
        return name

    def constant(self, array: npt.NDArray[np.generic], name: str) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def constant_once(self, array: npt.NDArray[np.generic], name: str) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.constant(array, name)
        return name

    def number(self, value: float, name: str) -> str:
        return self.constant_once(np.array(value, np.float32), name)

    def integers(self, name: str, *values: int) -> str:
        return self.constant_once(np.array(values, np.int64), name)

    def model(self) -> onnx.ModelProto:
        image = [1, 3, SIZE, SIZE]
        graph = helper.make_graph(
            self.nodes,
            "random_inswapper",
            [
                helper.make_tensor_value_info("target", TensorProto.FLOAT, image),
                helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, IDENTITY_LENGTH]),
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, image)],
            self.initializers,
        )
        opset = [helper.make_opsetid("", 11)]
        return helper.make_model(graph, opset_imports=opset, ir_version=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path, help="file to write, 554 MB at the full width")
    parser.add_argument("--channels", type=int, default=CHANNELS, help="width (default: 1024)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    arguments = parser.parse_args()
    model = build(arguments.seed, arguments.channels)
    cost = count(model)
    onnx.save(model, arguments.output)
    print(
        f"{arguments.output}: random weights, for measuring speed only; "
        f"{cost.macs / 1e9:.3f} GMAC, {cost.parameters:,} parameters"
    )


if __name__ == "__main__":
    main()
