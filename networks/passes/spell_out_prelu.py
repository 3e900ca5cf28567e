"""PRelu as four operators that ONNX Runtime's CPU provider has fast ones for."""

from __future__ import annotations

import onnx_ir as ir

from networks.editing import NodeInserter, replace


def spell_out_prelu(model: ir.Model) -> int:
    """PRelu(x, s) as r + s (x - r) with r = Relu(x): the same numbers, bit for bit, of finite x.

    For ONNX Runtime on a CPU: its PRelu has no form for the blocked layout that its convolutions
    want, so that every map is laid out anew twice, and costs as much as the convolutions. A GPU
    would pay for three kernels more. (An infinite x gives NaN, where PRelu keeps it.)
    """
    rewritten = 0
    for node in list(model.graph):
        if node.op_type != "PRelu":
            continue
        x, slope = node.inputs
        inserter = NodeInserter(node)
        positive = inserter.node("Relu", [x])
        negative = inserter.node("Sub", [x, positive])
        sloped = inserter.node("Mul", [negative, slope])
        replace(node.outputs[0], inserter.node("Add", [positive, sloped]))
        rewritten += 1
    return rewritten
