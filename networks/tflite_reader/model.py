"""A .tflite as it lies in its bytes: tensors and operators, nothing interpreted.

Source: the TensorFlow Lite schema, version 3 (tensorflow/lite/schema/schema.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tflite

Array = npt.NDArray[Any]

_NUMPY_TYPES: Final[Mapping[int, type[np.generic]]] = MappingProxyType(
    {
        tflite.TensorType.FLOAT32: np.float32,
        tflite.TensorType.FLOAT16: np.float16,
        tflite.TensorType.INT32: np.int32,
        tflite.TensorType.INT64: np.int64,
    }
)
_OPERATOR_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
)
_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CONV_2D": "Conv2DOptions",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
        "MAX_POOL_2D": "Pool2DOptions",
        "ADD": "AddOptions",
        "MUL": "MulOptions",
    }
)


class TfliteError(ValueError):
    """The file is no TensorFlow Lite model, or holds what this reader does not know."""


@dataclass(frozen=True)
class Operation:
    """One operator of the file. inputs, outputs: indices of tensors, -1 for one left out.

    name: its builtin's name, or the custom operator's own; version: of the operator.
    options: the builtin's options (a class of `tflite`, initialised), or a custom operator's bytes.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    custom_options: bytes


class TfliteModel:
    """The one subgraph of a .tflite: its tensors and operators.

    Raises:
        TfliteError: the bytes are no such file, or it has several subgraphs.
    """

    def __init__(self, content: bytes) -> None:
        if content[4:8] != b"TFL3":
            raise TfliteError("this is not a TensorFlow Lite model: its mark TFL3 is not there")
        try:
            self._model: Any = tflite.Model.GetRootAsModel(content, 0)
            if self._model.SubgraphsLength() != 1:
                raise TfliteError(
                    f"a .tflite with one subgraph is expected, this one has "
                    f"{self._model.SubgraphsLength()}"
                )
            self._graph: Any = self._model.Subgraphs(0)
            self.operations = [
                self._operation(index) for index in range(self._graph.OperatorsLength())
            ]
            self.inputs = [int(index) for index in self._graph.InputsAsNumpy()]
            self.outputs = [int(index) for index in self._graph.OutputsAsNumpy()]
        except (struct.error, IndexError, TypeError, AttributeError) as error:
            raise TfliteError(f"the TensorFlow Lite model is damaged: {error}") from error

    def _operation(self, index: int) -> Operation:
        operator = self._graph.Operators(index)
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        # Codes below 127 once had a field of their own; what reads the larger of both reads both.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _OPERATOR_NAMES.get(builtin, f"number {builtin}")
        custom = name == "CUSTOM"
        options = None if custom else _builtin_options(operator, name)
        return Operation(
            name=code.CustomCode().decode() if custom else name,
            version=code.Version(),
            inputs=tuple(int(i) for i in operator.InputsAsNumpy()),
            outputs=tuple(int(i) for i in operator.OutputsAsNumpy()),
            options=options,
            custom_options=(
                bytes(operator.CustomOptionsAsNumpy()) if operator.CustomOptionsLength() else b""
            ),
        )

    def shape(self, tensor: int) -> tuple[int, ...]:
        """As the file says it: batch 1, channels last."""
        found = self._graph.Tensors(tensor)
        return tuple(int(d) for d in found.ShapeAsNumpy()) if found.ShapeLength() else ()

    def name(self, tensor: int) -> str:
        """The last part of a tensor's name."""
        return str(self._graph.Tensors(tensor).Name().decode()).rpartition("/")[2]

    def constant(self, tensor: int) -> Array | None:
        """Value of a tensor that the file holds; None where an operator makes it.

        Raises:
            TfliteError: its element type is none of float32, float16, int32, int64.
        """
        found = self._graph.Tensors(tensor)
        buffer = self._model.Buffers(found.Buffer())
        if buffer.DataLength() == 0:
            return None
        dtype = _NUMPY_TYPES.get(found.Type())
        if dtype is None:
            raise TfliteError(
                f"the tensor {self.name(tensor)} has element type {found.Type()}, but this reader "
                "knows float32, float16, int32 and int64"
            )
        return np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(self.shape(tensor))


def _builtin_options(operator: Any, name: str) -> Any:
    """The operator's options, or None where it has none that this reader looks at."""
    wanted = _OPTIONS.get(name)
    table = operator.BuiltinOptions()
    if wanted is None or table is None:
        return None
    options = getattr(tflite, wanted)()
    options.Init(table.Bytes, table.Pos)
    return options
