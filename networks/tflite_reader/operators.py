"""What each builtin operator of TensorFlow Lite becomes in ONNX, as far as it is known here.

Source of the padding: tensorflow/lite/kernels/padding.h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import tflite

from networks.tflite_reader.model import Operation, TfliteError
from networks.tflite_reader.reader import TO_CHANNELS_FIRST, Reader, Rule


def _activate(reader: Reader, operation: Operation, value: str) -> str:
    code = operation.options.FusedActivationFunction()
    if code == tflite.ActivationFunctionType.NONE:
        return value
    if code == tflite.ActivationFunctionType.RELU:
        return reader.node("Relu", value)
    raise TfliteError(
        f"{operation.name} has the fused activation number {code}, but this reader knows none "
        "and RELU"
    )


def _pads(reader: Reader, operation: Operation, kernel: tuple[int, int]) -> dict[str, Any]:
    """ONNX's strides and pads of a convolution or pooling."""
    options = operation.options
    strides = [options.StrideH(), options.StrideW()]
    if options.Padding() != tflite.Padding.SAME:
        return {"strides": strides, "pads": [0, 0, 0, 0]}
    before, after = [], []
    sizes = reader.model.shape(operation.inputs[0])[1:3]
    for size, side, stride in zip(sizes, kernel, strides, strict=True):
        needed = max((-(-size // stride) - 1) * stride + side - size, 0)
        before.append(needed // 2)
        after.append(needed - needed // 2)
    return {"strides": strides, "pads": before + after}


def _convolution(reader: Reader, operation: Operation) -> None:
    """CONV_2D: weights [O, kh, kw, I]; DEPTHWISE_CONV_2D: [1, kh, kw, O], one group a channel."""
    options = operation.options
    if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
        raise TfliteError(f"{operation.name} is dilated, which this reader does not know")
    channels = reader.model.shape(operation.inputs[0])[3]
    depthwise = operation.name == "DEPTHWISE_CONV_2D"
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    weight = reader.weight(operation, 1).transpose(order)
    if not depthwise and weight.shape[1] != channels:
        raise TfliteError(f"{operation.name} has groups, which this reader does not know")
    kernel = (weight.shape[2], weight.shape[3])
    convolved = reader.node(
        "Conv",
        reader.value(operation.inputs[0]),
        reader.initializer(weight),
        reader.initializer(reader.weight(operation, 2)),
        kernel_shape=list(kernel),
        group=channels if depthwise else 1,
        **_pads(reader, operation, kernel),
    )
    reader.set_value(operation.outputs[0], _activate(reader, operation, convolved))


def _max_pool(reader: Reader, operation: Operation) -> None:
    kernel = (operation.options.FilterHeight(), operation.options.FilterWidth())
    pooled = reader.node(
        "MaxPool",
        reader.value(operation.inputs[0]),
        kernel_shape=list(kernel),
        **_pads(reader, operation, kernel),
    )
    reader.set_value(operation.outputs[0], _activate(reader, operation, pooled))


def _prelu(reader: Reader, operation: Operation) -> None:
    """Slopes [1, 1, C] become [C, 1, 1]."""
    slopes = reader.weight(operation, 1)
    if slopes.shape[:-1] != (1, 1):
        raise TfliteError(f"PRELU has slopes {slopes.shape}, but this reader knows one a channel")
    slope = reader.initializer(slopes.reshape(-1, 1, 1))
    made = reader.node("PRelu", reader.value(operation.inputs[0]), slope)
    reader.set_value(operation.outputs[0], made)


def _arithmetic(reader: Reader, operation: Operation) -> None:
    """ADD and MUL of equal shapes, or with one number."""
    shapes = [reader.model.shape(tensor) for tensor in operation.inputs]
    if shapes[0] != shapes[1] and 1 not in [math.prod(shape) for shape in shapes]:
        raise TfliteError(f"{operation.name} of shapes {shapes} is not known to this reader")
    made = reader.node(
        operation.name.capitalize(), *(reader.value(tensor) for tensor in operation.inputs)
    )
    reader.set_value(operation.outputs[0], _activate(reader, operation, made))


def _pad(reader: Reader, operation: Operation) -> None:
    amounts = reader.weight(operation, 1).astype(np.int64)
    if amounts.shape[0] == 4:
        amounts = amounts[list(TO_CHANNELS_FIRST)]
    pads = reader.initializer(amounts.T.reshape(-1))
    reader.set_value(
        operation.outputs[0], reader.node("Pad", reader.value(operation.inputs[0]), pads)
    )


def _reshape(reader: Reader, operation: Operation) -> None:
    target = reader.model.shape(operation.outputs[0])
    if target[0] != reader.model.shape(operation.inputs[0])[0]:
        raise TfliteError(f"RESHAPE to {target} moves the batch axis, which cannot be freed")
    made = reader.reshape(reader.channels_last(operation.inputs[0]), target[1:])
    if len(target) == 4:
        made = reader.node("Transpose", made, perm=TO_CHANNELS_FIRST)
    reader.set_value(operation.outputs[0], made)


def _strided_slice(reader: Reader, operation: Operation) -> None:
    before, after = (
        reader.model.shape(tensor) for tensor in (operation.inputs[0], operation.outputs[0])
    )
    strides = reader.weight(operation, 3)
    if before != after or (strides != 1).any():
        raise TfliteError("STRIDED_SLICE of less than the whole tensor is not known to this reader")
    reader.set_value(operation.outputs[0], reader.value(operation.inputs[0]))


def _logistic(reader: Reader, operation: Operation) -> None:
    made = reader.node("Sigmoid", reader.value(operation.inputs[0]))
    reader.set_value(operation.outputs[0], made)


def _dequantize(reader: Reader, operation: Operation) -> None:
    """Weights kept in float16; computed tensors are not quantised in the files known here."""
    reader.set_constant(operation.outputs[0], reader.weight(operation, 0))


BUILTIN_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _convolution,
        "MAX_POOL_2D": _max_pool,
        "PRELU": _prelu,
        "ADD": _arithmetic,
        "MUL": _arithmetic,
        "PAD": _pad,
        "RESHAPE": _reshape,
        "STRIDED_SLICE": _strided_slice,
        "LOGISTIC": _logistic,
        "DEQUANTIZE": _dequantize,
    }
)
"""By the name in the schema."""
