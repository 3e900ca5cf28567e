"""A data directory of drawn faces: nobody's, but with the right points in the right places."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from training import face_mesh

Array = npt.NDArray[np.float64]
CENTRE = np.array([127.5, 140.0, 0.0])
PEOPLE, PHOTOS = 6, 3
"""The last person's photos are a clip: set "grid", one frame after the other."""


def _ring(count: int, x: float, y: float, wide: float, high: float, start: float) -> Array:
    """Points on an ellipse, (count, 2); `start` and on, degrees, clockwise as seen."""
    angles = np.radians(start + np.arange(count) * 360 / count)
    return np.stack([x + wide * np.cos(angles), y + high * np.sin(angles)], 1)


def mean_shape() -> npt.NDArray[np.float32]:
    """(478, 3), symmetrical about x = 0, on the arcface_128 template when put at `CENTRE`."""
    points = np.full((478, 2), np.nan)
    points[list(face_mesh.OVAL)] = _ring(36, 0, 0, 68, 92, -90)
    points[list(face_mesh.LIPS_OUTER)] = _ring(20, 0, 45, 29, 11, 180)[[*range(0, -20, -1)]]
    points[list(face_mesh.LIPS_INNER)] = _ring(20, 0, 45, 22, 2, 180)[[*range(0, -20, -1)]]
    for eye, side in ((face_mesh.RIGHT_EYE, -1), (face_mesh.LEFT_EYE, 1)):
        points[list(eye)] = _ring(16, side * 35, -37, 15, 6, 180)[[*range(0, -16, -1)]]
    for brow, side in ((face_mesh.RIGHT_BROW, -1), (face_mesh.LEFT_BROW, 1)):
        points[list(brow)] = _ring(10, side * 35, -56, 18, 5, 90 + 90 * side) * [1, 1]
    points[list(face_mesh.LEFT_BROW)] = points[list(face_mesh.RIGHT_BROW)] * [-1, 1]
    points[list(face_mesh.LID_CREASES)] = points[list(face_mesh.UPPER_LIDS)] - [0, 5]
    for first, side in ((468, -1), (473, 1)):
        points[first : first + 5] = [
            (side * 35 + side * dx, -37 + dy)
            for dx, dy in ((0, 0), (3, 0.2), (0.1, -3), (-3, 0.3), (0.2, 3))
        ]
    points[1] = (0, 3)
    free = np.flatnonzero(np.isnan(points[:, 0]))
    draw = np.random.default_rng(0)
    for k in range(0, len(free) - 1, 2):
        x, y = draw.uniform(2, 50), draw.uniform(-60, 70)
        points[free[k : k + 2]] = (x, y), (-x, y)
    if len(free) % 2:
        points[free[-1]] = (0, 20)
    depth = -25 * (1 - (points[:, :1] / 70) ** 2)
    return np.concatenate([points, depth], 1).astype(np.float32)


def _draw(landmarks: Array, draw: np.random.Generator, colour: Array) -> npt.NDArray[np.uint8]:
    """(320, 320, 3) RGB: oval, brows, eyes and mouth at the landmarks."""
    image = np.full((320, 320, 3), draw.integers(40, 200, 3), np.uint8)

    def fill(points: tuple[int, ...], value: Array) -> None:
        corners = np.round(landmarks[list(points), :2] + face_mesh.MARGIN).astype(np.int32)
        cv2.fillPoly(image, [corners], value.tolist(), cv2.LINE_AA)

    fill(face_mesh.OVAL, colour)
    fill(face_mesh.LIPS_OUTER, colour * [0.9, 0.4, 0.4])
    fill(face_mesh.LIPS_INNER, np.array([60.0, 20, 20]))
    for eye, brow in (
        (face_mesh.RIGHT_EYE, face_mesh.RIGHT_BROW),
        (face_mesh.LEFT_EYE, face_mesh.LEFT_BROW),
    ):
        fill(eye, np.array([240.0, 240, 240]))
        fill(brow, colour * 0.3)
    for iris in (468, 473):
        centre = np.round(landmarks[iris, :2] + face_mesh.MARGIN).astype(int)
        cv2.circle(image, tuple(int(v) for v in centre), 4, (30, 60, 90), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def _basis(draw: np.random.Generator, count: int, mean: Array) -> Array:
    """(count, 1434) orthonormal smooth movements of the points."""
    waves = draw.normal(size=(count, 3, 3)) * 0.02
    moves = np.stack([np.sin(mean @ wave + draw.uniform(0, 6, 3)) for wave in waves])
    return np.linalg.qr(moves.reshape(count, -1).T)[0].T


def write_data(directory: Path) -> Path:
    """Write every file of the format in training/README.md, with judges of random weights."""
    draw, mean = np.random.default_rng(1), mean_shape().astype(np.float64)
    expression, identity = _basis(draw, 16, mean), _basis(draw, 48, mean)
    rows: dict[str, list[Array]] = {key: [] for key in ("L", "E", "ec", "qc", "R", "s", "t")}
    person, sets, crops = [], [], []
    for who in range(PEOPLE):
        colour, qc = draw.uniform(80, 230, 3), draw.normal(size=48) * 6
        for _ in range(PHOTOS):
            ec = draw.normal(size=16) * (2 if who == PEOPLE - 1 else 12)
            shape = mean + (qc @ identity + ec @ expression).reshape(478, 3) + CENTRE
            crops.append(_draw(shape, draw, colour))
            embedding = draw.normal(size=128)
            values = (shape, embedding / np.linalg.norm(embedding), ec, qc, np.eye(3), 1.0, CENTRE)
            for key, value in zip(rows, values, strict=True):
                rows[key].append(np.asarray(value, np.float32))
            person.append(who)
            sets.append("grid" if who == PEOPLE - 1 else "drawn")
    _write_crops(directory / "train0.npz", crops)
    _write_crops(directory / "eval0.npz", crops[:4])
    table = {key: np.stack(values) for key, values in rows.items()}
    np.savez(directory / "train_meta.npz", pid=np.array(person), sets=np.array(sets), **table)
    pairs = np.array([(0, 3), (3, 1)])
    np.savez(directory / "eval_meta.npz", L=table["L"][:4], E=table["E"][:4], pairs=pairs)
    single = {"M": mean, "EB": expression, "QB": identity}
    half = {key: value.astype(np.float32) for key, value in single.items()}
    np.savez(directory / "geometry.npz", **half)
    onnx.save(_recogniser(draw), str(directory / "sface.onnx"))
    onnx.save(_landmarker(draw, table["L"].mean(0)), str(directory / "landmarker.onnx"))
    return directory


def _write_crops(path: Path, crops: list[npt.NDArray[np.uint8]]) -> None:
    jpegs = [cv2.imencode(".jpg", crop[:, :, ::-1])[1].ravel() for crop in crops]
    ends = np.cumsum([0] + [len(jpeg) for jpeg in jpegs])
    np.savez(path, bytes=np.concatenate(jpegs), off=ends)


def _network(nodes: list[onnx.NodeProto], shape: list[int | str], weights: dict[str, Array],
             outputs: dict[str, list[int | str]]) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "judge",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [
            numpy_helper.from_array(v if v.dtype.kind == "i" else v.astype(np.float32), k)
            for k, v in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _recogniser(draw: np.random.Generator) -> onnx.ModelProto:
    """Four strided convolutions with SFace's names for what the losses look at."""
    nodes, weights, name, channels = [], {"slope": np.full((1, 1, 1), 0.2)}, "data", 3
    weights["scale"] = np.array(1 / 128)
    nodes.append(helper.make_node("Mul", ["data", "scale"], ["scaled"]))
    name = "scaled"
    for k in (2, 4, 6, 8):
        weights[f"w{k}"] = draw.normal(size=(8, channels, 3, 3)) / np.sqrt(channels * 9)
        nodes.append(helper.make_node(
            "Conv", [name, f"w{k}"], [f"c{k}"], strides=[2, 2], pads=[1, 1, 1, 1]))  # fmt: skip
        name, channels = f"conv_{k}_relu", 8
        nodes.append(helper.make_node("PRelu", [f"c{k}", "slope"], [name]))
    weights["fc"] = draw.normal(size=(128, 8 * 49)) / 20
    weights["b"] = draw.normal(size=128) * 0.1
    nodes.append(helper.make_node("Flatten", [name], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc", "b"], ["fc1"], transB=1))
    return _network(nodes, ["N", 3, 112, 112], weights, {"fc1": ["N", 128]})


def _landmarker(draw: np.random.Generator, mean: Array) -> onnx.ModelProto:
    """NHWC in, 29 activations, 1434 numbers near the mean landmarks out."""
    nodes = [helper.make_node("Transpose", ["data"], ["x0"], perm=[0, 3, 1, 2])]
    weights: dict[str, Array] = {"slope": np.full((1, 1, 1), 0.5)}
    name, channels, size = "x0", 3, 256
    for k in range(29):
        stride = 2 if size > 8 else 1
        weights[f"w{k}"] = draw.normal(size=(6, channels, 3, 3)) / np.sqrt(channels * 6)
        nodes.append(helper.make_node(
            "Conv", [name, f"w{k}"], [f"c{k}"], strides=[stride, stride],
            auto_pad="SAME_UPPER"))  # fmt: skip
        nodes.append(helper.make_node("PRelu", [f"c{k}", "slope"], [f"p{k}"]))
        name, channels, size = f"p{k}", 6, size // stride
    weights["w"] = draw.normal(size=(1434, 6, 8, 8)) * 0.02
    weights["b"] = (mean + np.array([16, 16, 0])).ravel() / 1.125
    nodes.append(helper.make_node("Conv", [name, "w", "b"], ["marks"]))
    weights["shape"] = np.array([1, 1, 1, 1434])
    nodes.append(helper.make_node("Reshape", ["marks", "shape"], ["Identity"]))
    return _network(nodes, ["N", 256, 256, 3], weights, {"Identity": ["N", 1, 1, 1434]})
