"""Batch-dimension surgery: a network exported for one image becomes one for any number of images.

Published networks are exported with batch 1, and the 1 is baked in everywhere: input and output
shapes, Reshape targets, Resize sizes, shape arithmetic that the exporter froze. `with_free_batch`
follows the batch axis from the inputs through every node (`networks.batch_rules` has a rule per
operator), rewrites what depends on the 1, and refuses, naming the node, where it cannot. The
result equals single runs row by row; nothing else about the network changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from graphs.contract import DETECTOR_SIZE
from networks.batch_axes import BatchAxis, BatchTracker
from networks.batch_rules import RULES
from networks.editing import add_initializer, constant_array
from networks.opset import to_project_opset

BATCH = "B"

_LARGEST_FOLD = 4096
"""Elements; shape arithmetic is far smaller, weights are far larger."""


def with_free_batch(
    network: onnx.ModelProto, *, image_size: int = DETECTOR_SIZE
) -> onnx.ModelProto:
    """`network` with its batch axis free, in this project's opset.

    Args:
        network: first axis of every input is the batch, of size 1 or free. Unknown heights and
            widths of a 4-axis input become `image_size`, so that shape arithmetic can be folded.
            The argument is not changed.
        image_size: side of an image whose size the network leaves open.

    Returns:
        The same inputs and outputs by name, first axis "B", other axes fixed. An output without a
        batch axis of its own (det_10g's [12800, 1]) becomes [B, 12800, 1]. A network that is
        already free comes back with the same meaning. Initializers that no node reads stay, in
        their order, last (inswapper keeps its emap so).

    Raises:
        ValueError: an axis other than the batch is unknown, or a node mixes images of a batch in
            a way that has no rule; the sentence names the node.
    """
    model = ir.from_proto(_without_stale_shapes(to_project_opset(network)))
    common_passes.RemoveInitializersFromInputsPass()(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _set_input_shapes(model.graph, image_size)
    _infer_shapes(model)
    while _fold_constants(model.graph):
        _infer_shapes(model)
    common_passes.RemoveUnusedNodesPass()(model)
    tracker = BatchTracker(RULES)
    for value in model.graph.inputs:
        tracker.axes[value] = BatchAxis(0)
    for node in list(model.graph):
        tracker.visit(node)
    _set_output_shapes(model.graph, tracker)
    _free_input_axes(model.graph)
    common_passes.RemoveUnusedNodesPass()(model)
    free = ir.to_proto(model)
    free.graph.initializer.extend(_unread_initializers(network))
    return free


def freed(network: onnx.ModelProto, *, image_size: int = DETECTOR_SIZE) -> onnx.ModelProto:
    """`with_free_batch` of a published network; one that was written here free stays as it is."""
    batch = network.graph.input[0].type.tensor_type.shape.dim[0]
    if network.producer_name == "frameswap" and batch.HasField("dim_param"):
        return network
    return with_free_batch(network, image_size=image_size)


def row_shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Shape of one row of a network's input or output: without its first axis, the batch.

    An axis that is not fixed is its name, "" where it has none.
    """
    dims = value.type.tensor_type.shape.dim[1:]
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims]


def _unread_initializers(network: onnx.ModelProto) -> list[onnx.TensorProto]:
    read = {name for node in network.graph.node for name in node.input}
    read |= {output.name for output in network.graph.output}
    inside = any(a.HasField("g") for node in network.graph.node for a in node.attribute)
    # A body reads outer names too; networks with one have no rule here, and are refused elsewhere.
    if inside:
        return []
    return [tensor for tensor in network.graph.initializer if tensor.name not in read]


def _without_stale_shapes(network: onnx.ModelProto) -> onnx.ModelProto:
    """A shallow copy without intermediate shapes (they say batch 1) and without output shapes."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(network)
    del fresh.graph.value_info[:]
    for output in fresh.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fresh


def _set_input_shapes(graph: ir.Graph, image_size: int) -> None:
    """Write the shapes for one image into the inputs; the analysis runs on these."""
    for value in graph.inputs:
        if value.shape is None or len(value.shape) == 0:
            raise ValueError(f"input {value.name} has no batch axis: its shape is {value.shape}")
        dims: list[int] = [1]
        first = value.shape[0]
        if isinstance(first, int) and first != 1:
            raise ValueError(
                f"input {value.name} was exported for a batch of {first}; export it for 1"
            )
        for axis, dim in enumerate(value.shape[1:], start=1):
            if isinstance(dim, int) and dim > 0:
                dims.append(dim)
            elif len(value.shape) == 4 and axis >= 2:
                dims.append(image_size)
            else:
                raise ValueError(f"input {value.name} leaves axis {axis} open: {value.shape}")
        value.shape = ir.Shape(dims)


def _infer_shapes(model: ir.Model) -> None:
    common_passes.ShapeInferencePass(data_prop=True)(model)


def _fold_constants(graph: ir.Graph) -> bool:
    """Compute, once, what depends on fixed shapes and small constants; True if anything was."""
    folded = False
    for node in list(graph):
        result = _folded(node)
        if result is None:
            continue
        folded = True
        for old, array in zip(node.outputs, result, strict=True):
            fresh = add_initializer(graph, f"{old.name}/folded", array)
            old.replace_all_uses_with(fresh, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    return folded


def _folded(node: ir.Node) -> Sequence[NDArray[np.generic]] | None:
    """The node's outputs, where they follow from shapes and constants alone; else None."""
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return None
    if node.op_type == "Shape":
        source = node.inputs[0]
        if source is None or source.shape is None or not source.shape.is_static():
            return None
        first = node.attributes.get_int("start", 0)
        last = node.attributes.get_int("end", len(source.shape))
        return [np.array(source.shape.numpy()[first:last], np.int64)]
    arrays = {str(value.name): constant_array(value) for value in node.inputs if value is not None}
    sizes = [math.inf if array is None else array.size for array in arrays.values()]
    # Random operators have no inputs; nothing else without inputs is left after constant lifting.
    if not sizes or max(sizes) > _LARGEST_FOLD:
        return None
    if node.op_type == "ConstantOfShape":
        shape = next(iter(arrays.values()))
        if shape is None or math.prod(shape.tolist()) > _LARGEST_FOLD:
            return None
    results = ReferenceEvaluator(ir.to_proto(node)).run(None, arrays)
    return [np.asarray(result) for result in results]


def _set_output_shapes(graph: ir.Graph, tracker: BatchTracker) -> None:
    """Give every output its batch axis, first."""
    for value in graph.outputs:
        axis = tracker.axes.get(value)
        if axis is None:
            raise ValueError(f"output {value.name} does not depend on any input")
        if axis.position != 0:
            raise ValueError(
                f"output {value.name} has its batch at axis {axis.position}, expected axis 0"
            )
        dims = tracker.static_shape(value)
        rest = dims if axis.lifted else dims[1:]
        value.shape = ir.Shape([BATCH, *rest])


def _free_input_axes(graph: ir.Graph) -> None:
    """Name the batch axis of every input, and forget the shapes that were inferred for one."""
    for value in graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape([BATCH, *value.shape[1:]])
    keep = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        for value in node.outputs:
            if id(value) not in keep:
                value.shape = None
