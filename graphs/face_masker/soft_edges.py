"""What a mask network says of a crop, brought to its size and given a soft edge.

FaceFusion blurs the mask by a Gaussian of five pixels of the crop, whatever its size, and spreads
[0.5, 1] over [0, 1]: what is half shown is not shown, so that the edge lies inside.

Source: facefusion@33cc6b40, face_masker.py, `create_occlusion_mask` and `create_region_mask`;
OpenCV's GaussianBlur for a kernel size that follows from sigma (float32: 4 sigma on either side).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.face_masker.ramps import to_crop_size
from graphs.shapes import Op, constant

SIGMA_PX: Final = 5.0
_REACH: Final = int(4 * SIGMA_PX)


def soft_edges(op: Op, masks: ir.Value, size: int, wanted: int) -> ir.Value:
    """Masks [N, 1, wanted, wanted] float32 in [0, 1] of a network's [N, 1, size, size]."""
    blurred = _blur(op, op.Clip(to_crop_size(op, masks, size, wanted), 0.0, 1.0))
    return op.Mul(op.Sub(op.Clip(blurred, 0.5, 1.0), 0.5), 2.0)


def _blur(op: Op, masks: ir.Value) -> ir.Value:
    offset = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-0.5 * (offset / SIGMA_PX) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    padded = op.Pad(masks, [0, 0, _REACH, _REACH] * 2, mode="reflect")
    down = op.Conv(padded, constant(op, weights.reshape(1, 1, -1, 1)))
    return op.Conv(down, constant(op, weights.reshape(1, 1, 1, -1)))
