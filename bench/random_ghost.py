"""A network with GHOST's architecture and random weights: for measuring speed alone.

AEI-Net: an encoder of attributes (a U-Net of strided convolutions) and a generator whose every
normalisation is steered by the attributes at its scale and by the identity (AAD layers). Unlike
inswapper's it has no style Linear in front of two thirds of its arithmetic, no reflected pads, and
its attributes arrive as maps. Its pixels mean nothing: it swaps no face.

Source: Li et al. 2019, "FaceShifter" (arXiv:1912.13457), figure 3 and section 3.1; widths as in
ai-forever/ghost, network/AADLayer.py and network/AEI_Net.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.random_inswapper import IDENTITY_LENGTH, NetworkWriter

SIZE: Final = 256
CHANNELS: Final = 1024
"""Of the encoder's and the generator's deepest layers."""

OUTPUT_SPAN: Final = 2.0
"""From the darkest to the brightest value of the output."""


def build(seed: int = 0, channels: int = CHANNELS) -> onnx.ModelProto:
    """The network, opset 11, batch 1.

    Args:
        seed: of the weights; the same seed gives the same bytes.
        channels: width of the deepest layers, a multiple of 32; the others keep their proportion.

    Returns:
        inputs `target` [1, 3, 256, 256] RGB in [-1, 1] and `source` [1, 512], output `output`
        [1, 3, 256, 256] in [-1, 1], all float32.

    Raises:
        ValueError: a width that cannot be halved five times.
    """
    if channels < 32 or channels % 32:
        raise ValueError(f"channels should be a positive multiple of 32, got {channels}")
    return _GhostWriter(seed, channels).write_ghost()


class _GhostWriter(NetworkWriter):
    def write_ghost(self) -> onnx.ModelProto:
        attributes = self.encode_attributes()
        c = self.channels
        widths = (c, c, c, c, c // 2, c // 4, c // 8, c // 16, 3)
        x = self.project_identity()
        for level, attribute in enumerate(attributes):
            x = self.residual(x, attribute, widths[level], widths[level + 1], f"aad{level}")
            if level < len(attributes) - 1:
                x = self.double(x)
        self.node("Tanh", x, output="output")
        image = [1, 3, SIZE, SIZE]
        graph = helper.make_graph(
            self.nodes,
            "random_ghost",
            [
                helper.make_tensor_value_info("target", TensorProto.FLOAT, image),
                helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, IDENTITY_LENGTH]),
            ],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, image)],
            self.initializers,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6
        )

    def encode_attributes(self) -> list[tuple[str, int]]:
        """Maps of 2, 4, ... 256 pixels, deepest first, each with its number of channels."""
        c = self.channels
        widths = (3, c // 32, c // 16, c // 8, c // 4, c // 2, c, c)
        downs, x = [], "target"
        for level in range(7):
            cin, cout = widths[level], widths[level + 1]
            x = self.leaky(
                self.convolve(x, f"down{level}", cin, cout, 4, pad=1, stride=2, gain=1.4)
            )
            downs.append((x, cout))
        found = [downs[-1]]
        for level, (skip, width) in enumerate(reversed(downs[:-1])):
            x, cin = found[-1]
            grown = self.leaky(self.grow(x, f"up{level}", cin, width))
            found.append((self.node("Concat", grown, skip, axis=1), 2 * width))
        found.append((self.double(found[-1][0]), found[-1][1]))
        return found

    def grow(self, x: str, name: str, cin: int, cout: int) -> str:
        """ConvTranspose of 4 x 4 by 2."""
        weight = self.noise(cin, cout, 4, 4) * np.float32(1.4 / (cin * 4) ** 0.5)
        return self.node(
            "ConvTranspose", x, self.constant(weight, f"{name}.weight"),
            kernel_shape=[4, 4], pads=[1] * 4, strides=[2, 2], dilations=[1, 1], group=1,
        )  # fmt: skip

    def project_identity(self) -> str:
        """The identity as a map of 2 x 2 pixels."""
        c = self.channels
        axes = self.node("Unsqueeze", "source", axes=[2, 3])
        weight = self.noise(IDENTITY_LENGTH, c, 2, 2) / np.float32(IDENTITY_LENGTH**0.5)
        return self.node(
            "ConvTranspose", axes, self.constant(weight, "identity.weight"),
            kernel_shape=[2, 2], pads=[0] * 4, strides=[1, 1], dilations=[1, 1], group=1,
        )  # fmt: skip

    def residual(self, x: str, attribute: tuple[str, int], cin: int, cout: int, name: str) -> str:
        """Twice AAD, ReLU, convolution, beside the input (through a third where it narrows)."""
        y = self.layer(x, attribute, cin, cin, f"{name}.0")
        y = self.layer(y, attribute, cin, cout, f"{name}.1")
        beside = x if cin == cout else self.layer(x, attribute, cin, cout, f"{name}.2")
        return self.node("Add", y, beside)

    def layer(self, x: str, attribute: tuple[str, int], cin: int, cout: int, name: str) -> str:
        """AAD, ReLU, 3 x 3 convolution without bias."""
        ones, zeros = np.ones(cin, np.float32), np.zeros(cin, np.float32)
        normal = self.node(
            "InstanceNormalization", x, self.constant(ones, f"{name}.scale"),
            self.constant(zeros, f"{name}.shift"), epsilon=1e-5,
        )  # fmt: skip
        feature, width = attribute
        by_attribute = self.steer(
            normal,
            *(self.convolve(feature, f"{name}.{part}", width, cin, 1, gain=0.5) for part in "gb"),
        )
        by_identity = self.steer(normal, *(self.from_identity(f"{name}.i{p}", cin) for p in "gb"))
        mask = self.node("Sigmoid", self.convolve(normal, f"{name}.mask", cin, 1, 1))
        kept = self.node("Mul", self.node("Sub", self.number(1.0, "one"), mask), by_attribute)
        mixed = self.node("Add", kept, self.node("Mul", mask, by_identity))
        weight = self.noise(cout, cin, 3, 3) * np.float32(1.4 / (cin * 9) ** 0.5)
        return self.node(
            "Conv", self.node("Relu", mixed), self.constant(weight, f"{name}.conv"),
            kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1], dilations=[1, 1], group=1,
        )  # fmt: skip

    def steer(self, x: str, scale: str, shift: str) -> str:
        return self.node("Add", self.node("Mul", scale, x), shift)

    def from_identity(self, name: str, width: int) -> str:
        weight = self.noise(width, IDENTITY_LENGTH) * np.float32(0.5)
        bias = np.ones(width, np.float32)
        made = self.node(
            "Gemm", "source", self.constant(weight, f"{name}.weight"),
            self.constant(bias, f"{name}.bias"), transB=1,
        )  # fmt: skip
        return self.node("Unsqueeze", made, axes=[2, 3])

    def double(self, x: str) -> str:
        empty = self.constant_once(np.zeros(0, np.float32), "roi")
        scales = self.constant_once(np.array([1, 1, 2, 2], np.float32), "twice")
        return self.node(
            "Resize", x, empty, scales,
            mode="linear", coordinate_transformation_mode="align_corners",
        )  # fmt: skip
