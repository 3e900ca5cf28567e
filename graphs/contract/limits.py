"""Version, limits and columns of the contract."""

from __future__ import annotations

from typing import Final, Literal

CONTRACT_VERSION: Final = 2
"""Raised whenever a tensor, an axis or an option changes its meaning."""

OPSET: Final = 18
IR_VERSION: Final = 9
"""Opset 18 and IR 9 are read by ONNX Runtime 1.19 (Triton 24.10) and by TensorRT 10 and newer."""

MAX_DETECTIONS: Final = 16
"""M: rows in `faces`, and the largest K a request may ask for."""

MAX_VIEWS: Final = 4
"""F: how many faces of a frame, from the first, a landmark network looks at."""

DETECTOR_SIZE: Final = 640
"""Side of the detector's letterboxed square input, in pixels."""

MIN_FRAME_SIDE: Final = 64
"""Smallest height and width of a frame, in pixels."""

FrameFormat = Literal["i420", "bgr"]
FRAME_FORMATS: Final[tuple[FrameFormat, ...]] = ("i420", "bgr")

FACE_COLUMNS: Final = 15
"""Columns of `faces`: x1 y1 x2 y2, score, then x y of the left eye, right eye, nose, left and
right mouth corner (left and right as seen in the image). Score 0 marks an empty row, whose other
columns are 0 as well. Those of a detector come last; a caller may leave any row empty."""
SCORE_COLUMN: Final = 4
LANDMARK_COLUMN: Final = 5


def sizes_up_to(largest: int) -> tuple[int, ...]:
    """Row counts that runs of at most `largest` rows are padded to on a device.

    Powers of two, then the largest itself.
    """
    powers = (1 << exponent for exponent in range(largest.bit_length()))
    return (*(size for size in powers if size < largest), largest)
