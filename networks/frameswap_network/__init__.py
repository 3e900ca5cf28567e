"""The project's own neural swapper as an ONNX network, written from its weights without PyTorch.

`training/` makes the weights, one .npz file of float16 arrays; `training/networks.py` is the same
network in PyTorch, and a test holds the two together. What is here is written for serving: the
kernel regression on a grid is three passes over one tensor (`warping`), blurs are matrix products.

Nodes named `float32/...` make coordinates, light and the composition: `GraphAuthor.embed` leaves
their names alone, so that they are never typed. All others are the U-Net.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import GraphBuilder

from graphs.contract import IR_VERSION, OPSET
from networks.face_points import MEDIAPIPE_POINTS
from networks.frameswap_network.arrays import CROP, Arrays
from networks.frameswap_network.composition import compose, prepare
from networks.frameswap_network.unet import paint
from networks.frameswap_network.warping import mean_mesh, retarget, warp_crops

__all__ = ["build_network", "read_weights"]

_INPUTS = {
    "target": (3, CROP, CROP),
    "source": (3, CROP, CROP),
    "target_landmarks": (MEDIAPIPE_POINTS, 3),
    "target_points": (5, 2),
    "source_landmarks": (MEDIAPIPE_POINTS, 3),
}


def read_weights(content: bytes) -> Arrays:
    """The arrays of a `swapper.npz`, float32.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key].astype(np.float32) for key in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a whole .npz file: {error}") from error
    needed = {"mean_shape", "retargeter.mean", "generator.entry.weight", "generator.head.weight"}
    if not needed <= set(arrays):
        missing = ", ".join(sorted(needed - set(arrays)))
        raise ValueError(f"no weights of the project's swapper: {missing} is not in it")
    return arrays


def build_network(content: bytes) -> onnx.ModelProto:
    """The network of one `swapper.npz`, float32, with a free batch N.

    Its widths are those of the weights: the small variant is built the same way.

    Returns:
        A model with inputs `target` and `source` [N, 3, 256, 256] RGB in [0, 1], aligned to
        arcface_128, `target_landmarks` and `source_landmarks` [N, 478, 3], MediaPipe's points in
        sides of the crop, and `target_points` [N, 5, 2], the five points of the target's face in
        the same unit; and outputs `output` [N, 3, 256, 256] RGB in [0, 1] and `mask`
        [N, 1, 256, 256] in [0, 1], under which `output` shows the swap. A face whose landmarks are
        zeros gets the mean face, moved to its five points.

    Raises:
        ValueError: not the file of such weights.
    """
    arrays = read_weights(content)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="frameswap_network")
    builder = GraphBuilder(graph)
    op = builder.op
    fed = {
        name: builder.input(name, ir.DataType.FLOAT, ["N", *dims]) for name, dims in _INPUTS.items()
    }
    # of FLOAT32_PREFIX, which ends in a slash
    builder.push_module("float32")
    marks = mean_mesh(op, arrays, fed["target_landmarks"], fed["target_points"])
    source_marks = mean_mesh(op, arrays, fed["source_landmarks"], None)
    goal = retarget(op, arrays, marks, source_marks)
    warped = warp_crops(op, arrays, fed["target"], fed["source"], marks, source_marks, goal)
    prepared = prepare(op, warped)
    builder.pop_module()
    painted = paint(op, arrays, prepared.seen, prepared.pictures)
    builder.push_module("float32")
    output, mask = compose(op, warped, prepared.lit, painted)
    builder.pop_module()
    for value, name, channels in ((output, "output", 3), (mask, "mask", 1)):
        value.shape, value.dtype = ir.Shape(["N", channels, CROP, CROP]), ir.DataType.FLOAT
        builder.add_output(value, name)
    network = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION, producer_name="frameswap"))
    onnx.checker.check_model(network, full_check=True)
    return network
