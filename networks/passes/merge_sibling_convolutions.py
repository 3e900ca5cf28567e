"""One convolution for all that read the same feature map, instead of one a head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from networks.editing import NodeInserter, attribute_values, replace
from networks.passes.rewriting import (
    convolution_bias,
    convolution_weight,
    depthwise_behind,
    is_constant_convolution,
)


def merge_sibling_convolutions(model: ir.Model) -> int:
    """Join convolutions of one value, and depthwise ones behind them, and split the result.

    A detector's heads read each feature map several times for one to ten channels each: YuNet 12
    times, with a pointwise and a depthwise convolution a head. Joined, the map is read once, and
    there are enough channels for a vector of a CPU. Each output channel is the same sum.
    """
    merged = 0
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    # In the order of the graph, whatever the order in which uses are kept.
    place = {node: index for index, node in enumerate(model.graph)}
    for value in values:
        kinds: dict[object, list[ir.Node]] = {}
        # What a loop's or a branch's body reads stays as it is.
        readers = {use.node for use in value.uses()} & place.keys()
        for node in sorted(readers, key=place.__getitem__):
            if _is_plain(node, value):
                kinds.setdefault(_kind(node), []).append(node)
        for siblings in kinds.values():
            if len(siblings) > 1:
                merged += _merge(value, siblings)
    return merged


def _is_plain(node: ir.Node, value: ir.Value) -> bool:
    """Whether it is a dense convolution of `value` with constant weights."""
    is_of_value = is_constant_convolution(node) and node.inputs[0] is value
    return is_of_value and node.attributes.get_int("group", 1) == 1


def _kind(node: ir.Node) -> object:
    """What siblings must have in common: all but the number of channels."""
    attributes = {
        name: tuple(value) if isinstance(value := attribute.value, Sequence) else value
        for name, attribute in node.attributes.items()
        # the weight's own shape says what `kernel_shape` may say too
        if name not in ("group", "kernel_shape")
    }
    return tuple(sorted(attributes.items())), convolution_weight(node).shape[1:]


def _depthwise_behind(siblings: Sequence[ir.Node]) -> list[ir.Node]:
    """The depthwise convolutions that alone read each sibling, if that is so and they are alike."""
    found = [user for node in siblings if (user := depthwise_behind(node)) is not None]
    alike = len({_kind(node) for node in found}) == 1
    return found if alike and len(found) == len(siblings) else []


def _merge(value: ir.Value, siblings: list[ir.Node]) -> int:
    inserter = NodeInserter(siblings[0])
    joined, merged = _join(inserter, value, siblings, depthwise=False), len(siblings)
    while behind := _depthwise_behind(siblings):
        siblings = behind
        joined = _join(inserter, joined, siblings, depthwise=True)
        merged += len(siblings)
    sizes = np.array([len(convolution_weight(node)) for node in siblings], np.int64)
    parts = inserter.nodes(
        "Split", [joined, inserter.constant(sizes, "channels")], len(siblings), axis=1
    )
    for node, part in zip(siblings, parts, strict=True):
        replace(node.outputs[0], part)
    return merged


def _join(
    inserter: NodeInserter, value: ir.Value, siblings: Sequence[ir.Node], *, depthwise: bool
) -> ir.Value:
    weight = np.concatenate([convolution_weight(node) for node in siblings])
    bias = np.concatenate([convolution_bias(node) for node in siblings])
    attributes = attribute_values(siblings[0])
    attributes["group"] = len(weight) if depthwise else 1
    operands = [inserter.constant(weight, "weight"), inserter.constant(bias, "bias")]
    return inserter.node("Conv", [value, *operands], **attributes)
