"""How every graph is written down: one builder, one opset, one way to embed a network.

A graph is authored with onnxscript's `GraphBuilder` (`op.Add(x, 1.0)` promotes constants and infers
shapes as it goes). Parts are wrapped in `scope("preprocess")`, `scope("network")`,
`scope("postprocess")`, so that a profiler's layer names say which part they belong to, and so that
precision can be chosen for the network alone. Graph input and output names stay bare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import GraphBuilder

from graphs.contract import IR_VERSION, OPSET, TensorSpec
from graphs.shapes import constant, outputs, typed_value
from networks.opset import FLOAT32_PREFIX, MICROSOFT_DOMAIN, to_project_opset

_DTYPES = {"uint8": ir.DataType.UINT8, "float32": ir.DataType.FLOAT}


class GraphAuthor:
    """One graph under construction. `op` makes nodes; `finish` gives the checked ModelProto."""

    def __init__(self, name: str) -> None:
        graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name)
        self.builder = GraphBuilder(graph)
        self.op = self.builder.op
        self._metadata: dict[str, str] = {}

    def input(self, spec: TensorSpec) -> ir.Value:
        """Declare a graph input of `spec`, with the batch axis "B" in front."""
        return self.builder.input(spec.name, _DTYPES[spec.dtype], ["B", *spec.dims])

    def output(self, value: ir.Value, spec: TensorSpec) -> None:
        """Make `value` a graph output under the name, dtype and axes of `spec`."""
        named = self.op.Identity(value) if value.is_graph_input() else value
        named.shape = ir.Shape(["B", *spec.dims])
        named.dtype = _DTYPES[spec.dtype]
        self.builder.add_output(named, spec.name)

    def use_onnxruntime_operators(self) -> None:
        """Import ONNX Runtime's own operators, which no other runtime has."""
        self.builder.graph.opset_imports[MICROSOFT_DOMAIN] = 1

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of every node made inside."""
        self.builder.push_module(name)
        try:
            yield
        finally:
            self.builder.pop_module()

    @staticmethod
    def subgraph(
        op: Any,
        trace: Callable[..., Sequence[ir.Value]],
        inputs: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
        *,
        name: str,
    ) -> ir.Graph:
        """The body of a `Loop` or a branch of an `If` at `op`, its names prefixed by `name`.

        Args:
            op: the operator builder that will hold the node.
            trace: called once with the body's own builder and its inputs; returns its outputs.
            inputs, outputs: fresh values with name, dtype and shape.
            name: unlike that of any other subgraph here: ONNX wants names unique throughout.
        """

        def scoped(inner: Any, *values: ir.Value) -> Sequence[ir.Value]:
            inner.builder.push_module(name)
            try:
                return trace(inner, *values)
            finally:
                inner.builder.pop_module()

        graph: ir.Graph = op.builder.subgraph(scoped, inputs, outputs, name=name)
        return graph

    @staticmethod
    def either(
        op: Any,
        condition: ir.Value,
        then: tuple[str, Callable[..., Sequence[ir.Value]]],
        otherwise: tuple[str, Callable[..., Sequence[ir.Value]]],
        *dims: int | str,
        label: str,
    ) -> ir.Value:
        """An `If` at `op` of one float32 output.

        Args:
            condition: bool scalar.
            then, otherwise: name of a branch's body, see `subgraph`, and what makes its output.
            dims: of the output.
            label: behind the branch's name in the name of what it makes.
        """
        (made,) = GraphAuthor.either_of(op, condition, then, otherwise, {label: dims})
        return made

    @staticmethod
    def either_of(
        op: Any,
        condition: ir.Value,
        then: tuple[str, Callable[..., Sequence[ir.Value]]],
        otherwise: tuple[str, Callable[..., Sequence[ir.Value]]],
        made: Mapping[str, Sequence[int | str]],
    ) -> list[ir.Value]:
        """`either` of several float32 outputs. made: a label and the dims of each, in order."""
        one, other = (
            GraphAuthor.subgraph(
                op,
                trace,
                [],
                [
                    typed_value(f"{name}_{label}", ir.DataType.FLOAT, *dims)
                    for label, dims in made.items()
                ],
                name=name,
            )
            for name, trace in (then, otherwise)
        )
        return outputs(op.If(condition, then_branch=one, else_branch=other, _outputs=len(made)))

    @staticmethod
    def loop(
        op: Any,
        trace: Callable[..., Sequence[ir.Value]],
        count: ir.Value,
        state: Sequence[ir.Value] = (),
        *,
        name: str,
        index: str,
        go_on: str = "go_on",
        before: Sequence[ir.Value] = (),
        after: Sequence[ir.Value],
        start: Callable[[], ir.Value] | None = None,
    ) -> list[ir.Value]:
        """A `Loop` of at most `count` rounds at `op`: its last state, then what rounds stacked.

        Args:
            op: the operator builder that will hold the loop.
            trace: one round: called once with the body's own builder, the round's number (int64
                scalar), whether it runs (bool scalar) and the state; returns whether another round
                follows, the new state, and what this round adds to each stack.
            count: int64 scalar.
            state: before the first round.
            name: of the body, see `subgraph`.
            index, go_on: names of the body's first two inputs.
            before: fresh values for the body's inputs, one a state.
            after: fresh values for the body's outputs: the new state, then one a stack.
            start: makes a bool scalar, whether there is a first round; None: there is.
        """
        body = GraphAuthor.subgraph(
            op,
            trace,
            [
                typed_value(index, ir.DataType.INT64),
                typed_value(go_on, ir.DataType.BOOL),
                *before,
            ],
            [typed_value(f"{go_on}_next", ir.DataType.BOOL), *after],
            name=name,
        )
        begins = constant(op, np.array(True)) if start is None else start()
        return outputs(op.Loop(count, begins, *state, body=body, _outputs=len(after)))

    def embed(
        self,
        network: onnx.ModelProto,
        inputs: Mapping[str, ir.Value],
        prefix: str = "network",
        *,
        into: ir.Graph | None = None,
    ) -> list[ir.Value]:
        """Copy `network` into this graph, fed from `inputs`; returns its outputs by position.

        Args:
            network: any opset from 7 up; it is converted to this project's.
            inputs: the network's input name to the value that feeds it; all must be given.
            prefix: first part of every copied node's, value's and initializer's name. Nodes that
                are called `float32/...` keep their names: precision is chosen by the prefix.
            into: the branch or loop body that gets the nodes; None: this graph. Initializers
                always go to this graph, where branches can read them.

        Raises:
            ValueError: an input of the network is not fed, or a name is not one of its inputs.
        """
        graph = ir.from_proto(to_project_opset(network)).graph
        for domain, version in graph.opset_imports.items():
            self.builder.graph.opset_imports[domain] = version
        wanted = {value.name for value in graph.inputs}
        if wanted != set(inputs):
            raise ValueError(
                f"the network's inputs are {sorted(map(str, wanted))}, given: {sorted(inputs)}"
            )
        outputs = list(graph.outputs)
        for value in list(graph.inputs):
            ir.convenience.replace_all_uses_with(value, inputs[str(value.name)])
        outputs = [inputs[str(v.name)] if v.name in inputs else v for v in outputs]
        for initializer in list(graph.initializers.values()):
            tensor = initializer.const_value
            assert tensor is not None, f"{initializer.name} has no data"
            name = f"{prefix}/{initializer.name}"
            fresh = self.builder.initializer(tensor, name=name, qualify=False)
            ir.convenience.replace_all_uses_with(initializer, fresh)
            outputs = [fresh if v is initializer else v for v in outputs]
        nodes = list(graph)
        graph.outputs.clear()
        graph.remove(nodes)
        for index, node in enumerate(nodes):
            if not (node.name or "").startswith(FLOAT32_PREFIX):
                node.name = f"{prefix}/{node.name or f'{node.op_type}_{index}'}"
            for value in node.outputs:
                value.name = f"{prefix}/{value.name}"
                # Its batch is rows of faces, not this graph's: a runtime that takes equal names for
                # equal sizes would plan one's memory for the other.
                value.shape = _prefixed(value.shape, prefix)
        (self.builder.graph if into is None else into).extend(nodes)
        return outputs

    def metadata(self, entries: Mapping[str, str]) -> None:
        """Record `entries` in the model's metadata_props."""
        self._metadata.update(entries)

    def finish(self) -> onnx.ModelProto:
        """The graph as a checked model: project opset and IR, deterministic bytes."""
        model = ir.Model(self.builder.graph, ir_version=IR_VERSION, producer_name="frameswap")
        model.metadata_props.update(self._metadata)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=False)
        return proto


def _prefixed(shape: ir.Shape | None, prefix: str) -> ir.Shape | None:
    """The shape with `prefix` in front of the names of its open axes."""
    if shape is None:
        return None
    return ir.Shape(
        [f"{prefix}/{dim.value}" if isinstance(dim, ir.SymbolicDim) and dim.value else dim
         for dim in shape.dims]
    )  # fmt: skip
