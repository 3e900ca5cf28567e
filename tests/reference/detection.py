"""Letterbox, decoding, suppression, order and crops in NumPy, double precision, from the contracts.

Nothing here is vectorised over a batch, and boxes are suppressed one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.reference import geometry, pixels

SIDE = 640
SLOTS = 16


def letterbox_size(height: int, width: int) -> tuple[int, int]:
    """New height and width: the longer side becomes 640, the other one is truncated."""
    if height > width:
        return SIDE, SIDE * width // height
    return SIDE * height // width, SIDE


def insightface_size(height: int, width: int) -> tuple[int, int]:
    """The same as insightface 2.1 works it out, in floating point (model_zoo/scrfd.py)."""
    ratio = float(height) / width
    if ratio > 1.0:
        return SIDE, int(SIDE / ratio)
    return int(SIDE * ratio), SIDE


def letterbox(frame: np.ndarray, frame_format: str, options: np.ndarray) -> np.ndarray:
    """(3, 640, 640) RGB in 0..255 of one frame: half-pixel bilinear, top-left, the rest 0."""
    height = frame.shape[0] * 2 // 3 if frame_format == "i420" else frame.shape[0]
    width = frame.shape[1]
    new_height, new_width = letterbox_size(height, width)
    y = (np.arange(new_height) + 0.5) * height / new_height - 0.5
    x = (np.arange(new_width) + 0.5) * width / new_width - 0.5
    rgb = pixels.read_rgb(frame, frame_format, *np.meshgrid(x, y), options)
    canvas = np.zeros((3, SIDE, SIDE))
    canvas[:, :new_height, :new_width] = np.moveaxis(rgb, -1, 0) * 255.0
    return canvas


def _cells(strides: tuple[int, ...], anchors: int):
    """(column, row, stride) of every anchor in output order."""
    for stride in strides:
        for row in range(SIDE // stride):
            for column in range(SIDE // stride):
                for _ in range(anchors):
                    yield column, row, stride


def cell_table(strides: tuple[int, ...] = (8, 16, 32), anchors: int = 1) -> np.ndarray:
    """(N, 3) column, row, stride."""
    return np.array(list(_cells(strides, anchors)), dtype=np.float64)


def _join(levels: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(level, dtype=np.float64) for level in levels])


def decode_yunet(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (N,), boxes (N, 4), landmarks (N, 5, 2) from 12 outputs (n, w) of one image.

    OpenCV, objdetect/src/face_detect.cpp, FaceDetectorYNImpl::postProcess.
    """
    classes, objects, boxes, points = (_join(outputs[i : i + 3]) for i in (0, 3, 6, 9))
    column, row, stride = cell_table().T
    scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
    centre_x, centre_y = (column + boxes[:, 0]) * stride, (row + boxes[:, 1]) * stride
    width, height = np.exp(boxes[:, 2]) * stride, np.exp(boxes[:, 3]) * stride
    corners = np.stack(
        [
            centre_x - width / 2,
            centre_y - height / 2,
            centre_x + width / 2,
            centre_y + height / 2,
        ],
        axis=1,
    )
    cells = np.stack([column, row], axis=1)[:, None]
    return scores, corners, (points.reshape(-1, 5, 2) + cells) * stride[:, None, None]


def decode_scrfd(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from 9 outputs (n, w): insightface 2.1, model_zoo/scrfd.py."""
    scores, distances, points = (_join(outputs[i : i + 3]) for i in (0, 3, 6))
    column, row, stride = cell_table(anchors=2).T
    x, y = column * stride, row * stride
    left, top, right, bottom = distances.T * stride
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1)
    origin = np.stack([x, y], axis=1)[:, None]
    return scores[:, 0], boxes, origin + points.reshape(-1, 5, 2) * stride[:, None, None]


def decode_yoloface(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from one output (20, 8400): FaceFusion 3.8.1, face_detector.py."""
    columns = np.asarray(outputs[0], dtype=np.float64).T
    x, y, width, height = columns[:, :4].T
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return columns[:, 4], boxes, columns[:, 5:].reshape(-1, 5, 3)[:, :, :2]


DECODERS = {"yunet": decode_yunet, "scrfd": decode_scrfd, "yoloface": decode_yoloface}


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union with inclusive pixels (width = x2 - x1 + 1)."""
    wide = max(0.0, min(first[2], second[2]) - max(first[0], second[0]) + 1)
    tall = max(0.0, min(first[3], second[3]) - max(first[1], second[1]) + 1)
    shared = wide * tall
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def suppress(
    scores: np.ndarray, boxes: np.ndarray, score_threshold: float, nms_threshold: float
) -> list[int]:
    """Indices kept, best first, at most 16: greedy, ties to the lowest index."""
    order = sorted(
        (i for i in range(len(scores)) if scores[i] >= score_threshold),
        key=lambda i: (-scores[i], i),
    )
    kept: list[int] = []
    for candidate in order:
        if all(overlap(boxes[candidate], boxes[other]) <= nms_threshold for other in kept):
            kept.append(candidate)
            if len(kept) == SLOTS:
                break
    return kept


def sort_faces(rows: np.ndarray, order: int) -> np.ndarray:
    """Rows (n, 15) given best first, in the order of a contract code; stable."""
    keys = {
        0: lambda r: -(r[2] - r[0]) * (r[3] - r[1]),
        1: lambda r: (r[2] - r[0]) * (r[3] - r[1]),
        2: lambda r: r[0],
        3: lambda r: -r[0],
        4: lambda r: r[1],
        5: lambda r: -r[1],
        6: lambda r: -r[4],
        7: lambda r: r[4],
    }
    return np.array(sorted(rows, key=keys[order])).reshape(-1, 15)


def find_faces(
    family: str, outputs: list[np.ndarray], height: int, width: int, options: np.ndarray
) -> np.ndarray:
    """`faces` (16, 15) of one frame from the network's outputs for it."""
    scores, boxes, landmarks = DECODERS[family](outputs)
    new_height, new_width = letterbox_size(height, width)
    scale = np.array([new_width / width, new_height / height])
    boxes, landmarks = boxes / np.tile(scale, 2), landmarks / scale
    score_threshold = float(options[4]) or 0.5
    nms_threshold = float(options[5]) or 0.4
    kept = suppress(scores, boxes, score_threshold, nms_threshold)
    rows = np.array([[*boxes[i], scores[i], *landmarks[i].ravel()] for i in kept])
    faces = np.zeros((SLOTS, 15))
    if kept:
        faces[: len(kept)] = sort_faces(rows, int(options[0]))
    return faces


def fit_share(points: np.ndarray, template: np.ndarray) -> float:
    """How much of the template's spread the best similarity of the points explains."""
    if ((points - points.mean(axis=0)) ** 2).sum() < 1e-3:
        return 0.0
    warp = geometry.fit_least_squares(points, template)
    reached = points @ warp[:, :2].T + warp[:, 2]
    missed = ((reached - template) ** 2).sum()
    return float(1.0 - missed / ((template - template.mean(axis=0)) ** 2).sum())


def judge(
    faces: np.ndarray,
    slots: int,
    template: np.ndarray,
    *,
    pose: np.ndarray | None = None,
    options: np.ndarray | None = None,
) -> np.ndarray:
    """`verdicts` (16,) of one frame's `faces`; pose (F, 3) degrees of those that have landmarks."""
    threshold = 0.0 if options is None else float(options[4])
    limit = (0.0 if options is None else float(options[12])) or 75.0
    verdicts = np.zeros(len(faces))
    for row, face in enumerate(faces):
        if face[4] <= 0:
            continue
        if row >= slots:
            verdicts[row] = 3
        elif face[4] < threshold:
            verdicts[row] = 4
        elif not (np.abs(face) < 1e6).all() or not fit_share(
            face[5:].reshape(5, 2).astype(np.float64), template
        ) > 0.6:
            verdicts[row] = 2
        elif pose is not None and row < len(pose):
            yaw, pitch = np.radians(pose[row, :2])
            if np.degrees(np.arccos(np.cos(yaw) * np.cos(pitch))) > limit:
                verdicts[row] = 1
    return verdicts


@dataclass(frozen=True)
class Aligned:
    warps: np.ndarray
    crops: np.ndarray


def align_faces(
    frame: np.ndarray,
    frame_format: str,
    faces: np.ndarray,
    slots: int,
    template: np.ndarray,
    side: int,
    options: np.ndarray,
) -> Aligned:
    """Warps (K, 2, 3) and crops (K, 3, S, S) of one frame; template in crop pixels.

    Of faces without landmarks: rows whose points fit no face are left out.
    """
    warps, crops = np.zeros((slots, 2, 3)), np.zeros((slots, 3, side, side))
    verdicts = judge(faces, slots, template, options=options)
    for slot in range(slots):
        if faces[slot, 4] == 0.0 or verdicts[slot]:
            continue
        warps[slot] = geometry.fit_least_squares(faces[slot, 5:].reshape(5, 2), template)
        x, y = geometry.crop_positions(warps[slot], side)
        rgb = pixels.read_rgb(frame, frame_format, x, y, options)
        crops[slot] = np.moveaxis(rgb, -1, 0)
    return Aligned(warps, crops)
