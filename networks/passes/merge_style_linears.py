"""One Linear for all style vectors, instead of one before each normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from networks.editing import Array, NodeInserter, constant_array, replace, static_dims

_VIEWS = frozenset({"Gather", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"})


def merge_style_linears(model: ir.Model) -> int:
    """Join every Gemm of one graph input into a single Gemm and a Split.

    inswapper's 12 Gemms of 512 -> 2048 read 50 MB of weights in 12 launches too small to fill a
    GPU; joined, they are one [B, 512] x [512, 24576] product, and the Split's parts are the scales
    and shifts themselves, where each was a Slice of its own. Equal to rounding: each output element
    is the same sum.
    """
    merged = 0
    for source in list(model.graph.inputs):
        users = {use.node for use in source.uses()}
        # In the order of the graph, whatever the order in which uses are kept.
        linears = [node for node in model.graph if node in users and _is_linear(node, source)]
        if len(linears) > 1:
            _merge(source, linears)
            merged += len(linears)
    return merged


def _is_linear(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type != "Gemm" or node.inputs[0] is not source:
        return False
    attributes = node.attributes
    if attributes.get_int("transA", 0):
        return False
    if attributes.get_float("alpha", 1.0) != 1.0 or attributes.get_float("beta", 1.0) != 1.0:
        return False
    return constant_array(node.inputs[1]) is not None and _bias(node) is not None


def _weight(node: ir.Node) -> Array:
    """[outputs, inputs]."""
    weight = constant_array(node.inputs[1])
    assert weight is not None
    return weight if node.attributes.get_int("transB", 0) else weight.T


def _bias(node: ir.Node) -> Array | None:
    """[outputs]; None where it is not constant."""
    outputs = len(_weight(node))
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(outputs, _weight(node).dtype)
    bias = constant_array(node.inputs[2])
    return None if bias is None else np.broadcast_to(bias.reshape(-1), (outputs,))


def _merge(source: ir.Value, linears: list[ir.Node]) -> None:
    inserter = NodeInserter(linears[0])
    biases = [bias for node in linears if (bias := _bias(node)) is not None]
    styles = inserter.node(
        "Gemm",
        [
            source,
            inserter.constant(np.concatenate([_weight(node) for node in linears]), "weight"),
            inserter.constant(np.concatenate(biases), "bias"),
        ],
        transB=1,
    )
    leaves = [leaf for node in linears for leaf in _leaves(node)]
    lengths = np.array([leaf.length for leaf in leaves], np.int64)
    parts = inserter.nodes(
        "Split", [styles, inserter.constant(lengths, "lengths")], len(leaves), axis=1
    )
    for leaf, part in zip(leaves, parts, strict=True):
        replace(leaf.value, part if leaf.dims is None else inserter.reshape(part, -1, *leaf.dims))


@dataclass(frozen=True)
class _Leaf:
    """A value that is the elements [start, start + length) of each row of a Linear's output.

    dims: its shape without the batch; None where it is the Linear's output itself.
    """

    value: ir.Value
    start: int
    length: int
    dims: list[int] | None


def _leaves(linear: ir.Node) -> list[_Leaf]:
    """The parts that are read, in order; the whole output where they do not tile it."""
    output, length = linear.outputs[0], len(_weight(linear))
    whole = _Leaf(output, 0, length, None)
    found = list(_views(output, 0, length))
    if any(leaf is None for leaf in found):
        return [whole]
    leaves = sorted((leaf for leaf in found if leaf is not None), key=lambda leaf: leaf.start)
    ends = [0, *(leaf.start + leaf.length for leaf in leaves)]
    starts = [*(leaf.start for leaf in leaves), length]
    return leaves if starts == ends and all(leaf.dims is not None for leaf in leaves) else [whole]


def _views(value: ir.Value, start: int, length: int) -> Iterator[_Leaf | None]:
    """Follow views of `value` down to what is computed with; None where one is not understood."""
    users = {use.node for use in value.uses()}
    if value.is_graph_output() or any(node.op_type not in _VIEWS for node in users):
        shape = value.shape
        dims = None if shape is None else static_dims(value, range(1, len(shape)))
        # What is read as it is and cut up as well would be split twice.
        computed = value.is_graph_output() or all(node.op_type not in _VIEWS for node in users)
        yield _Leaf(value, start, length, dims) if dims and computed else None
        return
    for node in users:
        pieces = _pieces(node, value)
        if pieces is None:
            yield None
            continue
        for output, first, share in pieces:
            yield from _views(output, start + round(first * length), round(share * length))


def _pieces(node: ir.Node, value: ir.Value) -> list[tuple[ir.Value, float, float]] | None:
    """The node's outputs, each with where it begins and how much it is of `value`, as fractions.

    Only cuts along axis 1 keep a row's elements together.
    """
    if node.inputs[0] is not value or value.shape is None:
        return None
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
        return [(node.outputs[0], 0.0, 1.0)]
    size = (static_dims(value, (1,)) or [0])[0]
    if not size:
        return None
    if node.op_type == "Split":
        if node.attributes.get_int("axis", 0) != 1:
            return None
        sizes = [(static_dims(output, (1,)) or [0])[0] for output in node.outputs]
        starts = np.cumsum([0, *sizes])
        if starts[-1] != size:
            return None
        return [
            (output, first / size, length / size)
            for output, first, length in zip(node.outputs, starts, sizes, strict=False)
        ]
    if node.op_type == "Gather":
        index = constant_array(node.inputs[1])
        if index is None or index.ndim or node.attributes.get_int("axis", 0) != 1:
            return None
        return [(node.outputs[0], (int(index) % size) / size, 1 / size)]
    return _slice_piece(node, size)


def _slice_piece(node: ir.Node, size: int) -> list[tuple[ir.Value, float, float]] | None:
    constants = [constant_array(operand) for operand in node.inputs[1:]]
    if len(constants) < 3 or any(array is None or array.size != 1 for array in constants):
        return None
    start, end, axis, *step = (
        int(array.reshape(-1)[0]) for array in constants if array is not None
    )
    if axis != 1 or step not in ([], [1]):
        return None
    first, last, _ = slice(start, end).indices(size)
    return [(node.outputs[0], first / size, (last - first) / size)]
