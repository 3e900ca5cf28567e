"""Shape arithmetic: the exact shape of every tensor of a graph for given input shapes.

A graph that compiles may still overflow at its profile's maximum: TensorRT counts the elements of
a tensor in 31 bits. So each node's output shapes are worked out with numbers, not symbols, through
`Loop` and `If` bodies; integers that shapes are made of (Shape, Gather, Concat, Range...) are
computed by ONNX's reference evaluator on the way.

Source: ONNX operator specifications, through onnx.shape_inference.infer_node_outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from engines.errors import ProfileError

Shape = tuple[int, ...]

MAX_ELEMENTS = 2**31 - 1
"""Most elements of one tensor. Source: TensorRT's documentation of Dims, "volume"."""

# Larger constants are weights or lookup tables: no shape is computed from them.
_LARGEST_VALUE = 4096

_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"}


@dataclass(frozen=True)
class Tensor:
    """One tensor: where it comes from, its shape and ONNX element type, its value if computed."""

    name: str
    node: str
    operator: str
    shape: Shape
    element_type: int
    value: np.ndarray | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        bits = 4 if self.element_type in _FOUR_BITS else 8 * _item_size(self.element_type)
        return -(-self.elements * bits // 8)


_FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1}


def _item_size(element_type: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(element_type).itemsize)


@dataclass(frozen=True)
class GraphShapes:
    """Every tensor that the nodes make, bodies included, and what they need at once.

    tensors: in execution order; a body's tensors follow their node's predecessors.
    peak_bytes: most bytes of tensors alive at one time when nothing is fused and every tensor has
        its own memory: what to plan with where the compiler says nothing. Inputs and weights are
        not in it.
    weight_bytes: all initializers and constants.
    """

    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    peak_bytes: int
    weight_bytes: int

    @property
    def largest(self) -> Tensor:
        return max(self.tensors, key=lambda tensor: tensor.elements)

    @property
    def io_bytes(self) -> int:
        return sum(tensor.bytes for tensor in (*self.inputs, *self.outputs))


def infer_shapes(model: onnx.ModelProto, input_shapes: Mapping[str, Shape]) -> GraphShapes:
    """Work out every tensor of `model` for inputs of `input_shapes`.

    Raises:
        ProfileError: an input is missing, or a shape depends on data: the message names the node.
    """
    graph = model.graph
    names = {value.name for value in graph.input}
    if names != set(input_shapes):
        raise ProfileError(
            f"shapes were given for the inputs {sorted(input_shapes)}, "
            f"the graph has {sorted(names)}"
        )
    walk = _Walk({entry.domain: entry.version for entry in model.opset_import})
    inputs = [
        Tensor(value.name, "", "input", input_shapes[value.name], value.type.tensor_type.elem_type)
        for value in graph.input
    ]
    outer = {tensor.name: tensor for tensor in inputs}
    found, peak = walk.graph(graph, outer)
    outputs = tuple(found[value.name] for value in graph.output)
    return GraphShapes(tuple(walk.made), tuple(inputs), outputs, peak, walk.weight_bytes)


def check_elements(model: onnx.ModelProto, input_shapes: Mapping[str, Shape]) -> GraphShapes:
    """`infer_shapes`, refused when a tensor passes `MAX_ELEMENTS`.

    Raises:
        ProfileError: the message names the tensor, its node and its shape.
    """
    shapes = infer_shapes(model, input_shapes)
    largest = max((*shapes.tensors, *shapes.inputs), key=lambda tensor: tensor.elements)
    if largest.elements > MAX_ELEMENTS:
        raise ProfileError(
            f"at the profile's maximum the tensor {largest.name!r} of node {largest.node!r} "
            f"({largest.operator}) has {largest.elements} elements {list(largest.shape)}, more "
            f"than the {MAX_ELEMENTS} that TensorRT can count: lower the largest batch, number of "
            f"faces or frame size"
        )
    return shapes


class _Walk:
    """One pass over a graph and its bodies."""

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self.made: list[Tensor] = []
        self.weight_bytes = 0
        self._opsets = dict(opsets)
        self._imports = [helper.make_opsetid(*entry) for entry in opsets.items()]

    def graph(
        self, graph: onnx.GraphProto, outer: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], int]:
        """Every tensor visible at the end of `graph`, and the peak bytes of its own tensors."""
        found = dict(outer)
        for initializer in graph.initializer:
            found[initializer.name] = self._constant(initializer.name, initializer)
        last_use = _last_uses(graph)
        alive: dict[str, int] = {}
        peak = 0
        for index, node in enumerate(graph.node):
            outputs, inside = self._node(node, found)
            for tensor in outputs:
                found[tensor.name] = tensor
                if node.op_type != "Constant":
                    self.made.append(tensor)
                    alive[tensor.name] = tensor.bytes
            peak = max(peak, sum(alive.values()) + inside)
            for name in [name for name in alive if last_use.get(name, index) <= index]:
                del alive[name]
        return found, peak

    def _constant(self, name: str, tensor: TensorProto) -> Tensor:
        shape = tuple(tensor.dims)
        small = prod(shape) <= _LARGEST_VALUE
        value = numpy_helper.to_array(tensor) if small else None
        made = Tensor(name, name, "constant", shape, tensor.data_type, value)
        self.weight_bytes += made.bytes
        return made

    def _node(self, node: onnx.NodeProto, found: Mapping[str, Tensor]) -> tuple[list[Tensor], int]:
        """The outputs of `node`, and the peak bytes inside its bodies."""
        if node.op_type == "If":
            return self._if(node, found)
        if node.op_type == "Loop":
            return self._loop(node, found)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            return [self._constant(node.output[0], node.attribute[0].t)], 0
        inputs = [found[name] for name in node.input if name]
        types = self._infer(node, inputs)
        values = self._compute(node, inputs, types)
        outputs = []
        for position, name in enumerate(node.output):
            if name:
                value = values[position] if values else None
                outputs.append(_made(node, name, types.get(name), value))
        return outputs, 0

    def _infer(self, node: onnx.NodeProto, inputs: Sequence[Tensor]) -> dict[str, TypeProto]:
        try:
            schema = defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
            data = {
                tensor.name: numpy_helper.from_array(np.asarray(tensor.value), tensor.name)
                for tensor in inputs
                if tensor.value is not None
            }
            types = {tensor.name: _type(tensor) for tensor in inputs}
            inferred: dict[str, TypeProto] = infer_node_outputs(
                schema, node, types, data, opset_imports=self._imports
            )
        except (InferenceError, defs.SchemaError) as error:
            reason = " ".join(str(error).split())
            raise ProfileError(
                f"node {node.name!r} ({node.op_type}) cannot take its inputs "
                f"{[list(tensor.shape) for tensor in inputs]}: {reason}"
            ) from None
        return inferred

    def _compute(
        self,
        node: onnx.NodeProto,
        inputs: Sequence[Tensor],
        types: Mapping[str, TypeProto],
    ) -> list[np.ndarray] | None:
        """The outputs' values when all inputs' are known and the outputs are small."""
        if node.op_type == "Shape":
            start, end = (_integer(node, name) for name in ("start", "end"))
            return [np.array(inputs[0].shape[slice(start, end)], np.int64)]
        if node.op_type == "Size":
            return [np.array(inputs[0].elements, np.int64)]
        if node.op_type in _RANDOM or any(tensor.value is None for tensor in inputs):
            return None
        for name in node.output:
            if name and prod(_dims(types.get(name)) or (0,)) > _LARGEST_VALUE:
                return None
        evaluator = ReferenceEvaluator(node, opsets=self._opsets)
        feeds = {tensor.name: np.asarray(tensor.value) for tensor in inputs}
        return [np.asarray(value) for value in evaluator.run(None, feeds)]

    def _if(self, node: onnx.NodeProto, found: Mapping[str, Tensor]) -> tuple[list[Tensor], int]:
        branches = [attribute.g for attribute in node.attribute]
        results = [self.graph(branch, found) for branch in branches]
        outputs = []
        for position, name in enumerate(node.output):
            either = [
                made[branch.output[position].name]
                for branch, (made, _) in zip(branches, results, strict=True)
            ]
            larger = max(either, key=lambda tensor: tensor.elements)
            outputs.append(Tensor(name, node.name, "If", larger.shape, larger.element_type))
        return outputs, max(peak for _, peak in results)

    def _loop(self, node: onnx.NodeProto, found: Mapping[str, Tensor]) -> tuple[list[Tensor], int]:
        body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
        trips = found[node.input[0]].value if node.input[0] else None
        carried = [found[name] for name in node.input[2:]]
        scope = dict(found)
        counter, condition = (value.name for value in body.input[:2])
        scope[counter] = Tensor(counter, node.name, "Loop", (), TensorProto.INT64)
        scope[condition] = Tensor(condition, node.name, "Loop", (), TensorProto.BOOL)
        for value, tensor in zip(body.input[2:], carried, strict=True):
            scope[value.name] = Tensor(
                value.name, node.name, "Loop", tensor.shape, tensor.element_type
            )
        made, peak = self.graph(body, scope)
        results = [made[value.name] for value in body.output[1:]]
        outputs = []
        for position, (name, tensor) in enumerate(zip(node.output, results, strict=True)):
            shape = tensor.shape
            if position < len(carried):
                if shape != carried[position].shape:
                    raise ProfileError(
                        f"node {node.name!r} (Loop) changes the shape of what it carries from "
                        f"{list(carried[position].shape)} to {list(shape)}"
                    )
            elif trips is None:
                raise ProfileError(
                    f"node {node.name!r} (Loop) gathers as many rows as the data says: its "
                    f"output {name!r} has no largest shape"
                )
            else:
                shape = (int(trips), *shape)
            outputs.append(Tensor(name, node.name, "Loop", shape, tensor.element_type))
        return outputs, peak


def _made(
    node: onnx.NodeProto, name: str, inferred: TypeProto | None, value: np.ndarray | None
) -> Tensor:
    if value is not None:
        element_type = int(helper.np_dtype_to_tensor_dtype(value.dtype))
        kept = value if value.size <= _LARGEST_VALUE else None
        return Tensor(name, node.name, node.op_type, value.shape, element_type, kept)
    shape = _dims(inferred)
    if inferred is None or shape is None:
        raise ProfileError(
            f"the shape of {name!r} is decided by data: node {node.name!r} ({node.op_type}) "
            f"has no largest shape that could be planned for"
        )
    return Tensor(name, node.name, node.op_type, shape, inferred.tensor_type.elem_type)


def _dims(inferred: TypeProto | None) -> Shape | None:
    if inferred is None or not inferred.tensor_type.HasField("shape"):
        return None
    dims = inferred.tensor_type.shape.dim
    if any(not dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def _type(tensor: Tensor) -> TypeProto:
    return helper.make_tensor_type_proto(tensor.element_type, tensor.shape)


def _integer(node: onnx.NodeProto, name: str) -> int | None:
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    return None


def _last_uses(graph: onnx.GraphProto) -> dict[str, int]:
    """Tensor name to the index of the last node that reads it; outputs are read at the end."""
    uses: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in _reads(node):
            uses[name] = index
    for value in graph.output:
        uses[value.name] = len(graph.node)
    return uses


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    """Names that a node reads, in its bodies too."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (value.name for value in attribute.g.output)
