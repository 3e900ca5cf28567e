"""The U-Net that paints: at half size and below, then a thin layer at full size."""

from __future__ import annotations

from itertools import count
from typing import Final

import numpy as np
import onnx_ir as ir

from networks.frameswap_network.arrays import Arrays, Op, constant

_SLOPE: Final = 0.2
_LEVELS: Final = 4


def paint(op: Op, arrays: Arrays, seen: ir.Value, pictures: ir.Value) -> ir.Value:
    """[N, 5, 256, 256]: see `composition.compose`; seen, pictures: of `composition.prepare`."""
    net = _Layers(op, arrays)
    hidden, skipped = net.halve(seen), []
    for level in range(_LEVELS):
        hidden = net.blocks(hidden, f"encoders.{level}", first=0)
        if level < _LEVELS - 1:
            skipped.append(hidden)
            hidden = net.convolve(hidden, f"down.{level}", stride=2)
    for level in range(_LEVELS - 1):
        hidden = net.double(net.convolve(hidden, f"up.{level}"))
        hidden = op.Concat(hidden, skipped.pop(), axis=1)
        hidden = net.convolve(hidden, f"decoders.{level}.0")
        hidden = net.blocks(hidden, f"decoders.{level}", first=1)
    hidden = op.DepthToSpace(net.convolve(net.leak(hidden), "exit"), blocksize=2, mode="CRD")
    hidden = op.Concat(hidden, pictures, axis=1)
    for layer in ("fine.0", "fine.2"):
        hidden = net.leak(net.convolve(hidden, layer))
    return net.convolve(hidden, "head")


class _Layers:
    """The generator's layers by their names in the weights."""

    def __init__(self, op: Op, arrays: Arrays) -> None:
        self._op, self._arrays = op, arrays

    def _weight(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self._arrays[f"generator.{name}"]

    def convolve(self, x: ir.Value, name: str, *, stride: int = 1) -> ir.Value:
        """A convolution that keeps the size, but for the stride."""
        weight = self._weight(f"{name}.weight")
        size = weight.shape[-1]
        return self._op.Conv(
            x, constant(self._op, weight), constant(self._op, self._weight(f"{name}.bias")),
            kernel_shape=[size, size], pads=[size // 2] * 4, strides=[stride, stride],
        )  # fmt: skip

    def halve(self, x: ir.Value) -> ir.Value:
        """The entry: 2 x 2 pixels become channels, then a convolution of 3 x 3.

        The weights' channels are c * 4 + place, as PyTorch's pixel_unshuffle orders them;
        SpaceToDepth has place * C + c.
        """
        op, weight = self._op, self._weight("entry.weight")
        by_place = weight.reshape(len(weight), -1, 4, 3, 3).transpose(0, 2, 1, 3, 4)
        return op.Conv(
            op.SpaceToDepth(x, blocksize=2),
            constant(op, by_place.reshape(weight.shape)),
            constant(op, self._weight("entry.bias")),
            kernel_shape=[3, 3], pads=[1] * 4,
        )  # fmt: skip

    def blocks(self, x: ir.Value, name: str, *, first: int) -> ir.Value:
        """Every residual block of a level."""
        for number in count(first):
            if f"generator.{name}.{number}.first.weight" not in self._arrays:
                return x
            x = self._block(x, f"{name}.{number}")
        raise AssertionError("blocks end where there are no more weights")

    def _block(self, x: ir.Value, name: str) -> ir.Value:
        """x + conv(gate(conv(x))); the gate a channel, 0 to 2, where there is one."""
        op = self._op
        hidden = self.leak(self.convolve(self.leak(x), f"{name}.first"))
        if f"generator.{name}.gate.0.weight" in self._arrays:
            hidden = op.Mul(hidden, self._gate(hidden, f"{name}.gate"))
        return op.Add(x, self.convolve(hidden, f"{name}.second"))

    def _gate(self, hidden: ir.Value, name: str) -> ir.Value:
        """[N, C, 1, 1]."""
        op = self._op
        x = op.ReduceMean(hidden, [2, 3], keepdims=1)
        x = self._pointwise(x, f"{name}.0")
        x = self._pointwise(op.Mul(x, op.Sigmoid(x)), f"{name}.2")
        return op.Mul(op.Sigmoid(op.Clip(x, -4.0, 4.0)), 2.0)

    def _pointwise(self, x: ir.Value, name: str) -> ir.Value:
        """A linear layer on [N, C, 1, 1], as a convolution of one pixel."""
        op, weight = self._op, self._weight(f"{name}.weight")
        bias = constant(op, self._weight(f"{name}.bias"))
        return op.Conv(x, constant(op, weight[:, :, None, None]), bias, kernel_shape=[1, 1])

    def leak(self, x: ir.Value) -> ir.Value:
        """x, and a fifth of it below 0."""
        return self._op.LeakyRelu(x, alpha=_SLOPE)

    def double(self, x: ir.Value) -> ir.Value:
        """Twice the size, bilinear."""
        scales = constant(self._op, (1.0, 1.0, 2.0, 2.0))
        return self._op.Resize(
            x, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )
