"""FaceFusion's masks of an occluder and of a parser in NumPy and OpenCV, one face at a time.

facefusion@33cc6b40, face_masker.py, `create_occlusion_mask` and `create_region_mask`, written from
their description; pictures are float, where FaceFusion's are whole levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Network = Callable[[np.ndarray], np.ndarray]
"""One picture with a batch axis to the network's first output."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def soft(mask: np.ndarray, size: int) -> np.ndarray:
    """(S, S): brought to the crop's size, blurred by five pixels, what is half shown left out."""
    mask = cv2.resize(mask.astype(np.float32), (size, size))
    return (cv2.GaussianBlur(mask.clip(0, 1), (0, 0), 5).clip(0.5, 1) - 0.5) * 2


def occlusion(crop: np.ndarray, network: Network, side: int) -> np.ndarray:
    """(S, S) of a target's crop (S, S, 3) BGR on the 8-bit scale."""
    size = len(crop)
    picture = cv2.resize(crop.astype(np.float32), (side, side))[None] / np.float32(255)
    return soft(network(picture)[0, :, :, 0].clip(0, 1), size)


def regions(crop: np.ndarray, network: Network, side: int, wanted: Sequence[int]) -> np.ndarray:
    """(S, S) of a swapped crop (S, S, 3) BGR on the 8-bit scale. wanted: class numbers."""
    size = len(crop)
    picture = cv2.resize(crop.astype(np.float32), (side, side))[:, :, ::-1] / np.float32(255)
    picture = ((picture - _MEAN) / _STD).transpose(2, 0, 1)[None]
    parts = network(np.ascontiguousarray(picture))[0].argmax(0)
    return soft(np.isin(parts, wanted), size)
