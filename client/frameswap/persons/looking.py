"""Parts of frames that are looked at once more: turned upright, made larger, or asked who it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.contract import LANDMARK_COLUMN, SCORE_COLUMN, ColorMatrix, FaceOrder
from frameswap.found_faces import FoundFaces
from frameswap.frame_picture import HD_ROWS
from frameswap.frames import Frame, frame_format, frame_size
from frameswap.options import SwapOptions
from frameswap.persons.eyes import Part
from frameswap.persons.shapes import read_shape
from frameswap.planes import split_planes

if TYPE_CHECKING:
    from frameswap.swapper import FaceSwapper

__all__ = ["ServerLooker", "cut_part", "portrait_warp"]

Array = NDArray[np.float32]
Image = NDArray[np.uint8]

_PORTRAIT_SIDE: Final = 224
_PORTRAIT_SHARE: Final = 0.11
"""Size of a face (`FaceShape.size_px`) in a portrait, of its side: half of it is face, as in a
photo."""
_CLOSE_SHARE: Final = 0.16
"""The same where it is asked who the face is: so close that a neighbour is cut off."""
_MIDDLE_SHARE: Final = 0.12
"""How far from the middle, of the side, its face may be and still be the one asked for."""
_LEAST_SCORE: Final = 0.2
"""What `find` saw is there: the second look is asked for no opinion of that."""


class ServerLooker:
    """A `Looker` that asks a server.

    Args:
        options: of the job's first step; they say how I420 frames are coded.
    """

    def __init__(self, swapper: FaceSwapper, options: SwapOptions) -> None:
        self._swapper = swapper
        self._options = options

    def options_of(self, frame: Frame) -> SwapOptions:
        """The options for a part of a frame: with the matrix that the whole frame has."""
        return replace(self._options, color_matrix=_matrix(self._options, frame))

    def embed(self, frame: Frame, face: Array) -> Array:
        side = _PORTRAIT_SIDE
        warp = portrait_warp(face, side, share=_CLOSE_SHARE)
        portrait = to_bgr(cut_part(frame, warp, (side, side)))
        options = SwapOptions(face_order=FaceOrder.LARGEST_FIRST, score_threshold=_LEAST_SCORE)
        embedding, faces = self._swapper.embed_first(portrait, options)
        if not len(faces) or not np.isfinite(embedding).all():
            return np.zeros(0, np.float32)
        middle = faces[0, LANDMARK_COLUMN:].reshape(5, 2).mean(axis=0)
        is_other = np.abs(middle - (side - 1) / 2).max() > _MIDDLE_SHARE * side
        return np.zeros(0, np.float32) if is_other else embedding

    def find_in(
        self, frame: Frame, parts: Sequence[Part], least_score: float | None = None
    ) -> list[FoundFaces]:
        options = self.options_of(frame)
        if least_score is not None:
            options = replace(options, score_threshold=least_score)
        whole = _as_array(frame)
        # Requests that overlap: the frames behind this one wait for the answers.
        looks = self._swapper.find_stream((cut_part(whole, *part) for part in parts), options)
        return [_taken_back(look.found, warp) for look, (warp, _) in zip(looks, parts, strict=True)]


def portrait_warp(face: Array, side: int, *, share: float = _PORTRAIT_SHARE) -> Array:
    """(2, 3) float32: from the frame to an upright portrait of a face (15,), `side` pixels wide, in
    which it has that share."""
    shape = read_shape(face, np.zeros((0, 3), np.float32))
    scale = share * side / shape.size_px
    cos, sin = np.cos(shape.place[3]) * scale, np.sin(shape.place[3]) * scale
    turn = np.array([[cos, sin], [-sin, cos]], np.float32)
    middle = np.full(2, (side - 1) / 2, np.float32)
    return np.column_stack([turn, middle - turn @ shape.place[:2]]).astype(np.float32)


def cut_part(frame: Frame, warp: Array, size: tuple[int, int]) -> Image:
    """Sample a part of a frame, in the frame's own format; beyond the frame its edge is repeated.

    Args:
        warp: (2, 3), frame to part, pixels. size: width and height of the part, even.
    """
    whole = _as_array(frame)
    if frame_format(whole) == "bgr":
        return _sample(whole, warp, size)
    width, height = size
    part = np.empty((height * 3 // 2, width), np.uint8)
    luma, *chroma = zip(split_planes(whole), split_planes(part), strict=True)
    luma[1][...] = _sample(luma[0], warp, size)
    # A chroma sample lies between the two rows that it belongs to, and is taken as between the
    # columns, too: a quarter of a pixel is nothing to who or where a face is.
    halved = warp.copy()
    halved[:, 2] = (warp[:, 2] + warp[:, :2] @ np.array([0.5, 0.5], np.float32) - 0.5) / 2.0
    for source, target in chroma:
        target[...] = _sample(source, halved, (width // 2, height // 2))
    return part


def _as_array(frame: Frame) -> Image:
    if isinstance(frame, np.ndarray):
        return np.ascontiguousarray(frame)
    whole = np.empty(frame.shape, np.uint8)
    frame.copy_to(whole)
    return whole


def to_bgr(part: Image) -> Image:
    """A part in BGR. An I420 one as if it were BT.601: a recogniser does not see the difference."""
    if part.ndim == 3:
        return part
    return np.asarray(cv2.cvtColor(part, cv2.COLOR_YUV2BGR_I420), np.uint8)


def _sample(plane: Image, warp: Array, size: tuple[int, int]) -> Image:
    scale = float(np.sqrt(abs(np.linalg.det(warp[:, :2]))))
    if scale < 0.5:
        # A bilinear warp alone would alias.
        small = (max(1, round(plane.shape[1] * scale)), max(1, round(plane.shape[0] * scale)))
        ratio = np.array([plane.shape[1] / small[0], plane.shape[0] / small[1]], np.float32)
        plane = np.asarray(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), np.uint8)
        warp = np.column_stack(
            [warp[:, :2] * ratio, warp[:, 2] + warp[:, :2] @ (0.5 * ratio - 0.5)]
        ).astype(np.float32)
    return np.asarray(
        cv2.warpAffine(plane, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


def _taken_back(found: FoundFaces, warp: Array) -> FoundFaces:
    """Faces of a part, in the frame's pixels; a turned box becomes the one around it."""
    back = np.asarray(cv2.invertAffineTransform(warp), np.float32)
    scale = np.float32(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    faces = found.faces.copy()
    for row, source in zip(faces, found.faces, strict=True):
        x1, y1, x2, y2 = source[:SCORE_COLUMN]
        corners = np.array([[x1, y1], [x2, y1], [x1, y2], [x2, y2]], np.float32)
        corners = corners @ back[:, :2].T + back[:, 2]
        row[:2], row[2:SCORE_COLUMN] = corners.min(axis=0), corners.max(axis=0)
        points = source[LANDMARK_COLUMN:].reshape(5, 2) @ back[:, :2].T + back[:, 2]
        row[LANDMARK_COLUMN:] = points.reshape(-1)
    landmarks = found.landmarks.copy()
    seen = landmarks.any(axis=(1, 2))
    landmarks[seen, :, :2] = landmarks[seen, :, :2] @ back[:, :2].T + back[:, 2]
    landmarks[seen, :, 2] *= scale
    pose = found.pose.copy()
    turned = np.degrees(np.arctan2(back[1, 0], back[0, 0]))
    pose[seen, 2] = (pose[seen, 2] + turned + 180.0) % 360.0 - 180.0
    return FoundFaces(faces, landmarks, pose)


def _matrix(options: SwapOptions, frame: Frame) -> ColorMatrix:
    if options.color_matrix is not ColorMatrix.AUTO or frame_format(frame) == "bgr":
        return options.color_matrix
    is_hd = frame_size(frame).height >= HD_ROWS
    return ColorMatrix.BT709 if is_hd else ColorMatrix.BT601
