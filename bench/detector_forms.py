"""Forms that the served detector could have on a GPU, for `bench.gpu_models` to time.

None is served: a form that pays becomes a pass or a precision of its own, with its gate.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import helper

from engines.precision import NETWORK_PREFIX, to_fp16


def with_fused_relus(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each convolution of the network with the Relu that alone reads it, as one operator.

    ONNX Runtime has it as com.microsoft.FusedConv (float32, [N, C, H, W]); its own optimiser left
    YuNet's 15 Relus as kernels of their own on CUDA (1.31, H100).
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    graph = fused.graph
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(output.name for output in graph.output)
    made = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    dropped = []
    for node in graph.node:
        convolution = made.get(node.input[0]) if node.op_type == "Relu" else None
        if convolution is None or reads[node.input[0]] != 1:
            continue
        convolution.op_type, convolution.domain = "FusedConv", "com.microsoft"
        convolution.attribute.append(helper.make_attribute("activation", "Relu"))
        convolution.output[0] = node.output[0]
        dropped.append(node)
    for node in dropped:
        graph.node.remove(node)
    if dropped and all(entry.domain != "com.microsoft" for entry in fused.opset_import):
        fused.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return fused


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
