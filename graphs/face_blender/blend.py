"""What every form of the blender is given, and what every form does to a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.arithmetic import lerp
from graphs.contract import FrameFormat
from graphs.shapes import Op


@dataclass(frozen=True)
class Blend:
    """Frames, and the crops to lay on them; slot 0 first, later slots over earlier ones.

    frame: [B, H*3/2, W] or [B, H, W, 3] uint8.
    crops: [B, K, 3, S, S] float32, harmless, in the frame's own colours on the 8-bit scale.
    solid: [B, K, 1, S, S] float32 in [0, 1], how much of each pixel may be shown: 0 where the crop
        was no number.
    box_mask: (1, 1, 1, S, S) float32 in [0, 1]. The weight of a pixel is its product with `solid`.
    warps: [B, K, 2, 3] float32, frame to crop.
    shown: bool [B, K]; of other slots nothing is seen.
    offset: [B, 2] float32, luma position of chroma sample (0, 0); None for BGR frames.
    crop_size: S.
    """

    frame: ir.Value
    crops: ir.Value
    solid: ir.Value
    box_mask: npt.NDArray[np.float32]
    warps: ir.Value
    shown: ir.Value
    offset: ir.Value | None
    crop_size: int

    @property
    def frame_format(self) -> FrameFormat:
        """Of `frame`: only an I420 frame has chroma samples somewhere."""
        return "bgr" if self.offset is None else "i420"


def blend_pixels(op: Op, below: ir.Value, colors: ir.Value, weight: ir.Value) -> ir.Value:
    """below + (colors - below) * weight, rounded to the nearest level; float32 throughout."""
    return op.Round(lerp(op, below, colors, weight))
