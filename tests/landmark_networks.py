"""Tiny stand-ins for the landmark networks, with exactly their tensor contracts.

Names, shapes, batch, number of outputs as published; the weights are seeded noise. Points lie all
over the view, and whether there is a face depends on the picture. None of these finds a landmark.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.generated_networks import NetworkWriter

MESH_OUTPUTS = {
    "face_landmarker_v2": {"Identity": 1434, "Identity_1": 1, "Identity_2": 1},
    "face_mesh_attention": {
        "output_mesh_identity": 1404,
        "output_lips": 160,
        "output_left_eye": 142,
        "output_right_eye": 142,
        "output_left_iris": 10,
        "output_right_iris": 10,
        "conv_faceflag": 1,
    },
}
_SIZES = {"face_landmarker_v2": 256, "face_mesh_attention": 192}
# Of these, random pictures show faces and none.
_SEEDS = {"face_landmarker_v2": 7, "face_mesh_attention": 5}


def landmarker_network(name: str) -> onnx.ModelProto:
    """A network with the contract of landmarker `name` (a key of LANDMARKERS)."""
    net = NetworkWriter(_SEEDS.get(name, 0))
    if name in MESH_OUTPUTS:
        return _mesh(net, name)
    if name == "fan_68_5":
        flat = net.node("Flatten", "input", axis=1)
        points = net.node("Sigmoid", net.linear(flat, 10, 136))
        _shaped(net, points, [1, 68, 2], "output")
        return net.model({"input": [1, 5, 2]}, {"output": [1, 68, 2]})
    x = net.conv("input", 3, 68, 4, strides=[4, 4])
    points = _points(net, x, 68 * 64 * 64, 204, scale=64.0)
    outputs: dict[str, list[int | str]] = {"landmarks": [1, 68, 3]}
    # Bright pictures show a face.
    brightness = net.node("ReduceMean", "input", axes=[1, 2, 3], keepdims=1)
    brightness = net.node("Mul", brightness, net.scalar(1.15 if name == "2dfan4" else 1.0))
    if name == "2dfan4":
        net.node("Mul", net.node("Sigmoid", x), brightness, output="heatmaps")
        outputs["heatmaps"] = [1, 68, 64, 64]
    else:
        # The third number is a score.
        score = net.node("Mul", points, net.node("Flatten", brightness, axis=1))
        score = net.node("Mul", score, net.constant(np.tile(np.float32([0, 0, 1 / 40]), 68)))
        points = net.node("Mul", points, net.constant(np.tile(np.float32([1, 1, 0]), 68)))
        points = net.node("Add", points, score)
    _shaped(net, points, [1, 68, 3], "landmarks")
    return net.model({"input": [1, 3, 256, 256]}, outputs)


def _mesh(net: NetworkWriter, name: str) -> onnx.ModelProto:
    size = _SIZES[name]
    side = size // 16
    slopes = net.constant(np.linspace(-0.5, 2, 8, dtype=np.float32).reshape(8, 1, 1))
    x = net.node("PRelu", net.conv("image", 3, 8, 16, strides=[16, 16]), slopes)
    heads = net.conv(x, 8, 4, side)
    for output, length in MESH_OUTPUTS[name].items():
        head = net.node("Flatten", net.node("Tanh", net.conv(heads, 4, length, 1)), axis=1)
        if length > 1:
            head = net.node("Add", head, net.scalar(1.0))
        factor = size / 2 if length > 1 else 20.0
        net.node("Mul", head, net.scalar(factor), output=output)
    return net.model(
        {"image": ["B", 3, size, size]},
        {output: ["B", length] for output, length in MESH_OUTPUTS[name].items()},
    )


def _points(net: NetworkWriter, x: str, cin: int, cout: int, *, scale: float) -> str:
    """Numbers in [0, scale] that depend on all of x, [1, cout]."""
    small = net.node("AveragePool", x, kernel_shape=[16, 16], strides=[16, 16])
    flat = net.node("Flatten", small, axis=1)
    found = net.node("Sigmoid", net.linear(flat, cin // 256, cout))
    return net.node("Mul", found, net.scalar(scale))


def _shaped(net: NetworkWriter, value: str, shape: list[int], output: str) -> None:
    net.node("Reshape", value, net.constant(np.array(shape, np.int64)), output=output)
