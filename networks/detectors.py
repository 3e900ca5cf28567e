"""The face detectors this project can serve, one row of data each.

A detector network takes one letterboxed square and answers, for every anchor, a score, a box and
five landmarks. Published detectors differ in channel order, normalisation, strides, anchors per
cell and in what their outputs mean; a row says all of it. Outputs are taken by position, because
exports of one network name them differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from graphs.contract import DEFAULT_NMS_THRESHOLD, DEFAULT_SCORE_THRESHOLD, DETECTOR_SIZE

ChannelOrder = Literal["rgb", "bgr"]
DetectorFamily = Literal["yunet", "scrfd", "yoloface"]


@dataclass(frozen=True, kw_only=True)
class Detector:
    """One detector: network input = (letterboxed pixels in 0..255 - mean) / std, [B, 3, 640, 640].

    weight: key in `fetching.weights.WEIGHTS`.
    family: how the outputs decode, see `graphs.detections`.
    channel_order: order of the three input channels.
    mean, std: the same for all channels, on the 8-bit scale. The letterbox's padding is 0 before
        normalisation.
    strides: pixels of the letterbox per cell, one level each.
    anchors_per_cell: candidates at every cell of a level.
    output_widths: numbers per anchor of each output, by position.
    score_threshold, nms_threshold: what an option of 0 means.
    """

    name: str
    weight: str
    family: DetectorFamily
    channel_order: ChannelOrder
    mean: float = 0.0
    std: float = 1.0
    strides: tuple[int, ...] = (8, 16, 32)
    anchors_per_cell: int = 1
    output_widths: tuple[int, ...]
    score_threshold: float = DEFAULT_SCORE_THRESHOLD
    nms_threshold: float = DEFAULT_NMS_THRESHOLD

    @property
    def anchor_count(self) -> int:
        """Candidates in one letterbox: 8400 with one anchor per cell at strides 8, 16 and 32."""
        cells = (DETECTOR_SIZE // stride for stride in self.strides)
        return sum(side * side * self.anchors_per_cell for side in cells)

    def anchor_points(self) -> npt.NDArray[np.float32]:
        """(N, 2) x, y in letterbox pixels: cell times stride, without a half-cell offset.

        Row by row within a level, level after level, each point once per anchor of its cell.
        """
        levels = []
        for stride in self.strides:
            row, column = np.mgrid[: DETECTOR_SIZE // stride, : DETECTOR_SIZE // stride]
            points = np.stack([column, row], axis=-1).reshape(-1, 2) * stride
            levels.append(np.repeat(points, self.anchors_per_cell, axis=0))
        return np.concatenate(levels).astype(np.float32)

    def anchor_strides(self) -> npt.NDArray[np.float32]:
        """(N,) stride of each anchor's level, in the order of `anchor_points`."""
        counts = [(DETECTOR_SIZE // s) ** 2 * self.anchors_per_cell for s in self.strides]
        return np.repeat(np.array(self.strides, dtype=np.float32), counts)


def _scrfd(name: str) -> Detector:
    """A network of the SCRFD family with landmarks; det_10g is one of them."""
    return Detector(
        name=name,
        weight=name,
        family="scrfd",
        channel_order="rgb",
        mean=127.5,
        std=128.0,
        anchors_per_cell=2,
        output_widths=(1, 1, 1, 4, 4, 4, 10, 10, 10),
    )


DETECTORS: Final[Mapping[str, Detector]] = MappingProxyType(
    {
        row.name: row
        for row in (
            Detector(
                name="yunet",
                weight="yunet",
                family="yunet",
                channel_order="bgr",
                output_widths=(1, 1, 1, 1, 1, 1, 4, 4, 4, 10, 10, 10),
            ),
            _scrfd("scrfd_2.5g"),
            _scrfd("det_10g"),
            Detector(
                name="yoloface_8n",
                weight="yoloface_8n",
                family="yoloface",
                channel_order="bgr",
                std=255.0,
                output_widths=(20,),
            ),
        )
    }
)
"""Every known detector by name.

Sources: yunet: opencv/opencv@5.x modules/objdetect/src/face_detect.cpp. scrfd: insightface 2.1,
model_zoo/scrfd.py. yoloface: facefusion/facefusion@33cc6b40 facefusion/face_detector.py.
"""

DEFAULT_DETECTOR: Final = "yunet"


def check_outputs(detector: Detector, shapes: Sequence[Sequence[int | str | None]]) -> None:
    """Refuse a network whose outputs are not this detector's.

    Args:
        shapes: of the network's outputs, by position; the last two axes count.

    Raises:
        ValueError: the number of outputs or a fixed axis differs.
    """
    expected: list[tuple[int, int]] = []
    if detector.family == "yoloface":
        expected.append((detector.output_widths[0], detector.anchor_count))
    else:
        counts = [(DETECTOR_SIZE // s) ** 2 * detector.anchors_per_cell for s in detector.strides]
        for position, width in enumerate(detector.output_widths):
            expected.append((counts[position % len(counts)], width))
    got = [tuple(shape[-2:]) for shape in shapes]
    fits = len(got) == len(expected) and all(
        not isinstance(have, int) or have == want
        for pair, wanted in zip(got, expected, strict=True)
        for have, want in zip(pair, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"the network of detector {detector.name} must have {len(expected)} outputs of"
            f" {expected} per image, this file has {got}: is it the right file?"
        )
