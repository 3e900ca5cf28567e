"""GridSample of ONNX as that of ONNX Runtime's own domain."""

from __future__ import annotations

import onnx_ir as ir

from networks.opset import MICROSOFT_DOMAIN


def sample_with_onnxruntime(model: ir.Model) -> int:
    """Bilinear GridSample of [N, C, H, W] in the domain where ONNX Runtime has it for a GPU.

    Its CUDA provider has ONNX's own operator for channels-last tensors alone (ONNX Runtime 1.31):
    pictures would go to the host and back in the middle of a network. The attributes are the same.
    """
    rewritten = 0
    for node in model.graph:
        if node.op_type == "GridSample" and node.domain == "":
            node.domain = MICROSOFT_DOMAIN
            rewritten += 1
    if rewritten:
        model.graph.opset_imports[MICROSOFT_DOMAIN] = 1
    return rewritten
