"""AdaIN on [B, H*W, C], its two means as products with a row of 1/(H*W)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, constant_array, producer, replace, static_dims
from networks.passes.drop_cancelled_biases import is_only_normalized
from networks.passes.instance_norms import InstanceNorm, find_instance_norms
from networks.passes.rewriting import TO_CHANNELS_FIRST, TO_CHANNELS_LAST


def normalize_channels_last(model: ir.Model) -> int:
    """Rewrite each normalisation with its scale, and shift if any, for channels-last runs.

    ONNX Runtime's reductions over H and W of a channels-last map are slow; a matrix product with
    [1, H*W] reads the map once, at full speed, summing in float32. Scale and 1 / deviation are
    joined on [B, 1, C], so the map is scaled once.

    The variance is kept in float32 from there on (the Cast says so to whoever types the graph):
    1e-8 is 0 in float16. Squares are not: so that they fit, each channel of the convolution before
    is first brought near unit gain by a power of two, which the normalisation takes out again
    exactly.
    """
    rewritten = 0
    for norm in list(find_instance_norms(model.graph)):
        sizes = static_dims(norm.source, (1, 2, 3))
        if sizes is None or norm.scale is None:
            continue
        _rewrite(norm, sizes)
        rewritten += 1
    return rewritten


def _rewrite(norm: InstanceNorm, sizes: list[int]) -> None:
    channels, height, width = sizes
    anchor = norm.result.producer()
    assert anchor is not None
    assert norm.scale is not None
    gains = _balance(norm.source)
    inserter = NodeInserter(anchor)
    pixels = inserter.reshape(
        inserter.transpose(norm.source, TO_CHANNELS_LAST), -1, height * width, channels
    )
    row = np.full((1, height * width), 1.0 / (height * width))
    average = inserter.constant(row, "average", like=pixels)
    centred = inserter.node("Sub", [pixels, inserter.node("MatMul", [average, pixels])])
    squared = inserter.node("Mul", [centred, centred])
    variance = inserter.node("MatMul", [average, squared])
    variance = inserter.cast(variance, ir.DataType.FLOAT)
    epsilon = inserter.constant((norm.epsilon * gains**2).astype(np.float32), "epsilon")
    deviation = inserter.node("Sqrt", [inserter.node("Add", [variance, epsilon])])
    scale = inserter.reshape(norm.scale, -1, 1, channels)
    if pixels.dtype == ir.DataType.FLOAT:
        scale = inserter.node("Div", [scale, deviation])
    else:
        wide = inserter.cast(scale, ir.DataType.FLOAT)
        scale = inserter.cast(inserter.node("Div", [wide, deviation]), pixels.dtype)
    styled = inserter.node("Mul", [centred, scale])
    if norm.shift is not None:
        shift = inserter.reshape(norm.shift, -1, 1, channels)
        styled = inserter.node("Add", [styled, shift])
    last = inserter.reshape(styled, -1, height, width, channels)
    replace(norm.result, inserter.transpose(last, TO_CHANNELS_FIRST))


def _balance(source: ir.Value) -> np.ndarray:
    """Scale each output channel of the convolution to a gain near 1; returns the factors, [1, C].

    The gain of a channel is its weights' Euclidean length: what it does to the deviation of inputs
    of deviation 1.
    """
    conv = producer(source, "Conv")
    weight = constant_array(conv.inputs[1]) if conv is not None else None
    unit = np.ones((1, 1))
    if conv is None or weight is None or not is_only_normalized(source):
        return unit
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        return unit
    lengths = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    # A channel of zeros has no gain to bring anywhere.
    factors = 2.0 ** -np.round(np.log2(np.where(lengths > 0, lengths, 1.0)))
    balanced = (weight * factors[:, None, None, None]).astype(weight.dtype)
    conv.replace_input_with(1, NodeInserter(conv).constant(balanced, "balanced"))
    return factors[None]
