"""Networks with the architectures of xseg, bisenet_resnet_34 and gfpgan, and random weights.

For measuring speed alone: every layer and shape of the published files, batch 1 baked in, the
contracts of `networks.maskers` and `networks.enhancers`. Their pixels mean nothing.

Sources: DeepFaceLab, core/leras/models/XSeg.py; zllrunning/face-parsing.PyTorch, model.py, with
ResNet-34 behind it as in yakhyo/face-parsing; TencentARC/GFPGAN, gfpganv1_clean_arch.py and
stylegan2_clean_arch.py (channel multiplier 2, as gfpgan_1.3 and 1.4 have it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.random_inswapper import NetworkWriter

BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {"xseg_1": 70_324_286, "bisenet_resnet_34": 93_632_546, "gfpgan_1.4": 340_299_087}
)
"""Of the published files: the random ones are as large to within what names and folding take."""


def build(name: str, seed: int = 0, *, width: int = 1) -> onnx.ModelProto:
    """The network, opset 11, batch 1.

    Args:
        name: a key of `BYTES`.
        width: by which every layer's channels are divided, for tests.

    Returns:
        A network with the published contract of that name, all float32.
    """
    return _WRITERS[name](_ExtraWriter(seed, width))


class _ExtraWriter(NetworkWriter):
    """`channels` is what widths are divided by."""

    def wide(self, channels: int) -> int:
        return max(channels // self.channels, 1)

    def conv(self, x: str, name: str, cin: int, cout: int, size: int, **given: Any) -> str:
        return self.convolve(x, name, cin, cout, size, **given)

    def shaped(self, x: str, *dims: int) -> str:
        return self.node("Reshape", x, self.integers("to_" + "_".join(map(str, dims)), *dims))

    def resize(self, x: str, scale: float) -> str:
        empty = self.constant_once(np.zeros(0, np.float32), "roi")
        scales = np.array([1, 1, scale, scale], np.float32)
        return self.node(
            "Resize", x, empty, self.constant_once(scales, f"by_{scale}"),
            mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def dense(self, x: str, name: str, cin: int, cout: int) -> str:
        weight = self.noise(cout, cin) * np.float32(1 / cin**0.5)
        bias = self.noise(cout) * np.float32(0.05)
        return self.node(
            "Gemm", x, self.constant(weight, f"{name}.weight"),
            self.constant(bias, f"{name}.bias"), transB=1,
        )  # fmt: skip

    def finish(
        self, name: str, inputs: dict[str, list[int]], outputs: dict[str, list[int]]
    ) -> onnx.ModelProto:
        read, written = (
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in infos.items()]
            for infos in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, read, written, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


# --- xseg -----------------------------------------------------------------------------------------


def _write_xseg(net: _ExtraWriter) -> onnx.ModelProto:
    base = net.wide(32)
    widths = (1, 2, 4, 8, 8, 8)
    blurs = (4, 3, 2, 2, 2, 2)
    depths = (2, 2, 2, 3, 3, 3)
    x, cin, skips = net.node("Transpose", "input", perm=[0, 3, 1, 2]), 3, []
    for level, (width, blur, depth) in enumerate(zip(widths, blurs, depths, strict=True)):
        for layer in range(depth):
            cout = width * base
            x = _filtered(net, net.conv(x, f"d{level}{layer}", cin, cout, 3, pad=1), cout)
            cin = cout
        skips.append(x)
        x = _blur_pool(net, x, cin, blur)
    flat = 4 * 4 * 8 * base
    x = net.dense(net.shaped(x, 1, flat), "dense1", flat, net.wide(512))
    x = net.shaped(net.dense(x, "dense2", net.wide(512), flat), 1, 8 * base, 4, 4)
    ups = ((4, 8, 3), (4, 8, 3), (4, 8, 3), (4, 4, 2), (2, 2, 2), (1, 1, 2))
    for level, (grown, width, depth) in enumerate(ups):
        skip, skip_width = skips[-1 - level], widths[-1 - level] * base
        x = _filtered(net, _grown(net, x, f"u{level}", cin, grown * base), grown * base)
        x, cin = net.node("Concat", x, skip, axis=1), grown * base + skip_width
        for layer in range(depth):
            cout = width * base
            x = _filtered(net, net.conv(x, f"u{level}{layer}", cin, cout, 3, pad=1), cout)
            cin = cout
    x = net.node("Sigmoid", net.conv(x, "out", cin, 1, 3, pad=1))
    net.node("Transpose", x, perm=[0, 2, 3, 1], output="output")
    return net.finish("random_xseg", {"input": [1, 256, 256, 3]}, {"output": [1, 256, 256, 1]})


def _filtered(net: _ExtraWriter, x: str, channels: int) -> str:
    """Filter response normalisation, and the larger of that and a trained threshold."""
    power = net.node("GlobalAveragePool", net.node("Mul", x, x))
    root = net.node("Sqrt", net.node("Add", power, net.number(1e-6, "epsilon")))
    x = net.node("Mul", x, net.node("Reciprocal", root))
    name = f"frn_{len(net.nodes)}"
    ones = np.ones((1, channels, 1, 1), np.float32)
    x = net.node("Mul", x, net.constant(ones, f"{name}.scale"))
    x = net.node("Add", x, net.constant(0 * ones, f"{name}.shift"))
    return net.node("Max", x, net.constant(-ones, f"{name}.tau"))


def _blur_pool(net: _ExtraWriter, x: str, channels: int, size: int) -> str:
    row = np.array({2: [1, 1], 3: [1, 2, 1], 4: [1, 3, 3, 1]}[size], np.float32)
    kernel = np.outer(row, row) / row.sum() ** 2
    before, after = (size - 1) // 2, size // 2
    pads = net.integers(f"blur_{size}", 0, 0, before, before, 0, 0, after, after)
    weight = np.tile(kernel.astype(np.float32), (channels, 1, 1, 1))
    return net.node(
        "Conv", net.node("Pad", x, pads), net.constant(weight, f"blur_{len(net.nodes)}"),
        group=channels, kernel_shape=[size, size], strides=[2, 2],
    )  # fmt: skip


def _grown(net: _ExtraWriter, x: str, name: str, cin: int, cout: int) -> str:
    weight = net.noise(cin, cout, 3, 3) * np.float32(1 / (cin * 2.25) ** 0.5)
    bias = net.noise(cout) * np.float32(0.05)
    return net.node(
        "ConvTranspose", x, net.constant(weight, f"{name}.weight"),
        net.constant(bias, f"{name}.bias"),
        kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1],
    )  # fmt: skip


# --- bisenet --------------------------------------------------------------------------------------


def _write_bisenet(net: _ExtraWriter) -> onnx.ModelProto:
    def block(x: str, name: str, cin: int, cout: int, size: int, **given: Any) -> str:
        # batch normalisation is folded into the exported convolutions
        pad = given.pop("pad", size // 2)
        return net.node("Relu", net.conv(x, name, cin, cout, size, pad=pad, **given))

    w64, w128, w256, w512 = (net.wide(size) for size in (64, 128, 256, 512))
    x = block("input", "stem", 3, w64, 7, stride=2)
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    features, cin = [], w64
    stages = ((w64, 3, 1), (w128, 4, 2), (w256, 6, 2), (w512, 3, 2))
    for stage, (cout, count, stride) in enumerate(stages):
        for layer in range(count):
            step = stride if layer == 0 else 1
            y = block(x, f"s{stage}.{layer}.1", cin, cout, 3, stride=step)
            y = net.conv(y, f"s{stage}.{layer}.2", cout, cout, 3, pad=1, gain=0.6)
            if cin != cout or step != 1:
                x = net.conv(x, f"s{stage}.{layer}.skip", cin, cout, 1, stride=step)
            x, cin = net.node("Relu", net.node("Add", x, y)), cout
        features.append(x)
    _, eighth, sixteenth, last = features
    pooled = block(net.node("GlobalAveragePool", last), "average", w512, w128, 1)

    def refined(x: str, name: str, cin: int) -> str:
        x = block(x, name, cin, w128, 3)
        gate = net.conv(net.node("GlobalAveragePool", x), f"{name}.gate", w128, w128, 1)
        return net.node("Mul", x, net.node("Sigmoid", gate))

    deep = net.node("Add", refined(last, "arm32", w512), pooled)
    deep = block(net.resize(deep, 2.0), "head32", w128, w128, 3)
    middle = net.node("Add", refined(sixteenth, "arm16", w256), deep)
    middle = block(net.resize(middle, 2.0), "head16", w128, w128, 3)
    fused = block(
        net.node("Concat", eighth, middle, axis=1), "fuse", 2 * w128, 2 * w128, 1
    )
    gate = block(net.node("GlobalAveragePool", fused), "fuse.1", 2 * w128, w64, 1)
    gate = net.node("Sigmoid", net.conv(gate, "fuse.2", w64, 2 * w128, 1))
    fused = net.node("Add", net.node("Mul", fused, gate), fused)
    heads = ((fused, 2 * w128, 2 * w128, 8.0), (middle, w128, w64, 8.0), (deep, w128, w64, 16.0))
    for position, (x, cin, between, scale) in enumerate(heads):
        x = block(x, f"out{position}.1", cin, between, 3)
        x = net.conv(x, f"out{position}.2", between, 19, 1)
        net.node("Identity", net.resize(x, scale), output=f"output_{position}")
    shape = [1, 19, 512, 512]
    return net.finish(
        "random_bisenet", {"input": [1, 3, 512, 512]},
        {f"output_{position}": shape for position in range(3)},
    )  # fmt: skip


# --- gfpgan ---------------------------------------------------------------------------------------

_STYLE: Final = 512


def _write_gfpgan(net: _ExtraWriter) -> onnx.ModelProto:
    half = {4: 256, 8: 256, 16: 256, 32: 256, 64: 256, 128: 128, 256: 64, 512: 32}
    unet = {side: net.wide(width) for side, width in half.items()}
    style = net.wide(_STYLE)
    x = net.leaky(net.conv("input", "first", 3, unet[512], 1))
    skips: list[str] = []
    sides = (512, 256, 128, 64, 32, 16, 8, 4)
    for side, smaller in pairwise(sides):
        x = _residual(net, x, f"down{side}", unet[side], unet[smaller], 0.5)
        skips.insert(0, x)
    x = net.leaky(net.conv(x, "final", unet[4], unet[4], 3, pad=1))
    flat = unet[4] * 16
    latents = net.dense(net.shaped(x, 1, flat), "latents", flat, 16 * style)
    latents = net.shaped(latents, 1, 16, style)
    conditions = []
    for position, side in enumerate(sides[-2::-1]):
        x = net.node("Add", x, skips[position])
        x = _residual(net, x, f"up{side}", unet[side // 2], unet[side], 2.0)
        for part in ("scale", "shift"):
            y = net.leaky(net.conv(x, f"{part}{side}.0", unet[side], unet[side], 3, pad=1))
            width = unet[side]
            conditions.append(net.conv(y, f"{part}{side}.1", width, width, 3, pad=1, gain=0.5))
    _decode(net, latents, conditions, {side: 2 * width for side, width in unet.items()}, style)
    image = [1, 3, 512, 512]
    return net.finish("random_gfpgan", {"input": image}, {"output": image})


def _residual(net: _ExtraWriter, x: str, name: str, cin: int, cout: int, scale: float) -> str:
    y = net.resize(net.leaky(net.conv(x, f"{name}.1", cin, cin, 3, pad=1)), scale)
    # half the variance each: what twenty of them make stays within float16
    y = net.leaky(net.conv(y, f"{name}.2", cin, cout, 3, pad=1, gain=0.8))
    skip = net.conv(net.resize(x, scale), f"{name}.skip", cin, cout, 1, gain=0.6)
    return net.node("Add", y, skip)


def _decode(
    net: _ExtraWriter, latents: str, conditions: list[str], widths: dict[int, int], style: int
) -> None:
    """StyleGAN2's generator, half of whose channels the conditions shift."""

    def latent(position: int) -> str:
        index = net.constant_once(np.array(position, np.int64), f"latent_{position}")
        return net.node("Gather", latents, index, axis=1)

    seed = net.noise(1, widths[4], 4, 4)
    x = _styled(net, net.constant(seed, "start"), latent(0), "s4", widths[4], widths[4], style, 4)
    picture = _to_rgb(net, x, latent(1), "rgb4", widths[4], style)
    cin = widths[4]
    for level, side in enumerate((8, 16, 32, 64, 128, 256, 512)):
        cout, place = widths[side], 2 * level + 1
        x = _styled(net, net.resize(x, 2.0), latent(place), f"s{side}.1", cin, cout, style, side)
        kept, moved = (
            net.node(
                "Slice", x, net.integers(f"{side}.{part}.0", part * cout // 2),
                net.integers(f"{side}.{part}.1", (part + 1) * cout // 2), net.integers("on_1", 1),
            )
            for part in (0, 1)
        )  # fmt: skip
        scale, shift = conditions[2 * level : 2 * level + 2]
        moved = net.node("Add", net.node("Mul", moved, scale), shift)
        x = net.node("Concat", kept, moved, axis=1)
        x = _styled(net, x, latent(place + 1), f"s{side}.2", cout, cout, style, side)
        made = _to_rgb(net, x, latent(min(place + 2, 15)), f"rgb{side}", cout, style)
        picture = net.node("Add", made, net.resize(picture, 2.0))
        cin = cout
    net.node("Tanh", picture, output="output")


def _styled(
    net: _ExtraWriter, x: str, latent: str, name: str, cin: int, cout: int, style: int, side: int
) -> str:
    x = _modulated(net, x, latent, name, (cin, cout, 3), style, demodulate=True)
    x = net.node("Mul", x, net.number(2**0.5, "root"))
    x = net.node("Add", x, net.constant(net.noise(1, 1, side, side) * 0.1, f"{name}.noise"))
    x = net.node("Add", x, net.constant(net.noise(1, cout, 1, 1) * 0.05, f"{name}.bias"))
    return net.leaky(x)


def _to_rgb(net: _ExtraWriter, x: str, latent: str, name: str, cin: int, style: int) -> str:
    x = _modulated(net, x, latent, name, (cin, 3, 1), style, demodulate=False)
    return net.node("Add", x, net.constant(net.noise(1, 3, 1, 1) * 0.05, f"{name}.bias"))


def _modulated(
    net: _ExtraWriter, x: str, latent: str, name: str, form: tuple[int, int, int], style: int, *,
    demodulate: bool,
) -> str:  # fmt: skip
    cin, cout, size = form
    factor = net.shaped(net.dense(latent, f"{name}.style", style, cin), 1, 1, cin, 1, 1)
    trained = net.noise(1, cout, cin, size, size) / np.float32((cin * size * size) ** 0.5)
    weight = net.node("Mul", net.constant(trained, f"{name}.weight"), factor)
    if demodulate:
        squared = net.node("Pow", weight, net.number(2.0, "two"))
        total = net.node("ReduceSum", squared, axes=[2, 3, 4], keepdims=0)
        length = net.node("Sqrt", net.node("Add", total, net.number(1e-8, "least")))
        inverse = net.node("Reciprocal", length)
        weight = net.node("Mul", weight, net.shaped(inverse, 1, cout, 1, 1, 1))
    weight = net.shaped(weight, cout, cin, size, size)
    return net.node(
        "Conv", x, weight, kernel_shape=[size, size], pads=[size // 2] * 4, group=1
    )


_WRITERS: Final[Mapping[str, Callable[[_ExtraWriter], onnx.ModelProto]]] = MappingProxyType(
    {"xseg_1": _write_xseg, "bisenet_resnet_34": _write_bisenet, "gfpgan_1.4": _write_gfpgan}
)
