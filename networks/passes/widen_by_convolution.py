"""Channels of zeros added by a 1x1 convolution instead of a Pad."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, constant_array, replace, static_dims


def widen_by_convolution(model: ir.Model) -> int:
    """Pad of channels behind those of a map as a convolution by ones and zeros: the same numbers.

    A residual block that doubles its channels adds a padded map. ONNX Runtime's Pad takes 25 us on
    CUDA for maps that a convolution takes 4 us for (H200, batch 16). (What is no number in one
    channel of a pixel is in all of them then.)
    """
    widened = 0
    for node in list(model.graph):
        added, given = _added_channels(node), node.inputs[0] if node.inputs else None
        channels = static_dims(given, (1,)) if added and given is not None else None
        if channels is None:
            continue
        weight = np.eye(channels[0] + added, channels[0], dtype=np.float32)[:, :, None, None]
        inserter = NodeInserter(node)
        made = inserter.node("Conv", [given, inserter.constant(weight, "ones")])
        replace(node.outputs[0], made)
        widened += 1
    return widened


def _added_channels(node: ir.Node) -> int:
    """How many channels of zeros a Pad of [B, C, H, W] appends; 0 for anything else."""
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return 0
    pads, value = constant_array(node.inputs[1]), [*node.inputs, None][2]
    filled = value is not None and np.any(constant_array(value))
    if pads is None or len(pads) != 8 or len(node.inputs) > 3 or filled:
        return 0
    return int(pads[5]) if pads[5] == np.abs(pads).sum() else 0
