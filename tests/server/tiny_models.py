"""A model repository of tiny networks, for the launcher and the backend.

invert_frame  uint8 BGR frame [H, W, 3] and options [4] -> 255 - frame + option 0; `seen_frame`
              is the frame passed through. Bounds: 8x8 to 96x64 (width x height).
invert_i420   the same for an I420 frame [H*3/2, W], without options.
tint_faces    crops [K, 3, 4, 4], source [K, 2], faces [16, 15] -> crops * source[0] + source[1] +
              first column of the face: joined along the face rows.
invert_twice  ensemble of invert_frame with itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CROP = 4
MOST_FACES = 5
MOST_ROWS = 6


def write_tiny_repository(folder: Path, *, target: str = "cpu") -> Path:
    """Write the models under `folder` and return it."""
    for name, (config, network) in TINY_MODELS.items():
        write_model(folder, name, config, network, target=target)
    return folder


def write_model(
    folder: Path, name: str, config: str, network: onnx.ModelProto | None, *, target: str = "cpu"
) -> None:
    """Write one model: the same config as base and as a target's, and its network."""
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "configs").mkdir()
    text = f'name: "{name}"\n{config}'
    (folder / name / "config.pbtxt").write_text(text)
    (folder / name / "configs" / f"{target}.pbtxt").write_text(text)
    if network is not None:
        onnx.save(network, folder / name / "1" / "model.onnx")


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def invert_network(rank: int, *, with_options: bool) -> onnx.ModelProto:
    """255 - frame (+ options[0]) on uint8 frames of the given rank, batch axis included."""
    axes: list[int | str] = ["B", "R", "W", 3][:rank]  # type: ignore[list-item]
    nodes = [
        helper.make_node("Cast", ["frame"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["full", "as_float"], ["inverted"]),
    ]
    inputs: dict[str, tuple[int, list[int | str]]] = {"frame": (TensorProto.UINT8, axes)}
    constants = {"full": np.float32(255).reshape(())}
    last = "inverted"
    if with_options:
        inputs["options"] = (TensorProto.FLOAT, ["B", 4])
        constants |= {"zero": np.array([0]), "one": np.array([1]), "axis": np.array([1])}
        constants["shape"] = np.array([-1, 1, 1, 1])
        nodes += [
            helper.make_node("Slice", ["options", "zero", "one", "axis"], ["first"]),
            helper.make_node("Reshape", ["first", "shape"], ["offset"]),
            helper.make_node("Add", ["inverted", "offset"], ["shifted"]),
        ]
        last = "shifted"
    nodes.append(helper.make_node("Cast", [last], ["inverted_frame"], to=TensorProto.UINT8))
    outputs = {"inverted_frame": (TensorProto.UINT8, axes)}
    return _model(nodes, inputs, outputs, constants)


def tint_network() -> onnx.ModelProto:
    """crops * source[..., 0] + source[..., 1] + faces[:, 0, 0], for [N, K] rows."""
    nodes = [
        helper.make_node("Split", ["source"], ["gain", "bias"], axis=2, num_outputs=2),
        helper.make_node("Reshape", ["gain", "shape"], ["gain5"]),
        helper.make_node("Reshape", ["bias", "shape"], ["bias5"]),
        helper.make_node("Slice", ["faces", "starts", "ends", "axes"], ["corner"]),
        helper.make_node("Reshape", ["corner", "corner_shape"], ["corner5"]),
        helper.make_node("Mul", ["crops", "gain5"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias5"], ["tinted"]),
        helper.make_node("Add", ["tinted", "corner5"], ["swapped_crops"]),
    ]
    f = TensorProto.FLOAT
    return _model(
        nodes,
        {
            "crops": (f, ["B", "K", 3, CROP, CROP]),
            "source": (f, ["B", "K", 2]),
            "faces": (f, ["B", 16, 15]),
        },
        {"swapped_crops": (f, ["B", "K", 3, CROP, CROP])},
        {
            "shape": np.array([0, 0, 1, 1, 1]),
            "corner_shape": np.array([0, 1, 1, 1, 1]),
            "starts": np.array([0, 0]),
            "ends": np.array([1, 1]),
            "axes": np.array([1, 2]),
        },
    )


_CPU = "instance_group { kind: KIND_CPU count: 1 }\n"
_BATCHES = "dynamic_batching { max_queue_delay_microseconds: 20000 }\n"
"""A delay long enough that requests sent together form a batch also on a busy machine."""

FRAME_LIMITS = "".join(
    parameter(key, value)
    for key, value in {
        "min_height": "8", "min_width": "8", "max_height": "64", "max_width": "96",
        "intra_op_thread_count": "1",
    }.items()
)  # fmt: skip

_INVERT = (
    'backend: "onnxruntime"\nmax_batch_size: 8\n'
    'input { name: "frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }\n'
    'input { name: "options" data_type: TYPE_FP32 dims: [4] }\n'
    'output { name: "inverted_frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }\n'
    'output { name: "seen_frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }\n'
    + _CPU
    + _BATCHES
    + FRAME_LIMITS
    + parameter("frame_format", "bgr")
    + parameter("finite_inputs", "options")
    + parameter("option_ranges", "shift=0..7,strength=0.0..1.0,reserved=0..0,reserved=0..0")
    + parameter("passthrough", "seen_frame=frame")
)

_INVERT_I420 = (
    'backend: "onnxruntime"\nmax_batch_size: 8\n'
    'input { name: "frame" data_type: TYPE_UINT8 dims: [-1, -1] }\n'
    'output { name: "inverted_frame" data_type: TYPE_UINT8 dims: [-1, -1] }\n'
    + _CPU
    + _BATCHES
    + FRAME_LIMITS
    + parameter("frame_format", "i420")
)

_TINT = (
    'backend: "onnxruntime"\nmax_batch_size: 8\n'
    f'input {{ name: "crops" data_type: TYPE_FP32 dims: [-1, 3, {CROP}, {CROP}] '
    "allow_ragged_batch: true }\n"
    'input { name: "source" data_type: TYPE_FP32 dims: [-1, 2] allow_ragged_batch: true }\n'
    'input { name: "faces" data_type: TYPE_FP32 dims: [16, 15] }\n'
    f'output {{ name: "swapped_crops" data_type: TYPE_FP32 dims: [-1, 3, {CROP}, {CROP}] }}\n'
    + _CPU
    + _BATCHES
    + "".join(
        parameter(key, value)
        for key, value in {
            "face_inputs": "crops,source", "max_faces": str(MOST_FACES),
            "finite_inputs": "source", "row_inputs": "crops,source", "row_mask": "faces",
            "row_outputs": "swapped_crops", "max_rows": str(MOST_ROWS),
            "intra_op_thread_count": "1",
        }.items()
    )
)  # fmt: skip

_TWICE = """platform: "ensemble"
max_batch_size: 8
input { name: "frame" data_type: TYPE_UINT8 dims: [-1, -1, 3] }
input { name: "options" data_type: TYPE_FP32 dims: [4] }
output { name: "twice" data_type: TYPE_UINT8 dims: [-1, -1, 3] }
ensemble_scheduling {
  step {
    model_name: "invert_frame" model_version: -1
    input_map { key: "frame" value: "frame" }
    input_map { key: "options" value: "options" }
    output_map { key: "inverted_frame" value: "once" }
  }
  step {
    model_name: "invert_frame" model_version: -1
    input_map { key: "frame" value: "once" }
    input_map { key: "options" value: "options" }
    output_map { key: "inverted_frame" value: "twice" }
  }
}
"""

TINY_MODELS: dict[str, tuple[str, onnx.ModelProto | None]] = {
    "invert_frame": (_INVERT, invert_network(4, with_options=True)),
    "invert_i420": (_INVERT_I420, invert_network(3, with_options=False)),
    "tint_faces": (_TINT, tint_network()),
    "invert_twice": (_TWICE, None),
}
