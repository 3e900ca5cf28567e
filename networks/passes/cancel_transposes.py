"""Transposes between channels first and channels last, moved until they meet and cancel."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from networks.editing import NodeInserter, rank, replace, scalar
from networks.passes.rewriting import TO_CHANNELS_FIRST, TO_CHANNELS_LAST

_ELEMENTWISE = frozenset({"Add", "LeakyRelu", "Max", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"})


def cancel_transposes(model: ir.Model) -> int:
    """Move each transpose to channels first behind the elementwise operators that follow it.

    Where it meets one to channels last, both go. Exact: only the order of storage changes. An
    operand that is still channels first is transposed where it joins a moved one, so that a
    residual stream stays channels last from its first addition on.
    """
    moved = 0
    progress = True
    while progress:
        progress = False
        for node in list(model.graph):
            if _cancel(node) or _move_behind(node):
                moved += 1
                progress = True
        common_passes.RemoveUnusedNodesPass()(model)
    common_passes.CommonSubexpressionEliminationPass()(model)
    return moved


def _before(value: ir.Value | None, permutation: tuple[int, ...]) -> ir.Value | None:
    """What was transposed by `permutation` to make `value`; None if nothing was."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Transpose":
        return None
    if tuple(node.attributes.get_ints("perm", [])) != permutation:
        return None
    return node.inputs[0]


def _cancel(node: ir.Node) -> bool:
    if node.op_type != "Transpose" or not node.outputs[0].uses():
        return False
    if tuple(node.attributes.get_ints("perm", [])) != TO_CHANNELS_LAST:
        return False
    source = _before(node.inputs[0], TO_CHANNELS_FIRST)
    if source is None:
        return False
    replace(node.outputs[0], source)
    return True


def _move_behind(node: ir.Node) -> bool:
    """f(T(x), y) as T(f(x, T'(y)))."""
    if node.op_type not in _ELEMENTWISE or not node.outputs[0].uses():
        return False
    sources = [_before(value, TO_CHANNELS_FIRST) for value in node.inputs]
    if all(source is None for source in sources):
        return False
    result = node.outputs[0]
    for value, source in zip(node.inputs, sources, strict=True):
        if source is None and scalar(value) is None and (value is None or rank(value) != 4):
            return False
    inserter = NodeInserter(node)
    operands = list(sources)
    for index, value in enumerate(node.inputs):
        if operands[index] is None and value is not None:
            joins = rank(value) == 4 and scalar(value) is None
            operands[index] = inserter.transpose(value, TO_CHANNELS_LAST) if joins else value
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    last = inserter.node(node.op_type, operands, **attributes)
    first = inserter.transpose(last, TO_CHANNELS_FIRST)
    first.shape = result.shape
    replace(result, first)
    return True
