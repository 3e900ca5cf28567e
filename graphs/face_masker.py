"""face_masker: how much of each pixel of a swapped crop is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.contract import (
    DEFAULT_BOX_BLUR,
    FACES,
    LANDMARKS,
    MASKS,
    OPTIONS,
    SWAP_MASKS,
    WARPS,
)
from graphs.shapes import Op, constant
from networks.face_points import MEDIAPIPE_POINTS

MASK_BLUR: Final = DEFAULT_BOX_BLUR


def box_mask_profile(size: int) -> npt.NDArray[np.float32]:
    """One side of the mask, (S,) float32 in [0, 1]; the mask is its outer product with itself.

    FaceFusion zeroes a border of half the blur amount and blurs ones and zeros by a Gaussian of a
    quarter of it; both steps are separable.
    """
    amount = int(size * 0.5 * MASK_BLUR)
    border = max(amount // 2, 1)
    profile = np.ones((1, size), np.float32)
    profile[:, :border] = 0.0
    profile[:, -border:] = 0.0
    if amount > 0:
        # a single row: the vertical blur sees its own mirror image and changes nothing
        profile = cv2.GaussianBlur(profile, (0, 0), amount * 0.25).astype(np.float32)
    side: npt.NDArray[np.float32] = profile[0]
    return side


def build(crop_size: int, *, point_count: int = MEDIAPIPE_POINTS) -> onnx.ModelProto:
    """The served model: swap_masks, landmarks, warps, faces, options -> masks."""
    author = GraphAuthor("face_masker")
    op: Op = author.op
    specs = (
        replace(SWAP_MASKS, dims=("K", 1, crop_size, crop_size)),
        replace(LANDMARKS, dims=("K", point_count, 3)), WARPS, FACES, OPTIONS,
    )  # fmt: skip
    swap_masks, *_ = (author.input(spec) for spec in specs)
    profile = box_mask_profile(crop_size)
    mask = constant(op, np.outer(profile, profile)[None, None, None].astype(np.float32))
    masks: ir.Value = op.Expand(mask, op.Concat(op.Shape(swap_masks, end=2), [1, 1, 1], axis=0))
    author.output(masks, replace(MASKS, dims=("K", 1, crop_size, crop_size)))
    return author.finish()
