"""Batch surgery: a batch of three equals three single runs, on every pattern and real networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from fetching import weights
from networks.batching import row_shape, with_free_batch
from networks.dequantize import dequantize
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS
from tests.generated_networks import (
    NetworkWriter,
    converter_network,
    recognizer_network,
    swapper_network,
)
from tests.graphs.evaluation import open_session

# Float32 sums in another order for another batch size; outputs are of order one.
ROUNDING = 2e-5
HALF_ROUNDING = 4e-3


def make_feeds(network: onnx.ModelProto, rows: int) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    feeds = {}
    for value in network.graph.input:
        dims = [dim.dim_value or 32 for dim in value.type.tensor_type.shape.dim][1:]
        feeds[value.name] = rng.normal(size=(rows, *dims)).astype(np.float32)
    return feeds


def assert_rows_equal_single_runs(
    network: onnx.ModelProto, *, atol: float = ROUNDING, image_size: int = 32, scale: float = 1.0
) -> onnx.ModelProto:
    """Compare a batch of three, and a batch of one, with the network as published."""
    free = with_free_batch(network, image_size=image_size)
    onnx.checker.check_model(free, full_check=True)
    feeds = {name: rows * np.float32(scale) for name, rows in make_feeds(network, 3).items()}
    published, batched = open_session(network), open_session(free)
    singles = [
        published.run(None, {name: rows[i : i + 1] for name, rows in feeds.items()})
        for i in range(3)
    ]
    for rows in (3, 1):
        results = batched.run(None, {name: value[:rows] for name, value in feeds.items()})
        for position, result in enumerate(results):
            assert result.shape[0] == rows
            assert rows == 1 or np.abs(result[0] - result[1]).max() > 10 * atol
            for i in range(rows):
                single = singles[i][position].reshape(result[i].shape)
                np.testing.assert_allclose(result[i], single, rtol=0, atol=atol)
    return free


Pattern = Callable[[NetworkWriter, str], str]


def int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def reshape(net: NetworkWriter, x: str, *shape: int) -> str:
    return net.node("Reshape", x, net.constant(int64(*shape)))


def anchors_first(net: NetworkWriter, x: str) -> str:
    """det_10g's head: the batch passes through the middle, then vanishes into the anchors."""
    rows = net.node("Transpose", x, perm=[2, 3, 0, 1])
    return net.node("Sigmoid", reshape(net, rows, -1, 2))


def merged_levels(net: NetworkWriter, x: str) -> str:
    flat = reshape(net, net.node("Transpose", x, perm=[0, 2, 3, 1]), -1, 4)
    turned = net.node("Transpose", net.node("Concat", flat, flat, axis=0), perm=[1, 0])
    return net.node("Mul", turned, net.scalar(2.0))


def size_arithmetic(net: NetworkWriter, x: str) -> str:
    """The exporter's way to write a view: sizes read from the tensor, put together, used."""
    shape = net.node("Shape", x)
    sizes = [net.node("Gather", shape, net.constant(int64(axis)), axis=0) for axis in (0, 1)]
    return net.node("Reshape", x, net.node("Concat", *sizes, net.constant(int64(-1)), axis=0))


def resize_sizes(net: NetworkWriter, x: str, side: int) -> str:
    empty = net.constant(np.zeros(0, np.float32))
    target = net.constant(int64(1, 4, side, side))
    return net.node(
        "Resize",
        *(x, empty, empty, target),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def upsample_like(net: NetworkWriter, x: str) -> str:
    """A feature pyramid's step: sizes come from another level's shape."""
    small = net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    shape = net.node("Shape", x)
    starts, ends = net.constant(int64(2)), net.constant(int64(4))
    spatial = net.node("Slice", shape, starts, ends, net.constant(int64(0)))
    target = net.node("Concat", net.constant(int64(1, 4)), spatial, axis=0)
    empty = net.constant(np.zeros(0, np.float32))
    large = net.node("Resize", small, empty, empty, target, mode="nearest")
    return net.node("Add", large, x)


def style(net: NetworkWriter, x: str) -> str:
    pooled = reshape(net, net.node("GlobalAveragePool", x), 1, 4)
    both = reshape(net, net.linear(pooled, 4, 8), 1, 2, 4, 1, 1)
    scale = net.node("Gather", both, net.constant(np.int64(0)), axis=1)
    shift = net.node("Gather", both, net.constant(np.int64(1)), axis=1)
    return net.node("Add", net.node("Mul", x, scale), shift)


def chunked_style(net: NetworkWriter, x: str) -> str:
    pooled = net.node("Squeeze", net.node("GlobalAveragePool", x), axes=[2, 3])
    both = net.node("Unsqueeze", net.linear(pooled, 4, 8), axes=[2, 3])
    scale, shift = f"{both}_scale", f"{both}_shift"
    net.nodes.append(helper.make_node("Split", [both], [scale, shift], axis=1))
    return net.node("Add", net.node("Mul", x, scale), shift)


def attention(net: NetworkWriter, x: str) -> str:
    keys = reshape(net, x, 1, 4, -1)
    rows = net.node("MatMul", keys, net.node("Transpose", keys, perm=[0, 2, 1]))
    weights = net.node("Softmax", net.node("Mul", rows, net.scalar(0.01)), axis=2)
    return net.node("MatMul", weights, keys)


def everything_norm(net: NetworkWriter, x: str) -> str:
    return net.node("Div", x, net.node("ReduceL2", x, keepdims=1))


PATTERNS: dict[str, Pattern] = {
    "a convolution": lambda net, x: net.conv(x, 4, 3, 3, pads=[1] * 4),
    "a transposed convolution": lambda net, x: net.node("ConvTranspose", x, net.weight(4, 3, 2, 2)),
    "a reflected pad": lambda net, x: net.node(
        "Pad", x, net.constant(int64(0, 0, 1, 1, 0, 0, 1, 1)), mode="reflect"
    ),
    "a target with 1 first": lambda net, x: reshape(net, x, 1, 4, 1024),
    "a target with -1 last": lambda net, x: reshape(net, x, 1, -1),
    "a target with -1 first": lambda net, x: reshape(net, x, -1, 4096),
    "a target with 0 first": lambda net, x: reshape(net, x, 0, 2, 2, -1),
    "anchors with the batch inside": anchors_first,
    "anchors of several levels": merged_levels,
    "anchors with the batch kept": lambda net, x: reshape(
        net, net.node("Transpose", x, perm=[0, 2, 3, 1]), 1, -1, 2
    ),
    "a batch lost and found": lambda net, x: reshape(net, reshape(net, x, 4, 1024), 1, 4, 32, 32),
    "a squeezed batch": lambda net, x: net.node("Squeeze", x, axes=[0]),
    "a squeeze of all ones": lambda net, x: net.node(
        "Squeeze", net.node("ReduceMean", x, axes=[1, 3])
    ),
    "a squeezed batch put back": lambda net, x: net.node(
        "Unsqueeze", net.node("Relu", net.node("Squeeze", x, axes=[0])), axes=[0]
    ),
    "size arithmetic": size_arithmetic,
    "a doubled size": lambda net, x: resize_sizes(net, x, 64),
    "an odd size": lambda net, x: resize_sizes(net, x, 45),
    "a size of another level": upsample_like,
    "a style vector": style,
    "a chunked style vector": chunked_style,
    "attention over channels": attention,
    "a norm of everything": everything_norm,
    "an expanded constant": lambda net, x: net.node(
        "Add",
        x,
        net.node("Expand", net.weight(1, 4, 1, 1), net.constant(int64(1, 4, 32, 32))),
    ),
    "an expanded value": lambda net, x: net.node(
        "Expand", net.node("GlobalAveragePool", x), net.constant(int64(1, 4, 3, 3))
    ),
    "a tiled value": lambda net, x: net.node("Tile", x, net.constant(int64(1, 2, 1, 1))),
    "a slice of the whole batch": lambda net, x: net.node(
        "Slice", x, net.constant(int64(0, 1)), net.constant(int64(1, 3)), net.constant(int64(0, 1))
    ),
    "a flattened row": lambda net, x: net.linear(net.node("Flatten", x, axis=1), 4096, 8),
    "a flatten at axis 0": lambda net, x: net.node("Flatten", x, axis=0),
    "a reduced axis": lambda net, x: net.node("ReduceMax", x, axes=[1], keepdims=0),
    "normalised instances": lambda net, x: net.node(
        "InstanceNormalization", x, net.bias(4), net.bias(4)
    ),
    "pixels from channels": lambda net, x: net.node("DepthToSpace", x, blocksize=2),
}


def pattern_network(pattern: Pattern) -> onnx.ModelProto:
    net = NetworkWriter(7)
    result = pattern(net, net.node("Relu", "image"))
    net.node("Identity", result, output="result")
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(
            helper.make_graph(
                net.nodes,
                "pattern",
                [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 32, 32])],
                [helper.make_empty_tensor_value_info("result")],
                net.initializers,
            ),
            opset_imports=[helper.make_opsetid("", 11)],
            ir_version=6,
        ),
        data_prop=True,
    )
    (output,) = inferred.graph.output
    dims = [dim.dim_value or f"d{i}" for i, dim in enumerate(output.type.tensor_type.shape.dim)]
    return net.model({"image": [1, 4, 32, 32]}, {"result": dims})


def is_published(name: str) -> bool:
    """A file of others; the project's own networks are written with a free batch."""
    return SWAPPERS[name].weight is not None and not SWAPPERS[name].points


@pytest.mark.parametrize("name", PATTERNS)
def test_a_batch_equals_single_runs_through(name: str) -> None:
    assert_rows_equal_single_runs(pattern_network(PATTERNS[name]))


@pytest.mark.parametrize("name", [name for name in SWAPPERS if is_published(name)])
def test_a_published_swapper_contract_is_freed(name: str) -> None:
    half = "fp16" in name or "hyperswap" in name
    assert_rows_equal_single_runs(swapper_network(name), atol=HALF_ROUNDING if half else ROUNDING)


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_a_published_recognizer_contract_is_freed(name: str) -> None:
    # 2e-3: embeddings are some hundred times larger than the other outputs here.
    assert_rows_equal_single_runs(recognizer_network(name), atol=2e-3)


@pytest.mark.parametrize("name", ["crossface_simswap", "crossface_ghost"])
def test_a_published_converter_contract_is_freed(name: str) -> None:
    assert_rows_equal_single_runs(converter_network(name))


@pytest.mark.parametrize("name", ["yunet", "sface", "scrfd_2.5g"])
def test_a_real_network_is_freed(name: str) -> None:
    path = weights.fetch(name, accept_licence=True)
    published = onnx.load(path)
    if name != "scrfd_2.5g":
        # ONNX Runtime takes these two only when their weights are unpacked.
        published = dequantize(published)
    # 2e-4: offsets of landmarks and raw embeddings reach 10, over some 30 layers. Grey levels, but
    # for SCRFD, whose input is normalised.
    scale = 1.0 if name == "scrfd_2.5g" else 100.0
    free = assert_rows_equal_single_runs(published, atol=2e-4, scale=scale)
    for value in free.graph.output:
        assert value.type.tensor_type.shape.dim[0].dim_param == "B"


def test_scrfd_with_a_free_batch_equals_the_file_as_published() -> None:
    published = onnx.load(weights.fetch("scrfd_2.5g", accept_licence=True))
    free = with_free_batch(weights.load_network("scrfd_2.5g"))
    frames = np.random.default_rng(2).uniform(-1, 1, (3, 3, 640, 640)).astype(np.float32)
    name = published.graph.input[0].name
    together = open_session(free).run(None, {name: frames})
    session = open_session(published)
    for row in range(3):
        alone = session.run(None, {name: frames[row : row + 1]})
        assert len(together) == len(alone) == 9
        for ours, expected in zip(together, alone, strict=True):
            # Nearest-neighbour doubling by scales instead of sizes: the same copies, the same sums.
            # A batch may be summed in another order. Seen: 2e-6.
            np.testing.assert_allclose(ours[row], expected.reshape(ours[row].shape), atol=1e-5)


def test_two_calls_on_scrfd_give_the_same_bytes() -> None:
    weights.fetch("scrfd_2.5g", accept_licence=True)
    first, second = (
        with_free_batch(weights.load_network("scrfd_2.5g")).SerializeToString() for _ in range(2)
    )
    assert first == second


def test_the_shape_of_a_row_leaves_the_batch_out_and_names_what_is_open() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "side", None])
    assert row_shape(value) == [3, "side", ""]


def test_open_heights_and_widths_become_the_image_size() -> None:
    network = pattern_network(PATTERNS["a size of another level"])
    for axis in (2, 3):
        network.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "?"
    del network.graph.output[0].type.tensor_type.shape.dim[:]
    free = assert_rows_equal_single_runs(network)
    dims = [d.dim_value or d.dim_param for d in free.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["B", 4, 32, 32]


def test_an_output_without_a_batch_axis_gets_one() -> None:
    free = with_free_batch(pattern_network(anchors_first))
    dims = [d.dim_value or d.dim_param for d in free.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["B", 2048, 2]


def test_a_free_network_stays_as_it_is_and_bytes_repeat() -> None:
    network = swapper_network("ghost_1_256")
    once = with_free_batch(network)
    again = with_free_batch(network)
    twice = with_free_batch(once)
    assert once.SerializeToString() == again.SerializeToString()
    assert [node.op_type for node in twice.graph.node] == [n.op_type for n in once.graph.node]
    feeds = make_feeds(network, 3)
    for first, second in zip(
        open_session(once).run(None, feeds), open_session(twice).run(None, feeds), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def modulated_convolution(net: NetworkWriter, x: str) -> str:
    """StyleGAN2's layer at batch 1: the style scales the weights, not the values."""
    pooled = reshape(net, net.node("GlobalAveragePool", x), 1, 1, 4, 1, 1)
    weights = net.node("Mul", net.weight(1, 3, 4, 1, 1), pooled)
    return net.node("Conv", x, reshape(net, weights, 3, 4, 1, 1), kernel_shape=[1, 1])


REFUSED: dict[str, tuple[Pattern, str]] = {
    "each image has weights of its own": (
        modulated_convolution,
        r"\(Conv\) cannot be given a free batch: its weights depend on the input",
    ),
    "one image is picked": (
        lambda net, x: net.node("Gather", x, net.constant(np.int64(0)), axis=0),
        r"\(Gather\) .*: it picks one image of the batch",
    ),
    "the batch is summed": (
        lambda net, x: net.node("ReduceMean", x, axes=[0, 1]),
        r"\(ReduceMean\) .*: it reduces over the batch axis",
    ),
    "the batch is joined with itself": (
        lambda net, x: net.node("Concat", x, x, axis=0),
        r"\(Concat\) .*: it joins along the batch axis",
    ),
    "the batch is repeated": (
        lambda net, x: net.node("Tile", x, net.constant(int64(2, 1, 1, 1))),
        r"\(Tile\) .*: it repeats the batch axis",
    ),
    "the batch is padded": (
        lambda net, x: net.node("Pad", x, net.constant(int64(1, 0, 0, 0, 0, 0, 0, 0))),
        r"\(Pad\) .*: it pads the batch axis",
    ),
    "an operator without a rule": (
        lambda net, x: net.node("CumSum", x, net.constant(np.int64(1))),
        r"\(CumSum\) .*: there is no rule for this operator",
    ),
    "the batch is not first in the end": (
        lambda net, x: net.node("Transpose", x, perm=[1, 0, 2, 3]),
        r"output result has its batch at axis 1, expected axis 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_is_refused_by_node_when(name: str) -> None:
    pattern, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        with_free_batch(pattern_network(pattern))


def test_an_export_for_another_batch_is_refused() -> None:
    network = pattern_network(PATTERNS["a convolution"])
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(ValueError, match="input image was exported for a batch of 4"):
        with_free_batch(network)


def test_an_input_with_an_unknown_length_is_refused() -> None:
    network = converter_network("crossface_ghost")
    network.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "?"
    with pytest.raises(ValueError, match="input input leaves axis 1 open"):
        with_free_batch(network)
