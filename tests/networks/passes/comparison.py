"""What every pass is held to: the same outputs to rounding, for any batch, in two precisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bench.random_inswapper import build
from networks.batching import with_free_batch
from networks.passes import apply_passes
from tests.generated_networks import NetworkWriter

ROUNDING = 5e-6
"""Float32 sums of order one in another order, through twelve normalised convolutions."""


def inswapper_network(channels: int = 16) -> onnx.ModelProto:
    """inswapper's layers at a small width, batch free."""
    return with_free_batch(build(channels=channels))


def map_network(
    layers: Callable[[NetworkWriter, str], str], *, shape: Sequence[int] = (4, 12, 10)
) -> onnx.ModelProto:
    """A network of `layers` from `image` [B, *shape] and `source` [B, 6] to `result`, opset 18."""
    net = NetworkWriter(3)
    net.node("Identity", layers(net, "image"), output="result")
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", *shape]),
        helper.make_tensor_value_info("source", TensorProto.FLOAT, ["B", 6]),
    ]
    outputs = [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)]
    graph = helper.make_graph(net.nodes, "layers", inputs, outputs, net.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(network: onnx.ModelProto, batch: int) -> npt.NDArray[np.float32]:
    """The first output, computed node by node as written: no optimiser may hide a difference."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(9)
    feeds = {}
    for value in session.get_inputs():
        feeds[value.name] = rng.random((batch, *value.shape[1:]), dtype=np.float32) - 0.3
    return np.asarray(session.run(None, feeds)[0])


def assert_same_outputs(
    network: onnx.ModelProto, passes: Sequence[str], *, atol: float = ROUNDING
) -> onnx.ModelProto:
    """Apply `passes` and compare batches of one and three; returns the rewritten network."""
    rewritten = apply_passes(network, passes)
    onnx.checker.check_model(rewritten, full_check=True)
    for batch in (1, 3):
        np.testing.assert_allclose(run(rewritten, batch), run(network, batch), rtol=0, atol=atol)
    return rewritten


def count(network: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in network.graph.node)


def assert_untouched(network: onnx.ModelProto, passes: Sequence[str]) -> None:
    """The passes find nothing to rewrite."""
    assert count(apply_passes(network, passes)) == count(apply_passes(network, ()))
