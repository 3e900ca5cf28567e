"""Shape arithmetic against ONNX Runtime: every tensor's real shape, and overflow found by it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from engines.errors import ProfileError
from engines.shapes import MAX_ELEMENTS, GraphShapes, check_elements, infer_shapes
from fetching.weights import load_network
from graphs import face_detector, face_swapper
from graphs.contract import FRAME_FORMATS, FrameFormat
from networks.detectors import DETECTORS
from networks.swappers import SWAPPERS
from tests.generated_networks import swapper_network

Shapes = dict[str, tuple[int, ...]]


def run_and_measure(model: onnx.ModelProto, inputs: Shapes) -> Shapes:
    """Shapes of all tensors of the main graph as ONNX Runtime makes them."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in exposed.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                exposed.graph.output.add().name = name
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(exposed.SerializeToString(), options)
    dtypes = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    feeds = {
        value.name: np.zeros(inputs[value.name], dtypes[value.type])
        for value in session.get_inputs()
    }
    names = [value.name for value in session.get_outputs()]
    return {
        name: np.shape(value) for name, value in zip(names, session.run(names, feeds), strict=True)
    }


def assert_same_shapes(model: onnx.ModelProto, inputs: Shapes) -> GraphShapes:
    found = infer_shapes(model, inputs)
    real = run_and_measure(model, inputs)
    ours = {tensor.name: tensor.shape for tensor in found.tensors if tensor.name in real}
    constants = {
        name for node in model.graph.node if node.op_type == "Constant" for name in node.output
    }
    assert ours == {name: shape for name, shape in real.items() if name not in constants}
    return found


@pytest.mark.parametrize("frame_format", FRAME_FORMATS)
@pytest.mark.parametrize(("height", "width", "faces"), [(64, 64, 1), (90, 160, 3)])
def test_every_tensor_of_the_detector_has_the_shape_that_onnx_runtime_makes(
    frame_format: FrameFormat, height: int, width: int, faces: int
) -> None:
    detector, swapper = DETECTORS["yunet"], SWAPPERS["image_swapper_256"]
    model = face_detector.build(
        frame_format, detector, load_network(detector.weight), swapper=swapper
    )
    frame = (2, height * 3 // 2, width) if frame_format == "i420" else (2, height, width, 3)
    inputs = {"frame": frame, "source": (2, faces, swapper.source_length), "options": (2, 8)}
    found = assert_same_shapes(model, inputs)
    assert {tensor.name for tensor in found.outputs} >= {"faces", "crops", "warps"}


@pytest.mark.parametrize("name", ["inswapper_128", "simswap_256"])
@pytest.mark.parametrize(("batch", "faces"), [(1, 1), (3, 2)])
def test_every_tensor_of_the_swapper_has_the_shape_that_onnx_runtime_makes(
    name: str, batch: int, faces: int
) -> None:
    row = SWAPPERS[name]
    model = face_swapper.build(row, swapper_network(name))
    crops = (batch, faces, 3, row.crop_size, row.crop_size)
    inputs = {"crops": crops, "source": (batch, faces, row.source_length), "faces": (batch, 16, 15)}
    found = assert_same_shapes(model, inputs)
    # The network is inside a branch, whose tensors are counted too.
    assert len(found.tensors) > len(model.graph.node)


def graph(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')


LOOP = graph(
    """g (float[B, N] x, int64 trips) => (float[B, N] last, float[T, B, N] all) {
        yes = Constant<value_int = 1>()
        run = Cast<to = 9>(yes)
        last, all = Loop(trips, run, x) <body = b (int64 i, bool go, float[B, N] carried) =>
            (bool still, float[B, N] next, float[B, N] row) {
                still = Identity(go)
                next = Add(carried, carried)
                row = Relu(next)
            }>
    }"""
)


def fixed_loop(trips: int) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(LOOP)
    model.graph.input.pop()
    model.graph.initializer.append(numpy_helper.from_array(np.array(trips), "trips"))
    return model


@given(batch=st.integers(1, 5), width=st.integers(1, 7), trips=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_a_loop_gathers_as_many_rows_as_it_runs(batch: int, width: int, trips: int) -> None:
    found = assert_same_shapes(fixed_loop(trips), {"x": (batch, width)})
    assert {"next", "row"} <= {tensor.name for tensor in found.tensors}


def test_a_loop_whose_rows_are_counted_by_data_has_no_largest_shape() -> None:
    with pytest.raises(ProfileError, match=r"\(Loop\) gathers as many rows as the data says"):
        infer_shapes(LOOP, {"x": (1, 2), "trips": ()})


@given(
    batch=st.integers(1, 4), side=st.integers(2, 9), start=st.integers(0, 1), step=st.integers(1, 2)
)
@settings(max_examples=25, deadline=None)
def test_shapes_that_are_computed_inside_the_graph_are_followed(
    batch: int, side: int, start: int, step: int
) -> None:
    model = graph(
        f"""g (float[B, S, S, 3] x) => (float[N, C, D] y) {{
            shape = Shape(x)
            zero, one, two, m1 = Split<num_outputs = 4>(all)
            all = Constant<value_ints = [0, 1, 2, -1]>()
            rows = Gather(shape, zero)
            start = Constant<value_ints = [{start}]>()
            step = Constant<value_ints = [{step}]>()
            sliced = Slice(x, start, two, one, step)
            area = ReduceProd<keepdims = 1>(shape, zero)
            flat = Concat<axis = 0>(rows, m1, one)
            y = Reshape(sliced, flat)
        }}"""
    )
    nodes = sorted(model.graph.node, key=lambda node: node.op_type != "Constant")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert_same_shapes(model, {"x": (batch, side, side, 3)})


def test_a_shape_that_only_data_decides_is_refused_with_the_nodes_name() -> None:
    model = graph("g (float[B, 4] x) => (int64[2, N] y) { y = NonZero(x) }")
    model.graph.node[0].name = "postprocess/find"
    with pytest.raises(ProfileError, match=r"'y' is decided by data: node 'postprocess/find'"):
        infer_shapes(model, {"x": (1, 4)})


def test_inputs_that_do_not_fit_a_node_are_refused_with_its_name() -> None:
    model = graph("g (float[A, B] x, float[C, D] w) => (float[A, D] y) { y = MatMul(x, w) }")
    model.graph.node[0].name = "network/product"
    with pytest.raises(ProfileError, match=r"'network/product' \(MatMul\) cannot take"):
        infer_shapes(model, {"x": (2, 3), "w": (4, 5)})


def test_missing_input_shapes_are_named() -> None:
    model = graph("g (float[A] x) => (float[A] y) { y = Relu(x) }")
    with pytest.raises(ProfileError, match=r"\['frame'\], the graph has \['x'\]"):
        infer_shapes(model, {"frame": (1,)})


SPREAD = graph(
    """g (uint8[B, H, W] frame) => (float[B, K] y) {
        f = Cast<to = 1>(frame)
        many = Constant<value_ints = [16, 1, 1, 1]>()
        slots = Expand(f, many)
        top = ReduceMax<keepdims = 0>(slots, axes)
        axes = Constant<value_ints = [2, 3]>()
        y = Transpose(top)
    }"""
)


def test_a_tensor_that_passes_2_31_elements_is_found_though_it_would_compile() -> None:
    nodes = sorted(SPREAD.graph.node, key=lambda node: node.op_type != "Constant")
    model = onnx.ModelProto()
    model.CopyFrom(SPREAD)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for index, node in enumerate(model.graph.node):
        node.name = f"blend/{node.op_type}_{index}"
    assert (
        check_elements(model, {"frame": (8, 1080, 1920)}).largest.elements == 16 * 8 * 1080 * 1920
    )
    with pytest.raises(
        ProfileError, match=r"'slots' of node 'blend/Expand_\d' \(Expand\) has 2256076800 elements"
    ) as caught:
        check_elements(model, {"frame": (17, 2160, 3840)})
    assert f"more than the {MAX_ELEMENTS}" in str(caught.value)
    assert "[16, 17, 2160, 3840]" in str(caught.value)


def test_the_largest_tensor_may_have_exactly_the_limit() -> None:
    assert MAX_ELEMENTS == 2147483647
    model = graph("g (uint8[N] x) => (uint8[N] y) { y = Identity(x) }")
    assert check_elements(model, {"x": (MAX_ELEMENTS,)}).largest.elements == MAX_ELEMENTS
    with pytest.raises(ProfileError, match="2147483648 elements"):
        check_elements(model, {"x": (MAX_ELEMENTS + 1,)})


def test_peak_bytes_count_what_is_alive_at_the_same_time() -> None:
    model = graph(
        """g (float[N] x) => (float[N] y) {
            a = Relu(x)
            b = Neg(a)
            c = Abs(b)
            y = Add(c, c)
        }"""
    )
    found = infer_shapes(model, {"x": (1000,)})
    # Two of the four at a time: what a node reads and what it makes. The input is counted apart.
    assert found.peak_bytes == 2 * 4000
    assert found.io_bytes == 2 * 4000


def test_bytes_follow_the_element_type() -> None:
    model = graph(
        """g (float[N] x) => (float[N] y) {
            h = Cast<to = 10>(x)
            y = Cast<to = 1>(h)
        }"""
    )
    found = infer_shapes(model, {"x": (10,)})
    sizes = {tensor.name: (tensor.bytes, tensor.element_type) for tensor in found.tensors}
    assert sizes == {"h": (20, TensorProto.FLOAT16), "y": (40, TensorProto.FLOAT)}


def test_weights_are_counted_once() -> None:
    model = graph("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    assert infer_shapes(model, {"x": (2, 4)}).weight_bytes == 64
