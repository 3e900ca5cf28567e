"""What a request may ask of the server besides the frame: one value class, one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import (
    OPTION_COUNT,
    ChromaLocation,
    ColorMatrix,
    ColorRange,
    FaceOrder,
    Option,
)
from frameswap.errors import BadOptions

__all__ = ["SwapOptions"]


@dataclass(frozen=True, kw_only=True)
class SwapOptions:
    """Options of one request; the defaults are the server's.

    face_order: which face is given the first source.
    color_matrix, color_range, chroma_location: how an I420 frame is coded; unused for BGR.
    score_threshold, nms_threshold: the detector's, each in (0, 1]; None is the server's default.
    """

    face_order: FaceOrder = FaceOrder.LARGEST_FIRST
    color_matrix: ColorMatrix = ColorMatrix.AUTO
    color_range: ColorRange = ColorRange.LIMITED
    chroma_location: ChromaLocation = ChromaLocation.LEFT
    score_threshold: float | None = None
    nms_threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            # 0 would mean "the default" on the wire, so it cannot be asked for.
            if value is not None and not 0.0 < value <= 1.0:
                raise BadOptions(
                    f"{name} must be greater than 0 and at most 1, not {value}; leave it out for "
                    f"the server's default"
                )
        for name, kind in (
            ("face_order", FaceOrder),
            ("color_matrix", ColorMatrix),
            ("color_range", ColorRange),
            ("chroma_location", ChromaLocation),
        ):
            if not isinstance(getattr(self, name), kind):
                known = ", ".join(member.name for member in kind)
                raise BadOptions(
                    f"{name} must be one of {kind.__name__}'s {known}, not {getattr(self, name)!r}"
                )

    def to_tensor(self) -> NDArray[np.float32]:
        """Return `options`: (8,) float32, all zeros when nothing was changed."""
        tensor = np.zeros(OPTION_COUNT, np.float32)
        tensor[Option.FACE_ORDER] = self.face_order
        tensor[Option.COLOR_MATRIX] = self.color_matrix
        tensor[Option.COLOR_RANGE] = self.color_range
        tensor[Option.CHROMA_LOCATION] = self.chroma_location
        tensor[Option.SCORE_THRESHOLD] = self.score_threshold or 0.0
        tensor[Option.NMS_THRESHOLD] = self.nms_threshold or 0.0
        return tensor
