"""The detector in a form that is not served, for `bench.gpu_models` to time."""

from __future__ import annotations

import onnx

from engines.precision import NETWORK_PREFIX, to_fp16


def in_half_until(model: onnx.ModelProto, pooling: int) -> onnx.ModelProto:
    """The network in float16 up to its `pooling`-th MaxPool, where maps are largest.

    YuNet's landmarks are made of its last layers: with the first two stages alone in float16 they
    move by 0.02 letterbox pixels at most (seven photos of one to sixteen faces), by 0.04 with all.
    """
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    seen = 0
    for node in typed.graph.node:
        if node.name.startswith(NETWORK_PREFIX):
            if seen >= pooling:
                node.name = f"float32/{node.name}"
            seen += node.op_type == "MaxPool"
    return to_fp16(typed)
