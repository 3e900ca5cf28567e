"""How each ONNX operator treats the batch axis: the rules that `networks.batch_axes` follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir

from networks.batch_axes import (
    BatchAxis,
    BatchTracker,
    Rule,
    constant_input,
    count_from_front,
    refusal,
    set_constant_input,
)
from networks.editing import constant_array


def _set_axes(node: ir.Node, axes: list[int]) -> None:
    """Write the axes of a Squeeze, Unsqueeze or Reduce; without any left, it does nothing."""
    if not axes:
        # An empty list would mean every axis.
        node.op_type = "Identity"
        node.attributes.clear()
        node.resize_inputs(1)
        return
    if len(node.inputs) == 1:
        node.resize_inputs(2)
    set_constant_input(node, 1, np.array(axes, np.int64))


def _broadcast(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """Elementwise operators of any arity: axes are aligned from the right."""
    rank = max(len(tracker.static_shape(v)) for v in node.inputs if v is not None)
    positions: set[int] = set()
    lifted: set[bool] = set()
    for value in node.inputs:
        if value is None or value not in tracker.axes:
            continue
        axis = tracker.axes[value]
        lifted.add(axis.lifted)
        own_rank = len(tracker.static_shape(value))
        if axis.lifted and own_rank != rank:
            raise refusal(node, "it broadcasts a value whose batch axis was folded away")
        positions.add(0 if axis.lifted else axis.position + rank - own_rank)
    if len(positions) != 1 or len(lifted) != 1:
        raise refusal(node, "its inputs have their batch at different axes")
    axis = BatchAxis(positions.pop(), lifted.pop())
    if not axis.lifted and tracker.static_shape(node.outputs[0])[axis.position] != 1:
        raise refusal(node, "it broadcasts along the batch axis")
    return axis


def _leading(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """Convolutions, pooling and their like: [N, C, ...] in and out, constant weights."""
    if tracker.plain_axis(node) != 0:
        raise refusal(node, "the batch is not its first axis")
    if any(value in tracker.axes for value in node.inputs[1:] if value is not None):
        raise refusal(node, "its weights depend on the input, so each image has its own")
    return BatchAxis(0)


def _grid_sample(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    if tracker.plain_axis(node, 0) != 0 or tracker.plain_axis(node, 1) != 0:
        raise refusal(node, "the batch is not its first axis")
    return BatchAxis(0)


def _resize(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """Sizes name the batch; scales of 1 do not. Exact ratios become scales, else axes are named."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if tracker.plain_axis(node) != 0:
        raise refusal(node, "the batch is not its first axis")
    for index, value in enumerate(node.inputs[1:3], start=1):
        # Exporters write "no region" and "no scales" as empty tensors; compilers warn about those.
        array = constant_array(value)
        if array is not None and not array.size:
            node.replace_input_with(index, None)
    if sizes is None or "axes" in node.attributes:
        return BatchAxis(0)
    shape = tracker.static_shape(node.inputs[0])
    target = [int(size) for size in constant_input(node, 3, "sizes")]
    ratios = [size / dim for size, dim in zip(target, shape, strict=True)]
    if all(math.log2(ratio).is_integer() for ratio in ratios):
        node.replace_input_with(3, None)
        set_constant_input(node, 2, np.array(ratios, np.float32))
        return BatchAxis(0)
    changed = list(range(1, len(shape)))
    node.attributes["axes"] = ir.AttrInt64s("axes", changed)
    set_constant_input(node, 3, np.array([target[axis] for axis in changed], np.int64))
    return BatchAxis(0)


def _matmul(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    ranks = [len(tracker.static_shape(value)) for value in node.inputs]
    positions: set[int] = set()
    for index, (value, rank) in enumerate(zip(node.inputs, ranks, strict=True)):
        if value not in tracker.axes:
            continue
        position = tracker.plain_axis(node, index)
        contracted = rank - 1 if index == 0 else max(rank - 2, 0)
        if position == contracted or (index == 1 and position == rank - 1):
            raise refusal(node, "it sums over the batch")
        positions.add(position + max(ranks) - rank)
    if len(positions) != 1:
        raise refusal(node, "its inputs have their batch at different axes")
    (position,) = positions
    if position == max(ranks) - 2 and all(value in tracker.axes for value in node.inputs):
        raise refusal(node, "it multiplies rows of different images")
    return BatchAxis(position)


def _gemm(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    if node.attributes.get_int("transA", 0) or tracker.plain_axis(node) != 0:
        raise refusal(node, "the batch is not the rows of its first input")
    if any(value in tracker.axes for value in node.inputs[1:] if value is not None):
        raise refusal(node, "its weights depend on the input")
    return BatchAxis(0)


def _transpose(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    assert node.inputs[0] is not None
    rank = len(tracker.static_shape(node.inputs[0]))
    permutation = node.attributes.get_ints("perm", list(reversed(range(rank))))
    axis = tracker.axes[node.inputs[0]]
    if axis.lifted:
        node.attributes["perm"] = ir.AttrInt64s("perm", [0, *(p + 1 for p in permutation)])
        return axis
    return BatchAxis(list(permutation).index(axis.position))


def _reshape(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """Any Reshape: one axis of size 1 is the batch again, or the batch is put in front."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    axis = tracker.axes[source]
    before, after = tracker.static_shape(source), tracker.static_shape(result)
    node.attributes.pop("allowzero", None)
    lead = 1 if axis.lifted else math.prod(before[: axis.position])
    places = [i for i, dim in enumerate(after) if dim == 1 and math.prod(after[:i]) == lead]
    if places:
        # Several axes of size 1 can stand at the same place; keep the position where one does.
        place = axis.position if axis.position in places else places[0]
        target = [-1 if i == place else dim for i, dim in enumerate(after)]
        set_constant_input(node, 1, np.array(target, np.int64))
        return BatchAxis(place)
    if not axis.lifted and axis.position != 0:
        order = [axis.position, *(i for i in range(len(before)) if i != axis.position)]
        moved = ir.node("Transpose", [source], {"perm": order}, name=f"{node.name}/batch_first")
        moved.outputs[0].name = f"{result.name}/batch_first"
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_before(node, moved)
        node.replace_input_with(0, moved.outputs[0])
    set_constant_input(node, 1, np.array([-1, *after], np.int64))
    return BatchAxis(0, lifted=True)


def _flatten(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    rank = len(tracker.static_shape(node.inputs[0]))
    axis = count_from_front(node.attributes.get_int("axis", 1), rank)
    if tracker.plain_axis(node) != 0 or axis > 1:
        raise refusal(node, "it would merge the batch with another axis")
    # Axis 0 gives one row for one image; axis 1 says the same and keeps rows apart.
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    return BatchAxis(0)


def _squeeze(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    source = node.inputs[0]
    shape, position = tracker.static_shape(source), tracker.plain_axis(node)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = [int(a) for a in constant_input(node, 1, "axes").reshape(-1)]
        axes = [count_from_front(axis, len(shape)) for axis in given]
    else:
        axes = [i for i, dim in enumerate(shape) if dim == 1]
    lifted = position in axes
    if lifted and position != 0:
        raise refusal(node, "it removes a batch that is not the first axis")
    kept = [axis for axis in axes if axis != position]
    _set_axes(node, kept)
    if lifted:
        return BatchAxis(0, lifted=True)
    return BatchAxis(position - sum(axis < position for axis in kept))


def _unsqueeze(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    rank = len(tracker.static_shape(node.outputs[0]))
    given = [int(a) for a in constant_input(node, 1, "axes").reshape(-1)]
    added = sorted(count_from_front(axis, rank) for axis in given)
    assert node.inputs[0] is not None
    axis = tracker.axes[node.inputs[0]]
    if axis.lifted:
        if added[0] == 0:
            # The axis that comes back is the batch's own; the others are added as they stand.
            _set_axes(node, added[1:])
            return BatchAxis(0)
        _set_axes(node, [a + 1 for a in added])
        return axis
    kept = [i for i in range(rank) if i not in added]
    return BatchAxis(kept[axis.position])


def _along_axis(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """Operators that work along one axis, which must not be the batch."""
    default = {"Split": 0, "Gather": 0, "Concat": 0, "ArgMax": 0, "ArgMin": 0, "TopK": -1}
    axis = node.attributes.get_int("axis", default.get(node.op_type, -1))
    rank = len(tracker.static_shape(node.inputs[0]))
    position = tracker.plain_axis(node)
    axis = count_from_front(axis, rank)
    if axis == position:
        raise refusal(node, "it works along the batch axis")
    if node.op_type in ("ArgMax", "ArgMin") and not node.attributes.get_int("keepdims", 1):
        return BatchAxis(position - (axis < position))
    if node.op_type == "LayerNormalization" and axis < position:
        raise refusal(node, "it normalises over the batch axis")
    return BatchAxis(position)


def _gather(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    if node.inputs[1] in tracker.axes:
        raise refusal(node, "its indices depend on the input")
    rank = len(tracker.static_shape(node.inputs[0]))
    axis = count_from_front(node.attributes.get_int("axis", 0), rank)
    position = tracker.plain_axis(node)
    if axis == position:
        raise refusal(node, "it picks one image of the batch")
    index_rank = len(tracker.static_shape(node.inputs[1]))
    return BatchAxis(position if position < axis else position - 1 + index_rank)


def _concat(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    axes = [tracker.axes.get(value) for value in node.inputs if value is not None]
    first = axes[0]
    if first is None or any(axis != first for axis in axes):
        raise refusal(node, "its inputs do not all have the batch at the same axis")
    assert node.inputs[0] is not None
    rank = len(tracker.static_shape(node.inputs[0]))
    axis = count_from_front(node.attributes.get_int("axis", 0), rank)
    if first.lifted:
        node.attributes["axis"] = ir.AttrInt64("axis", axis + 1)
    elif axis == first.position:
        raise refusal(node, "it joins along the batch axis")
    return first


def _reduce(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    shape, position = tracker.static_shape(node.inputs[0]), tracker.plain_axis(node)
    keep = bool(node.attributes.get_int("keepdims", 1))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = [count_from_front(int(a), len(shape)) for a in constant_input(node, 1, "axes")]
    elif node.attributes.get_int("noop_with_empty_axes", 0):
        return BatchAxis(position)
    elif keep:
        # A norm "over everything" of one image: over everything but the batch of many.
        axes = [axis for axis in range(len(shape)) if axis != position]
        _set_axes(node, axes)
    else:
        raise refusal(node, "it reduces the whole batch to one value")
    if position in axes:
        raise refusal(node, "it reduces over the batch axis")
    return BatchAxis(position if keep else position - sum(axis < position for axis in axes))


def _slice(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    rank, position = len(tracker.static_shape(node.inputs[0])), tracker.plain_axis(node)
    starts = constant_input(node, 1, "starts")
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = [count_from_front(int(a), rank) for a in constant_input(node, 3, "axes")]
    else:
        axes = list(range(len(starts)))
    if position in axes:
        ends = constant_input(node, 2, "ends").copy()
        which = axes.index(position)
        if starts[which] != 0 or ends[which] < 1:
            raise refusal(node, "it cuts the batch axis")
        ends[which] = np.iinfo(ends.dtype).max
        set_constant_input(node, 2, ends)
    return BatchAxis(position)


def _pad(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    rank, position = len(tracker.static_shape(node.inputs[0])), tracker.plain_axis(node)
    pads = constant_input(node, 1, "pads")
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = [count_from_front(int(a), rank) for a in constant_input(node, 3, "axes")]
    else:
        axes = list(range(rank))
    if position in axes:
        which = axes.index(position)
        if pads[which] or pads[which + len(axes)]:
            raise refusal(node, "it pads the batch axis")
    return BatchAxis(position)


def _tile(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    position = tracker.plain_axis(node)
    if int(constant_input(node, 1, "repeats")[position]) != 1:
        raise refusal(node, "it repeats the batch axis")
    return BatchAxis(position)


def _expand(tracker: BatchTracker, node: ir.Node) -> BatchAxis:
    """A 1 in the target leaves the batch as it is, so only growth has to be refused."""
    rank = len(tracker.static_shape(node.inputs[0]))
    after = tracker.static_shape(node.outputs[0])
    position = tracker.plain_axis(node) + len(after) - rank
    constant_input(node, 1, "shape")
    if after[position] != 1:
        raise refusal(node, "it repeats the batch axis")
    return BatchAxis(position)


# fmt: off
_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf",
    "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
    "ThresholdedRelu", "Where", "Xor", "QuantizeLinear", "DequantizeLinear",
)
_ALONG_AXIS = (
    "ArgMax", "ArgMin", "Hardmax", "LayerNormalization", "LogSoftmax", "LpNormalization",
    "Softmax", "Split", "TopK",
)
_LEADING = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN",
    "MaxPool", "SpaceToDepth",
)
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **dict.fromkeys(_ELEMENTWISE, _broadcast),
        **dict.fromkeys(_LEADING, _leading),
        **dict.fromkeys(_REDUCTIONS, _reduce),
        **dict.fromkeys(_ALONG_AXIS, _along_axis),
        "Concat": _concat,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "Gemm": _gemm,
        "GridSample": _grid_sample,
        "MatMul": _matmul,
        "Pad": _pad,
        "Reshape": _reshape,
        "Resize": _resize,
        "Slice": _slice,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
"""The rule of every operator that has one."""
