"""One operator for a whole AdaIN: normalise each channel, scale it, shift it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, replace, static_dims
from networks.passes.instance_norms import InstanceNorm, find_instance_norms


def fuse_instance_normalization(model: ir.Model) -> int:
    """Replace each written-out normalisation, its scale and its shift by InstanceNormalization.

    The operator has one scale a channel, and an AdaIN one a channel and image; with the batch moved
    into the channels, [B, C, H, W] seen as [1, B*C, H, W], that is the same thing. Seven passes
    over the feature map become one. Statistics are kept in float32 inside by every runtime, and
    epsilon is an attribute, so 1e-8 survives float16.
    """
    fused = 0
    for norm in list(find_instance_norms(model.graph)):
        sizes = static_dims(norm.source, (1, 2, 3))
        if sizes is not None and norm.scale is not None and norm.shift is not None:
            _fuse(norm, sizes)
            fused += 1
    return fused


def _fuse(norm: InstanceNorm, sizes: list[int]) -> None:
    channels, height, width = sizes
    assert norm.scale is not None
    assert norm.shift is not None
    anchor = norm.result.producer()
    assert anchor is not None
    inserter = NodeInserter(anchor)
    normalized = inserter.node(
        "InstanceNormalization",
        [
            inserter.reshape(norm.source, 1, -1, height, width),
            _flat(inserter, norm.scale, norm.source, channels),
            _flat(inserter, norm.shift, norm.source, channels),
        ],
        epsilon=norm.epsilon,
    )
    replace(norm.result, inserter.reshape(normalized, -1, channels, height, width))


def _flat(inserter: NodeInserter, style: ir.Value, source: ir.Value, channels: int) -> ir.Value:
    """[B, C, 1, 1] to [B * C]; a style shared by the batch is repeated first."""
    assert style.shape is not None
    if style.shape[0] == 1:
        batch = inserter.node("Shape", [source], start=0, end=1)
        batch.type = ir.TensorType(ir.DataType.INT64)
        rest = inserter.constant(np.array([channels, 1, 1], np.int64), "rest")
        style = inserter.node("Expand", [style, inserter.node("Concat", [batch, rest], axis=0)])
    return inserter.reshape(style, -1)
