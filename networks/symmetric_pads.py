"""Transposed convolutions that cut off more at one side than at the other, as XSeg's do.

ONNX Runtime's CUDA provider leaves those to the CPU (onnxruntime issue 11312): a network of six of
them then waits for the host six times a run. Cutting off nothing inside, and the rest behind, is
the same picture.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from networks.editing import NodeInserter, attribute_values, constant_array, replace

_PADS = ("pads", "auto_pad", "output_shape")


def with_symmetric_pads(network: onnx.ModelProto) -> onnx.ModelProto:
    """`network` whose transposed convolutions cut off as much at either side; not changed."""
    model = ir.from_proto(network)
    for node in list(model.graph):
        pads = _pads(node) if node.op_type == "ConvTranspose" else None
        if pads is not None and any(first != last for first, last in pads):
            _cut_behind(node, pads)
    common_passes.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _pads(node: ir.Node) -> list[tuple[int, int]] | None:
    """What is cut off each spatial axis, before and behind; None where that is not known."""
    weight = constant_array(node.inputs[1])
    values = attribute_values(node)
    if weight is None or "output_shape" in values or any(values.get("output_padding", ())):
        return None
    axes = weight.ndim - 2
    mode = values.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        given = values.get("pads") or [0] * (2 * axes)
        return [(int(given[axis]), int(given[axis + axes])) for axis in range(axes)]
    strides = values.get("strides") or [1] * axes
    dilations = values.get("dilations") or [1] * axes
    found = []
    for size, stride, dilation in zip(weight.shape[2:], strides, dilations, strict=True):
        total = max((size - 1) * dilation + 1 - stride, 0)
        smaller, larger = total // 2, total - total // 2
        found.append((smaller, larger) if mode == "SAME_UPPER" else (larger, smaller))
    return found


def _cut_behind(node: ir.Node, pads: list[tuple[int, int]]) -> None:
    before = NodeInserter(node)
    values = {name: value for name, value in attribute_values(node).items() if name not in _PADS}
    both = [min(pair) for pair in pads]
    made = before.node("ConvTranspose", list(node.inputs), pads=both + both, **values)
    starts = [first - least for (first, _), least in zip(pads, both, strict=True)]
    ends = [
        least - last if last > least else np.iinfo(np.int64).max
        for (_, last), least in zip(pads, both, strict=True)
    ]
    axes = range(2, 2 + len(pads))
    numbers = (
        before.constant(np.array(list(each), np.int64), label)
        for each, label in ((starts, "starts"), (ends, "ends"), (axes, "axes"))
    )
    replace(node.outputs[0], before.node("Slice", [made, *numbers]))
