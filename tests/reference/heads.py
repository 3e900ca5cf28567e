"""MediaPipe's canonical face, turned and seen by a far camera.

canonical_face.npz holds its 468 vertices (centimetres; x to the image's right, y up, z to the
viewer) and 898 triangles, as they stand in geometry_pipeline_metadata_landmarks.binarypb of
face_landmarker.task (the weight `face_landmarker_v2`; Apache-2.0).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.reference.landmarks import rotation

_FILE = np.load(Path(__file__).with_name("canonical_face.npz"))
VERTICES = _FILE["vertices"].astype(np.float64) * [1, -1, -1]
TRIANGLES = _FILE["triangles"].astype(np.int64)
PIXELS_A_CENTIMETRE = 10.0
"""Of a crop of 256 pixels that is aligned to ffhq_512."""
IBUG_LANDMARKS = (
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 6, 195, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,
    78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip
"""Vertices near the 68 points of 300-W."""


def head(
    yaw: float = 0, pitch: float = 0, roll: float = 0, *, size: int = 256, scale: float = 1.0
) -> np.ndarray:
    """478 landmarks (x, y, z) of a crop of `size` pixels; an iris is one point in its eye."""
    turned = VERTICES @ rotation(yaw, pitch, roll).T
    points = turned * PIXELS_A_CENTIMETRE * scale * size / 256 + [size / 2, size / 2, 0]
    irises = [points[[33, 133]].mean(axis=0)] * 5 + [points[[362, 263]].mean(axis=0)] * 5
    return np.concatenate([points, irises])


def ibug_head(yaw: float = 0, pitch: float = 0, *, size: int = 256) -> np.ndarray:
    """The same head as 68 points."""
    return head(yaw, pitch, size=size)[list(IBUG_LANDMARKS)]


def silhouette(points: np.ndarray, size: int = 256) -> np.ndarray:
    """Where the head is seen: bool (S, S), its triangles filled."""
    seen = np.zeros((size, size), np.uint8)
    for triangle in points[TRIANGLES, :2]:
        cv2.fillConvexPoly(seen, np.round(triangle * 16).astype(np.int32), 1, shift=4)
    return seen > 0
