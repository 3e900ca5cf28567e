"""8-bit swappers: explicit quantise/dequantise pairs around the network's convolutions.

Calibration, finding each tensor's range on real frames, is ONNX Runtime's
(`onnxruntime.quantization.calibrate`): it is a dependency already, is kept with every release, and
needs no training framework, as NVIDIA's ModelOpt does. Placing the pairs is done here, because
ONNX Runtime's own writes float32 scales and 32-bit integer biases, which a strongly typed TensorRT
network in float16 does not fuse: it wants float16 scales, symmetric activations a tensor, and
symmetric weights a channel.

Source: TensorRT documentation, "Working with Quantized Types"; ONNX QuantizeLinear-19.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

from engines.errors import PrecisionError
from engines.precision import NETWORK_PREFIX, every_graph, infer_types
from networks.editing import add_initializer, known_array

EightBits = Literal["int8", "fp8"]

QUANTIZED_OPSET: Final = 19
"""QuantizeLinear takes float16 and makes float8 from opset 19 on."""

_LARGEST: Final = {"int8": 127.0, "fp8": 448.0}
_IMAGE_CHANNELS: Final = 4
"""A convolution with so few channels on a side reads or writes pixels: little work, much to see."""

Feeds = Mapping[str, NDArray[Any]]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next((dict(feed) for feed in self._feeds), None)


def calibrate(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> dict[str, float]:
    """Largest magnitude of every tensor that a convolution reads or writes, over all runs.

    Args:
        model: a fp32 graph whose network is not inside a branch.
        feeds: inputs of `model`; real frames, because the ranges are the real ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path, ["Conv"], augmented_model_path=str(Path(folder) / "augmented.onnx")
        )
        calibrator.collect_data(_Reader(feeds))
        found = calibrator.compute_data()
    ranges = {}
    for name, data in found.items():
        low, high = (float(np.max(np.abs(bound))) for bound in data.range_value)
        ranges[name] = max(low, high)
    return ranges


def quantize(
    typed: onnx.ModelProto,
    ranges: Mapping[str, float],
    precision: EightBits,
    *,
    kept: Collection[str] = (),
    prefix: str = NETWORK_PREFIX,
) -> onnx.ModelProto:
    """`typed` with its convolutions in 8 bits, everything else as it is.

    Args:
        typed: a graph from `engines.precision.to_fp16`.
        ranges: from `calibrate`, on the same graph before it was typed.
        kept: names of convolutions that stay in float16.

    Returns:
        A graph of opset 19 with pairs on the input and the weights of every convolution under
        `prefix` but those that read or write pixels.

    Raises:
        PrecisionError: no convolution can be quantised, or one has no range.
    """
    model = ir.from_proto(infer_types(typed))
    count = 0
    for graph in every_graph(model.graph):
        shared: dict[ir.Value, ir.Value] = {}
        for node in _quantizable_nodes(graph, prefix):
            if node.name not in kept:
                _quantize_convolution(graph, node, ranges, precision, shared)
            count += 1
    if count == 0:
        raise PrecisionError(
            f"the network has no convolution that {precision} would speed up: use --precision fp16"
        )
    common_passes.RemoveUnusedNodesPass()(model)  # and the wider weights
    model.graph.opset_imports[""] = QUANTIZED_OPSET
    proto = ir.to_proto(model)
    onnx.checker.check_model(infer_types(proto), full_check=False)
    return proto


def convolution_work(typed: onnx.ModelProto, *, prefix: str = NETWORK_PREFIX) -> dict[str, int]:
    """Multiplications an image of every convolution that `quantize` would put into 8 bits."""
    model = ir.from_proto(infer_types(typed))
    work = {}
    for graph in every_graph(model.graph):
        for node in _quantizable_nodes(graph, prefix):
            weight, shape = node.inputs[1], node.outputs[0].shape
            assert weight is not None
            assert weight.const_value is not None
            pixels = [int(size) for size in (shape or ())[2:] if isinstance(size, int)]
            work[str(node.name)] = math.prod((weight.const_value.size, *pixels))
    return work


def _quantizable_nodes(graph: ir.Graph, prefix: str) -> list[ir.Node]:
    return [
        node for node in graph if (node.name or "").startswith(prefix) and _is_quantizable(node)
    ]


def _is_quantizable(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return False
    outputs, inputs = node.inputs[1].const_value.shape.numpy()[:2]
    # A depthwise convolution has one input channel a group; 8-bit kernels gain nothing there.
    return min(int(outputs), int(inputs)) > _IMAGE_CHANNELS


def _quantize_convolution(
    graph: ir.Graph,
    node: ir.Node,
    ranges: Mapping[str, float],
    precision: EightBits,
    shared: dict[ir.Value, ir.Value],
) -> None:
    value, weight = node.inputs[0], node.inputs[1]
    assert value is not None
    assert weight is not None
    if value not in shared:
        largest = ranges.get(_untyped_name(str(value.name)))
        if largest is None:
            raise PrecisionError(
                f"no calibration frame reached {node.name}: give frames that show faces with "
                "--frames"
            )
        shared[value] = _fake_quantize(graph, node, value, largest, precision)
    node.replace_input_with(0, shared[value])
    node.replace_input_with(1, _dequantized_weight(graph, node, weight, precision))


def _untyped_name(name: str) -> str:
    """What the tensor was called before `to_fp16` put casts around it."""
    while name.endswith(("/float16", "/float32")):
        name = name.rpartition("/")[0]
    return name


def _fake_quantize(
    graph: ir.Graph, node: ir.Node, value: ir.Value, largest: float, precision: EightBits
) -> ir.Value:
    """Quantise and dequantise `value`, one scale for the tensor."""
    name = f"{value.name}/{precision}"
    scale = add_initializer(graph, f"{name}/scale", _scale(np.float64(largest), precision))
    zero = add_initializer(graph, f"{name}/zero", _cast(np.zeros(()), precision))
    quantized = _append(graph, node, "QuantizeLinear", [value, scale, zero], f"{name}/quantized")
    quantized.dtype = ir.DataType.INT8 if precision == "int8" else ir.DataType.FLOAT8E4M3FN
    return _append(graph, node, "DequantizeLinear", [quantized, scale, zero], f"{name}/back")


def _dequantized_weight(
    graph: ir.Graph, node: ir.Node, weight: ir.Value, precision: EightBits
) -> ir.Value:
    """8-bit weights with a scale an output channel, and the node that widens them."""
    array = known_array(weight).astype(np.float64)
    scales = _scale(np.abs(array).reshape(len(array), -1).max(axis=1), precision)
    units = array / scales.astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))
    name = f"{node.name}/weight/{precision}"
    values = add_initializer(graph, name, _cast(units, precision))
    scale = add_initializer(graph, f"{name}/scale", scales)
    zero = add_initializer(graph, f"{name}/zero", _cast(np.zeros(len(array)), precision))
    widened = _append(graph, node, "DequantizeLinear", [values, scale, zero], f"{name}/back")
    widened.producer().attributes["axis"] = ir.AttrInt64("axis", 0)  # type: ignore[union-attr]
    return widened


def _scale(largest: NDArray[np.float64] | np.float64, precision: EightBits) -> NDArray[np.float16]:
    """The smallest float16 scale, never 0, at which `largest` still fits."""
    exact = np.asarray(largest, np.float64) / _LARGEST[precision]
    scale = exact.astype(np.float16)
    too_small = scale.astype(np.float64) < exact
    scale = np.where(too_small, np.nextafter(scale, np.float16(np.inf)), scale)
    return np.maximum(scale, np.finfo(np.float16).smallest_subnormal).astype(np.float16)


def _cast(units: NDArray[np.float64], precision: EightBits) -> NDArray[Any]:
    if precision == "int8":
        return np.clip(np.rint(units), -127, 127).astype(np.int8)
    return np.clip(units, -448, 448).astype(ml_dtypes.float8_e4m3fn)


def _append(
    graph: ir.Graph, before: ir.Node, operator: str, inputs: list[ir.Value], name: str
) -> ir.Value:
    node = ir.Node("", operator, inputs, name=name)
    node.outputs[0].name = name
    graph.insert_before(before, node)
    return node.outputs[0]
