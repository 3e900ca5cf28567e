"""Detector networks whose answers a test decides, with the tensor contracts of the real ones.

A planted network holds the outputs of several scenes and picks one by the brightness of the
letterbox's first pixel, so that every row of a batch can show another scene, and so that a wrong
scale or normalisation of the input changes what is found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.contract import DETECTOR_SIZE
from networks.detectors import Detector

SCENE_STEP = 40.0
"""Levels of brightness between one scene and the next."""


def plant(detector: Detector, scenes: Sequence[Sequence[np.ndarray]]) -> onnx.ModelProto:
    """A batch-1 network that answers scene s where the first pixel is s * SCENE_STEP.

    Args:
        scenes: for each scene the outputs by position, without a batch axis.
    """
    author = GraphAuthor("planted")
    op = author.op
    shape = [1, 3, DETECTOR_SIZE, DETECTOR_SIZE]
    pixels = author.builder.input("input", ir.DataType.FLOAT, shape)
    corner = op.Slice(pixels, [0, 0], [1, 1], [2, 3])
    level = op.Add(op.Mul(op.ReduceMean(corner, [1, 2], keepdims=0), detector.std), detector.mean)
    scene = op.Unsqueeze(op.Div(level, SCENE_STEP), [2])
    for position in range(len(detector.output_widths)):
        total = None
        for number, outputs in enumerate(scenes):
            weight = op.Clip(op.Sub(1.5, op.Abs(op.Sub(scene, float(number)))), 0.0, 1.0)
            chosen = op.Floor(op.Add(weight, 0.001))
            values = op.Constant(value=ir.tensor(outputs[position].astype(np.float32)[None]))
            part = op.Mul(chosen, values)
            total = part if total is None else op.Add(total, part)
        author.builder.add_output(total, f"output_{position}")
    return author.finish()


def empty_scene(detector: Detector) -> list[np.ndarray]:
    """Outputs that find nothing: everything 0."""
    if detector.family == "yoloface":
        return [np.zeros((20, detector.anchor_count), dtype=np.float32)]
    counts = [(DETECTOR_SIZE // s) ** 2 * detector.anchors_per_cell for s in detector.strides]
    return [
        np.zeros((counts[position % 3], width), dtype=np.float32)
        for position, width in enumerate(detector.output_widths)
    ]


def random_scene(detector: Detector, seed: int, faces: int = 40) -> list[np.ndarray]:
    """`faces` anchors above the threshold with random boxes and landmarks; others below it."""
    random = np.random.default_rng(seed)
    outputs = empty_scene(detector)
    if detector.family == "yoloface":
        table = outputs[0]
        table[:4] = random.uniform(20, 300, table[:4].shape)
        table[5:] = random.uniform(0, 640, table[5:].shape)
        table[4] = random.uniform(0.0, 0.49, table.shape[1])
        chosen = random.choice(table.shape[1], faces, replace=False)
        table[4, chosen] = random.uniform(0.5, 1.0, faces)
        return [table]
    for position, width in enumerate(detector.output_widths):
        count = outputs[position].shape[0]
        if width == 1:
            outputs[position] = random.uniform(0.0, 0.49, (count, 1)).astype(np.float32)
            chosen = np.random.default_rng(seed + position % 3).choice(count, faces // 3)
            outputs[position][chosen] = random.uniform(0.55, 1.0, (len(chosen), 1))
        else:
            spread = (0.5, 4.0) if detector.family == "scrfd" and width == 4 else (-0.5, 2.0)
            outputs[position] = random.uniform(*spread, (count, width)).astype(np.float32)
    return outputs


def place_face(
    detector: Detector,
    outputs: list[np.ndarray],
    *,
    box: Sequence[float],
    landmarks: np.ndarray,
    score: float,
    level: int = 1,
    cell: tuple[int, int] | None = None,
) -> None:
    """Write one detection (letterbox pixels) into a scene: the inverse of decoding.

    Args:
        box: x1 y1 x2 y2. landmarks: (5, 2).
        cell: (column, row) of the anchor; the one at the box's centre if not given.
    """
    box = np.asarray(box, dtype=np.float64)
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    stride = detector.strides[level]
    column, row = cell or np.clip(centre // stride, 0, DETECTOR_SIZE // stride - 1).astype(int)
    index = (row * (DETECTOR_SIZE // stride) + column) * detector.anchors_per_cell
    anchor = np.array([column, row]) * float(stride)
    if detector.family == "yoloface":
        visible = np.concatenate([landmarks, np.ones((5, 1))], axis=1)
        start = sum((DETECTOR_SIZE // s) ** 2 for s in detector.strides[:level])
        outputs[0][:, start + index] = [*centre, *size, score, *visible.ravel()]
        return
    levels = len(detector.strides)
    if detector.family == "scrfd":
        values = [[score], [*(anchor - box[:2]) / stride, *(box[2:] - anchor) / stride]]
    else:
        values = [[score], [score], [*(centre - anchor) / stride, *np.log(size / stride)]]
    values.append(((landmarks - anchor) / stride).ravel())
    for group, numbers in enumerate(values):
        outputs[group * levels + level][index] = numbers
