"""Networks read from .tflite files, against NumPy operators written from their descriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tflite

from graphs.contract import OPSET
from networks.tflite_reader import INPUT, RULES, TfliteError, read_tflite
from tests import tflite_files as oracle
from tests.graphs.evaluation import open_session
from tests.tflite_files import TfliteFile

SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
RELU, RELU6 = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.RELU6
SIZE = 11
CONV = {"StrideW": 1, "StrideH": 1, "DilationWFactor": 1, "DilationHFactor": 1}
# sums of a few hundred products in float32
ROUNDING = 2e-5


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def image_file(channels: int = 3, size: int = SIZE) -> TfliteFile:
    made = TfliteFile()
    made.tensor(1, size, size, channels, name="input")
    return made


def run(made: TfliteFile, images: np.ndarray) -> list[np.ndarray]:
    """Outputs for images [B, H, W, C]."""
    network = read_tflite(made.content())
    feeds = {INPUT: np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
    return [np.asarray(found) for found in open_session(network).run(None, feeds)]


def check(made: TfliteFile, tensor: int, expected: Any, images: np.ndarray) -> None:
    """`tensor` is, for each image of a batch, what `expected(image [1, H, W, C])` says."""
    made.output(tensor, "found")
    (found,) = run(made, images)
    assert found.shape[0] == len(images)
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(
            row, np.asarray(expected(image[None])).reshape(-1), rtol=0, atol=ROUNDING
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_convolution_pads_and_strides_as_tensorflow_does(
    stride: int, same: bool, side: int
) -> None:
    made, weight, bias = image_file(), noise(5, side, side, 3), noise(5, seed=1)
    after = -(-SIZE // stride) if same else (SIZE - side) // stride + 1
    convolved = made.operator(
        "CONV_2D",
        [0, made.constant(weight), made.constant(bias)],
        (1, after, after, 5),
        **CONV | {"StrideW": stride, "StrideH": stride, "Padding": SAME if same else VALID},
    )
    images = noise(2, SIZE, SIZE, 3, seed=2)
    check(
        made,
        convolved,
        lambda image: oracle.convolve(image, weight, bias, stride=stride, same=same),
        images,
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolution_has_one_filter_a_channel(stride: int) -> None:
    made, weight, bias = image_file(4), noise(1, 3, 3, 4), noise(4, seed=1)
    after = -(-SIZE // stride)
    convolved = made.operator(
        "DEPTHWISE_CONV_2D",
        [0, made.constant(weight), made.constant(bias)],
        (1, after, after, 4),
        **CONV | {"StrideW": stride, "StrideH": stride, "Padding": SAME, "DepthMultiplier": 1},
    )
    check(
        made,
        convolved,
        lambda image: oracle.convolve_depthwise(image, weight, bias, stride=stride, same=True),
        noise(2, SIZE, SIZE, 4),
    )


def test_weights_in_float16_a_fused_relu_and_slopes_a_channel() -> None:
    made = image_file()
    weight, bias = noise(4, 1, 1, 3).astype(np.float16), noise(4, seed=1)
    unpacked = made.operator("DEQUANTIZE", [made.constant(weight)], weight.shape)
    shape = (1, SIZE, SIZE, 4)
    options = CONV | {"Padding": SAME, "FusedActivationFunction": RELU}
    convolved = made.operator(
        "CONV_2D", [0, unpacked, made.constant(bias)], shape, **options
    )
    slopes = noise(1, 1, 4, seed=3)
    shifted = made.operator(
        "ADD", [convolved, made.constant(np.full((1,), -0.5, np.float32))], shape
    )
    sloped = made.operator("PRELU", [shifted, made.constant(slopes)], shape)

    def expected(image: np.ndarray) -> np.ndarray:
        x = oracle.convolve(image, weight.astype(np.float32), bias, stride=1, same=True)
        x = np.maximum(x, 0) - 0.5
        return np.where(x > 0, x, x * slopes)

    check(made, sloped, expected, noise(3, SIZE, SIZE, 3))


def test_pooling_padding_of_channels_and_a_sum_of_branches() -> None:
    made = image_file(4, 12)
    pooled = made.operator(
        "MAX_POOL_2D", [0], (1, 6, 6, 4), FilterWidth=2, FilterHeight=2, StrideW=2, StrideH=2,
        Padding=SAME,
    )  # fmt: skip
    amounts = np.array([[0, 0], [0, 0], [0, 0], [0, 3]], np.int32)
    padded = made.operator("PAD", [pooled, made.constant(amounts)], (1, 6, 6, 7))
    summed = made.operator("ADD", [padded, padded], (1, 6, 6, 7))

    def expected(image: np.ndarray) -> np.ndarray:
        found = oracle.pool(image, 2, stride=2, same=True)
        return 2 * np.pad(found, [(0, 0), (0, 0), (0, 0), (0, 3)])

    check(made, summed, expected, noise(2, 12, 12, 4))


def test_a_reshape_keeps_the_order_of_channels_last() -> None:
    made = image_file(2, 4)
    flat = made.operator("RESHAPE", [0], (1, 16, 2))
    again = made.operator("RESHAPE", [flat], (1, 2, 4, 4))
    sliced = made.operator(
        "STRIDED_SLICE",
        [again, *(made.constant(np.array(v, np.int32)) for v in ([0] * 4, [0] * 4, [1] * 4))],
        (1, 2, 4, 4),
    )
    squashed = made.operator("LOGISTIC", [sliced], (1, 2, 4, 4))
    check(made, squashed, lambda image: 1 / (1 + np.exp(-image)), noise(2, 4, 4, 2))


OPTIONS = {
    "left_rotation_idx": 1,
    "right_rotation_idx": 2,
    "subset_idxs": [0, 1, 2, 4],
    "output_width": 6,
    "output_height": 4,
    "scale_x": 1.5,
    "scale_y": 1.25,
}


def attention_file() -> TfliteFile:
    """An image [1, 5, 9, 3]: as landmarks of a matrix, as a map to crop, as points to move."""
    made = TfliteFile()
    made.tensor(1, 5, 9, 3, name="input")
    landmarks = made.operator("RESHAPE", [0], (1, 45, 3))
    matrix = made.operator(
        "Landmarks2TransformMatrix", [landmarks], (1, 4, 4), version=2, **OPTIONS
    )
    crop = made.operator(
        "TransformTensorBilinear", [0, matrix], (1, 4, 6, 3), version=2,
        output_width=6, output_height=4,
    )  # fmt: skip
    factor = made.constant(np.full((1, 4, 4), 2.0, np.float32))
    doubled = made.operator("MUL", [matrix, factor], (1, 4, 4))
    some = made.operator("RESHAPE", [crop], (1, 36, 2))
    moved = made.operator("TransformLandmarks", [some, doubled], (1, 36, 2), version=2)
    made.output(crop, "crop")
    made.output(moved, "moved")
    return made


@pytest.mark.parametrize("seed", range(6))
def test_mediapipes_own_operators_do_what_its_source_says(seed: int) -> None:
    images = noise(2, 5, 9, 3, seed=seed) * 2 + 3
    crops, moved = run(attention_file(), images)
    for row, image in enumerate(images.astype(np.float64)):
        matrix = oracle.landmarks_to_matrix(image.reshape(-1, 3), OPTIONS)
        crop = oracle.transform_tensor(image, matrix, 6, 4)
        np.testing.assert_allclose(crops[row], crop.reshape(-1), rtol=0, atol=1e-4)
        expected = oracle.transform_landmarks(crop.reshape(-1, 2), 2 * matrix)
        np.testing.assert_allclose(moved[row], expected.reshape(-1), rtol=0, atol=1e-3)


def test_a_crop_that_leaves_the_map_is_zero_there() -> None:
    image = noise(1, 5, 9, 3) * 2 + 3
    crops, _ = run(attention_file(), image)
    assert 0 < (crops.reshape(-1, 3) == 0).all(axis=1).sum() < 24


def test_landmarks_that_are_one_point_give_numbers() -> None:
    crops, moved = run(attention_file(), np.ones((1, 5, 9, 3), np.float32))
    assert np.isfinite(crops).all()
    assert np.isfinite(moved).all()


def test_the_network_has_the_projects_form() -> None:
    network = read_tflite(attention_file().content())
    assert [entry.version for entry in network.opset_import] == [OPSET]
    (image,) = network.graph.input
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, dims) == ("image", ["B", 3, 5, 9])
    assert [value.name for value in network.graph.output] == ["crop", "moved"]
    assert not any(node.op_type == "MatMul" for node in network.graph.node)
    onnx.checker.check_model(network, full_check=True)


def test_reading_twice_gives_the_same_bytes() -> None:
    content = attention_file().content()
    first, second = (read_tflite(content).SerializeToString() for _ in range(2))
    assert first == second


def unknown(name: str, shape: tuple[int, ...] = (1, SIZE, SIZE, 3), **options: Any) -> TfliteFile:
    made = image_file()
    made.output(made.operator(name, [0], shape, **options), "found")
    return made


def conv_with(weight: np.ndarray, **options: Any) -> TfliteFile:
    made = image_file()
    inputs = [0, made.constant(weight), made.constant(np.zeros(len(weight), np.float32))]
    shape = (1, SIZE, SIZE, len(weight))
    made.output(made.operator("CONV_2D", inputs, shape, **CONV | options), "found")
    return made


def two_subgraphs() -> TfliteFile:
    made = unknown("LOGISTIC")
    made.subgraphs = 2
    return made


def quantised() -> TfliteFile:
    made = image_file()
    packed = made.constant(np.zeros((4, 1, 1, 3), np.uint8))
    made.output(made.operator("DEQUANTIZE", [packed], (4, 1, 1, 3)), "found")
    return made


REFUSED = {
    "an operator": (unknown("SOFTMAX"), r"holds the operator SOFTMAX, which this reader does not"),
    "a custom operator": (unknown("MaxUnpooling2D"), r"operator MaxUnpooling2D, which"),
    "a custom operator's version": (
        unknown("TransformLandmarks", (1, 363, 1), version=1),
        r"TransformLandmarks is of version 1, but this reader knows version 2",
    ),
    "an activation": (
        conv_with(np.zeros((2, 1, 1, 3), np.float32), FusedActivationFunction=RELU6),
        r"CONV_2D has the fused activation number 3",
    ),
    "a dilation": (
        conv_with(np.zeros((2, 1, 1, 3), np.float32), DilationHFactor=2),
        r"CONV_2D is dilated",
    ),
    "groups": (conv_with(np.zeros((2, 1, 1, 1), np.float32)), r"CONV_2D has groups"),
    "a batch that moves": (unknown("RESHAPE", (SIZE, SIZE, 3)), r"RESHAPE to .* moves the batch"),
    "computed weights": (unknown("DEQUANTIZE"), r"DEQUANTIZE takes a computed tensor as input 0"),
    "quantised weights": (quantised(), r"has element type 3, but this reader knows float32"),
    "several subgraphs": (two_subgraphs(), r"one subgraph is expected, this one has 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    made, sentence = REFUSED[name]
    with pytest.raises(TfliteError, match=sentence):
        read_tflite(made.content())


def test_another_file_is_refused() -> None:
    with pytest.raises(TfliteError, match=r"not a TensorFlow Lite model: its mark TFL3"):
        read_tflite(b"PK\x03\x04 something else")
    with pytest.raises(TfliteError, match="the TensorFlow Lite model is damaged"):
        read_tflite(attention_file().content()[:64])


def test_every_rule_is_among_these_tests() -> None:
    read = {name for name, *_ in attention_file().operators}
    here = {"CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "PRELU", "ADD", "PAD", "STRIDED_SLICE",
            "LOGISTIC", "DEQUANTIZE"}  # fmt: skip
    assert set(RULES) == read | here
