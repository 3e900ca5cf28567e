"""No shift for a map that a normalised convolution reads: the mean takes it away again."""

from __future__ import annotations

import onnx_ir as ir

from graphs.passes.rewriting import (
    NodeInserter,
    constant_array,
    find_instance_norms,
    only_user,
    producer,
    rank,
    replace,
    static_dims,
)


def drop_cancelled_shifts(model: ir.Model) -> int:
    """Leave out every AdaIN shift that the next normalisation cancels; add the rest up.

    A number added to all pixels of a channel survives a reflected pad, and a convolution without
    zero padding turns it into a number a channel, which an instance normalisation removes. So,
    with s a shift [B or 1, C, 1, 1] and u, x maps:

        relu(u + s) before such a convolution becomes max(u, -s), which differs from it by s;
        (x + s1) + (u + s2) becomes (x + u) + (s1 + s2), and such a convolution reads x + u alone.

    inswapper's residual stream then carries no shift through its six blocks: one sum of six small
    vectors is added behind the last. Eleven passes over a map less, for runs where each is a kernel
    of its own. Equal to rounding; values stay as large as they were, up to a shift.
    """
    model.graph.sort()
    cancelling = _cancelling_convolutions(model.graph)
    rewritten = 0
    for node in list(model.graph):
        if node.op_type == "Relu":
            rewritten += _cut_off(node, cancelling)
        elif node.op_type == "Add":
            rewritten += _collect(node)
    for conv in cancelling:
        rewritten += _read_unshifted(conv)
    return rewritten


def _cancelling_convolutions(graph: ir.Graph) -> list[ir.Node]:
    """Each Conv that only a normalisation reads and that pads with no zeros of its own."""
    found = []
    for norm in find_instance_norms(graph):
        conv = producer(norm.source, "Conv")
        readers = {use.node.op_type for use in norm.source.uses()}
        if conv is None or not readers <= {"Sub", "ReduceMean", "InstanceNormalization"}:
            continue
        padded = any(conv.attributes.get_ints("pads", []))
        automatic = conv.attributes.get_string("auto_pad", "NOTSET")
        if not padded and automatic in ("NOTSET", "VALID"):
            found.append(conv)
    return found


def _top(conv: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The convolution, or the reflected pad before it, and what that reads."""
    pad = producer(conv.inputs[0], "Pad")
    if pad is not None and pad.attributes.get_string("mode", "constant") == "reflect":
        amounts = constant_array(pad.inputs[1])
        # Reflected channels would carry another channel's shift.
        if amounts is not None and len(amounts) == 8 and not amounts[[0, 1, 4, 5]].any():
            return (pad, pad.inputs[0]) if only_user(pad.outputs[0]) is conv else (conv, None)
    return conv, conv.inputs[0]


def _shifted(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """m and s where `value` is m + s, s a number a channel."""
    node = producer(value, "Add")
    if node is None or value is None:
        return None
    for base, shift in (node.inputs, node.inputs[::-1]):
        if base is not None and shift is not None and _is_shift(shift, value):
            return base, shift
    return None


def _is_shift(shift: ir.Value, result: ir.Value) -> bool:
    if rank(shift) != 4 or rank(result) != 4:
        return False
    sizes, pixels = static_dims(shift, (1, 2, 3)), static_dims(result, (1, 2, 3))
    return sizes is not None and pixels is not None and sizes == [pixels[0], 1, 1]


def _cut_off(relu: ir.Node, cancelling: list[ir.Node]) -> int:
    """relu(u + s) that one such convolution reads becomes max(u, -s)."""
    parts = _shifted(relu.inputs[0])
    if parts is None:
        return 0
    conv = next((c for c in cancelling if _top(c)[1] is relu.outputs[0]), None)
    if conv is None or only_user(relu.outputs[0]) is not _top(conv)[0]:
        return 0
    base, shift = parts
    inserter = NodeInserter(relu)
    floor = inserter.node("Neg", [shift])
    floor.shape = shift.shape
    cut = inserter.node("Max", [base, floor])
    cut.shape = relu.outputs[0].shape
    replace(relu.outputs[0], cut)
    return 1


def _collect(add: ir.Node) -> int:
    """(x + s1) + (u + s2) becomes (x + u) + (s1 + s2)."""
    result = add.outputs[0]
    if _shifted(result) is not None:
        return 0
    parts = [_shifted(value) for value in add.inputs]
    shifts = [part[1] for part in parts if part is not None]
    bases = [part[0] if part else value for part, value in zip(parts, add.inputs, strict=True)]
    dims = static_dims(result, (1, 2, 3))
    whole = all(base is not None and static_dims(base, (1, 2, 3)) == dims for base in bases)
    if not shifts or dims is None or not whole:
        return 0
    inserter = NodeInserter(add)
    total = shifts[0]
    for shift in shifts[1:]:
        shape = total.shape
        total = inserter.node("Add", [total, shift])
        total.shape = shape
    unshifted = inserter.node("Add", bases)
    unshifted.shape = result.shape
    shifted = inserter.node("Add", [unshifted, total])
    shifted.shape = result.shape
    replace(result, shifted)
    return 1


def _read_unshifted(conv: ir.Node) -> int:
    """A convolution of m + s whose normalisation removes what becomes of s reads m."""
    reader, value = _top(conv)
    parts = _shifted(value)
    if parts is None:
        return 0
    reader.replace_input_with(0, parts[0])
    return 1
