"""One conversion under way: the file's tensors on one side, ONNX nodes on the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from networks.tflite_reader.model import Array, Operation, TfliteError, TfliteModel

TO_CHANNELS_FIRST: Final = (0, 3, 1, 2)
TO_CHANNELS_LAST: Final = (0, 2, 3, 1)
"""Feature maps [N, H, W, C] in the file and [N, C, H, W] in the network made of it."""


class Reader:
    """One conversion: the file's tensors, and the ONNX nodes and initializers made so far."""

    def __init__(self, content: bytes) -> None:
        self.model = TfliteModel(content)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._values: dict[int, str] = {}
        self._constants: dict[int, Array] = {}

    def constant(self, tensor: int) -> Array | None:
        """Value of a constant, float16 unpacked to float32; None for what is computed."""
        if tensor in self._constants:
            return self._constants[tensor]
        return self.model.constant(tensor)

    def weight(self, operation: Operation, position: int) -> Array:
        """A constant that `operation` must have at `position`, float32. Raises TfliteError."""
        value = self.constant(operation.inputs[position])
        if value is None:
            raise TfliteError(
                f"{operation.name} takes a computed tensor as input {position}, but this reader "
                "knows it with a constant there"
            )
        return value.astype(np.float32)

    def set_constant(self, tensor: int, value: Array) -> None:
        self._constants[tensor] = value

    def value(self, tensor: int) -> str:
        """The ONNX name of a tensor; a constant becomes an initializer, channels first."""
        if tensor not in self._values:
            constant = self.constant(tensor)
            if constant is None:
                raise TfliteError(f"the tensor {self.model.name(tensor)} is used, but never made")
            if constant.ndim == 4:
                constant = constant.transpose(TO_CHANNELS_FIRST)
            self._values[tensor] = self.initializer(constant.astype(np.float32))
        return self._values[tensor]

    def set_value(self, tensor: int, name: str) -> None:
        self._values[tensor] = name

    def initializer(self, array: npt.ArrayLike) -> str:
        """A new initializer; its name."""
        name = f"c{len(self.initializers)}"
        contiguous = np.ascontiguousarray(array)
        self.initializers.append(numpy_helper.from_array(contiguous, name))
        return name

    def node(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A new node with one output; the output's name."""
        name = f"{op_type}_{len(self.nodes)}"
        output = output or name
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """`value` cut into `parts` equal parts."""
        name = f"Split_{len(self.nodes)}"
        outputs = [f"{name}_{part}" for part in range(parts)]
        self.nodes.append(
            helper.make_node("Split", [value], outputs, name=name, num_outputs=parts, axis=axis)
        )
        return outputs

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """`value` with the axes of `shape` behind the batch's own."""
        return self.node("Reshape", value, self.initializer(np.array([-1, *shape], np.int64)))

    def channels_last(self, tensor: int) -> str:
        """A computed tensor with its elements in the file's own order."""
        shape, name = self.model.shape(tensor), self.value(tensor)
        if len(shape) != 4 or shape[1:3] == (1, 1):
            return name
        return self.node("Transpose", name, perm=TO_CHANNELS_LAST)


Rule = Callable[[Reader, Operation], None]
"""Makes the ONNX nodes of one operation; raises TfliteError for a form that it does not know."""
