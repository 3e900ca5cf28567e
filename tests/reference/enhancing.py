"""FaceFusion's way to enhance a swapped face, in NumPy and OpenCV, one face at a time.

facefusion@33cc6b40, processors/modules/face_enhancer, written from its description. Pictures stay
float, where FaceFusion's become whole levels after each step.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Restore = Callable[[np.ndarray], np.ndarray]
"""(S, S, 3) RGB in [-1, 1] to the same."""


def warp(image: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """(size, size, ...) of `image`; matrix (2, 3) takes it there. Bilinear in double precision."""
    inverse = cv2.invertAffineTransform(matrix.astype(np.float64))
    y, x = np.mgrid[:size, :size].astype(np.float64)
    place = [row[0] * x + row[1] * y + row[2] for row in inverse]
    return cv2.remap(
        image.astype(np.float32), *(p.astype(np.float32) for p in place),
        interpolation=cv2.INTER_LINEAR, borderMode=border,
    )  # fmt: skip


def paste(
    below: np.ndarray, crop: np.ndarray, mask: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """`below` with a crop laid on; matrix takes `below` to the crop. Square pictures."""
    back = cv2.invertAffineTransform(matrix.astype(np.float64))
    size = len(below)
    weight = warp(mask, back, size, cv2.BORDER_CONSTANT)[..., None].clip(0, 1)
    colour = warp(crop, back, size, cv2.BORDER_REPLICATE)
    return below * (1 - weight) + colour * weight


def enhance(
    frame: np.ndarray, context: np.ndarray, size: int, mask: np.ndarray, blend: float,
    restore: Restore,
) -> np.ndarray:  # fmt: skip
    """`frame` (F, F, 3) RGB in [0, 1] with its face enhanced.

    Args:
        context: (2, 3), frame to the network's picture of `size` pixels.
        mask: (size, size), where the enhanced face is shown.
    """
    crop = warp(frame, context, size, cv2.BORDER_REPLICATE)
    restored = (restore(crop * 2 - 1).clip(-1, 1) + 1) / 2
    pasted = paste(frame, restored, mask, context)
    return frame * (1 - blend) + pasted * blend
