"""The landmark network of the classic way: a view by OpenCV, points in the frame, a hull."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from graphs.alignment import TEMPLATES
from networks.landmarkers import Landmarker

Image = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_FEATHER: Final = 0.04
"""Sigma of the hull's soft edge, of the crop's side."""


class ClassicLandmarker:
    """One face of a BGR frame at a time.

    Args:
        row: of a network that sees a view.
        session: its network in ONNX Runtime.
    """

    def __init__(self, row: Landmarker, session: onnxruntime.InferenceSession) -> None:
        assert row.framing is not None and row.view_size is not None  # noqa: PT018
        self._row, self._framing, self._side = row, row.framing, row.view_size
        self._session = session
        self._input = session.get_inputs()[0].name
        self._names = [output.name for output in row.outputs]

    def find(self, frame: Image, box: FloatArray, five: FloatArray) -> FloatArray:
        """(P, 2) points in pixels of `frame` (H, W, 3), from a box (4,) and five points (5, 2)."""
        warp = self._view(box, five)
        view = cv2.warpAffine(frame, warp, (self._side, self._side))
        blob = cv2.dnn.blobFromImage(view, 1.0 / 255.0, swapRB=self._row.channel_order == "rgb")
        points = np.zeros((self._row.point_count, 2), np.float32)
        answers = self._session.run(self._names, {self._input: blob})
        for output, answer in zip(self._row.outputs, answers, strict=True):
            points[list(output.points)] = answer.reshape(-1, output.columns)[:, :2]
        inverse = np.asarray(cv2.invertAffineTransform(warp), np.float32)
        return np.asarray(self._row.unit * points @ inverse[:, :2].T + inverse[:, 2], np.float32)

    def five(self, points: FloatArray) -> FloatArray:
        """The five landmarks (5, 2) that a face is aligned by."""
        return np.stack([points[list(group)].mean(axis=0) for group in self._row.five])

    def _view(self, box: FloatArray, five: FloatArray) -> npt.NDArray[np.float64]:
        """(2, 3) frame to view."""
        turn = 0.0
        if self._framing.turned:
            fitted, _ = cv2.estimateAffinePartial2D(five, TEMPLATES["arcface_112_v2"] * 112)
            turn = float(np.arctan2(fitted[1, 0], fitted[0, 0]))
        scale = self._side / (self._framing.scale * float((box[2:] - box[:2]).max()))
        rotation = scale * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        centre = rotation @ ((box[:2] + box[2:]) / 2)
        middle = np.array([self._side / 2, self._side / 2 - self._framing.shift * self._side])
        return np.concatenate([rotation, (middle - centre)[:, None]], axis=1)


def hull_mask(points: FloatArray, warp: npt.NDArray[np.float64], side: int) -> FloatArray:
    """(S, S) float32 in [0, 1]: the face as points in the frame bound it, in a crop."""
    in_crop = points @ warp[:, :2].T + warp[:, 2]
    mask = np.zeros((side, side), np.float32)
    outline = cv2.convexHull(np.rint(in_crop).astype(np.int32))
    cv2.fillConvexPoly(mask, outline, 1.0)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), _FEATHER * side), np.float32)
