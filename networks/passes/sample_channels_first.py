"""GridSample as ONNX Runtime's own operator, which it has on a GPU for [N, C, H, W]."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from networks.editing import attribute_values, replace

OWN_DOMAIN: Final = "com.microsoft"


def sample_channels_first(model: ir.Model) -> int:
    """Move ONNX's GridSample to ONNX Runtime's domain; the same numbers.

    ONNX's own, ONNX Runtime 1.31 has on a GPU for channels-last tensors alone: the CPU runs it, and
    the GPU waits for copies there and back (`graphs.shapes.sample_on_gpu`).
    """
    moved = 0
    for node in list(model.graph):
        if node.op_type != "GridSample" or node.domain == OWN_DOMAIN:
            continue
        own = ir.node(
            "GridSample", node.inputs, attribute_values(node), domain=OWN_DOMAIN, name=node.name
        )
        old = node.outputs[0]
        # No other tool knows what this operator makes.
        own.outputs[0].name, own.outputs[0].type = f"{old.name}/sampled", old.type
        own.outputs[0].shape = old.shape
        model.graph.insert_before(node, own)
        replace(old, own.outputs[0])
        moved += 1
    if moved:
        model.graph.opset_imports[OWN_DOMAIN] = 1
    return moved
