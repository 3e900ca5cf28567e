"""No bias for a convolution whose output is normalised: the mean takes it away again."""

from __future__ import annotations

import onnx_ir as ir

from networks.editing import producer
from networks.passes.instance_norms import find_instance_norms


def drop_cancelled_biases(model: ir.Model) -> int:
    """Remove the bias of each Conv that nothing but an instance normalisation reads.

    A bias moves a channel and its mean alike. ONNX Runtime adds it in a kernel of its own, a pass
    over the whole feature map; without it the values are also nearer to zero, and so finer.
    """
    dropped = 0
    for norm in find_instance_norms(model.graph):
        conv = producer(norm.source, "Conv")
        if conv is None or len(conv.inputs) < 3 or conv.inputs[2] is None:
            continue
        if not is_only_normalized(norm.source):
            continue
        conv.resize_inputs(2)
        dropped += 1
    return dropped


def is_only_normalized(value: ir.Value) -> bool:
    """Whether `value` is read by the normalisation's own operators alone, never as it is."""
    if value.is_graph_output():
        return False
    own = {"Sub", "ReduceMean", "InstanceNormalization"}
    return len(value.uses()) <= 2 and all(use.node.op_type in own for use in value.uses())
