"""Eight input channels for convolutions of an image: three real ones and five of zeros."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, constant_array, producer

WIDTH = 8
"""Channels that a float16 tensor-core kernel loads at once."""


def widen_image_channels(model: ir.Model) -> int:
    """Widen each convolution of fewer than 8 channels.

    cuDNN 9 has no fused convolution and bias for a channels-last map of 3 channels (it fails at
    the first run), and its kernels for 8 are faster. The new weights are zeros: nothing changes.
    """
    widened = 0
    for conv in list(model.graph):
        weight = constant_array(conv.inputs[1]) if conv.op_type == "Conv" else None
        if weight is None or conv.attributes.get_int("group", 1) != 1:
            continue
        missing = WIDTH - weight.shape[1]
        if missing <= 0 or weight.ndim != 4:
            continue
        # Before the reflected pad, where the map is smaller and its own Pad stays as it is.
        first = conv
        while (pad := producer(first.inputs[0], "Pad")) is not None:
            first = pad
        inserter = NodeInserter(first)
        amounts = inserter.constant(np.array([0, 0, 0, 0, 0, missing, 0, 0], np.int64), "channels")
        wide = inserter.node("Pad", [first.inputs[0], amounts])
        first.replace_input_with(0, wide)
        zeros = np.zeros((weight.shape[0], missing, *weight.shape[2:]), weight.dtype)
        widened_weight = np.concatenate([weight, zeros], axis=1)
        conv.replace_input_with(1, NodeInserter(conv).constant(widened_weight, "widened"))
        widened += 1
    return widened
