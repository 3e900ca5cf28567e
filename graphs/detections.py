"""From a detector network's outputs to boxes, scores and landmarks, one way a family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.shapes import Op, constant, split
from networks.detectors import Detector


@dataclass(frozen=True)
class Candidates:
    """Every anchor's detection, N of them, coordinates in letterbox pixels.

    scores: [B, N] float32.
    boxes: [B, 4, N] float32, x1 y1 x2 y2.
    landmark_rows: [B, N, 10] float32, not decoded: only the rows that are kept are worth it.
    """

    scores: ir.Value
    boxes: ir.Value
    landmark_rows: ir.Value


def decode_candidates(op: Op, detector: Detector, outputs: Sequence[ir.Value]) -> Candidates:
    """Scores and boxes of every anchor.

    yunet: cls, obj, bbox, kps per level. The score is sqrt(cls * obj), each clipped to [0, 1], as
    in OpenCV's FaceDetectorYN: a geometric mean stays on the scale of its two factors, so that a
    threshold of 0.5 means what it means for the other detectors. (FaceFusion takes cls * obj, for
    which the same faces need a threshold of 0.25.) Box: centre = (anchor + bbox[0:2] * stride),
    size = exp(bbox[2:4]) * stride.

    scrfd: score, bbox, kps per level; scores are probabilities already; bbox holds the distances
    from the anchor to the left, top, right and bottom edge, in strides.

    yoloface: one output [B, 20, N]: centre x, y, width, height in letterbox pixels, score, then
    x, y, visibility of each landmark.

    Args:
        outputs: the network's outputs by position, [B, n, width] (yoloface: [B, 20, N]), float32.
    """
    if detector.family == "yoloface":
        return _decode_yoloface(op, outputs[0])
    levels = len(detector.strides)
    heads = [
        op.Concat(*outputs[start : start + levels], axis=1)
        for start in range(0, len(outputs), levels)
    ]
    anchors = constant(op, detector.anchor_points().T[None])
    strides = constant(op, detector.anchor_strides()[None, None])
    boxes = op.Mul(op.Transpose(heads[-2], perm=[0, 2, 1]), strides)
    first, second = split(op, boxes, 2, 1)
    if detector.family == "scrfd":
        scores = heads[0]
        corners = (op.Sub(anchors, first), op.Add(anchors, second))
    else:
        scores = op.Sqrt(op.Mul(op.Clip(heads[0], 0.0, 1.0), op.Clip(heads[1], 0.0, 1.0)))
        raw_size = op.Slice(op.Transpose(heads[-2], perm=[0, 2, 1]), [2], [4], [1])
        half = op.Mul(op.Mul(op.Exp(raw_size), strides), 0.5)
        centre = op.Add(anchors, first)
        corners = (op.Sub(centre, half), op.Add(centre, half))
    return Candidates(
        scores=op.Squeeze(scores, [2]),
        boxes=op.Concat(*corners, axis=1),
        landmark_rows=heads[-1],
    )


def _decode_yoloface(op: Op, output: ir.Value) -> Candidates:
    centre = op.Slice(output, [0], [2], [1])
    half = op.Mul(op.Slice(output, [2], [4], [1]), 0.5)
    points = [5 + 3 * point + axis for point in range(5) for axis in range(2)]
    landmarks = op.Gather(output, constant(op, np.array(points)), axis=1)
    return Candidates(
        scores=op.Squeeze(op.Slice(output, [4], [5], [1]), [1]),
        boxes=op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=1),
        landmark_rows=op.Transpose(landmarks, perm=[0, 2, 1]),
    )


def decode_landmarks(op: Op, detector: Detector, rows: ir.Value, index: ir.Value) -> ir.Value:
    """Landmarks of chosen anchors, [B, M, 10] float32, x y of five points, letterbox pixels.

    Args:
        rows: [B, M, 10] float32, the chosen rows of `Candidates.landmark_rows`.
        index: [B, M] int64, which anchors they are.
    """
    if detector.family == "yoloface":
        return rows
    anchors = np.tile(detector.anchor_points(), (1, 5))
    strides = detector.anchor_strides()[:, None]
    origin = op.Gather(constant(op, anchors), index, axis=0)
    return op.Add(origin, op.Mul(rows, op.Gather(constant(op, strides), index, axis=0)))
