"""Clips of paintings in motion, with the place of each face known in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.photos import read_photo

Image = NDArray[np.uint8]
Points = NDArray[np.float64]

CROPS: Final = {
    # x1 y1 x2 y2 of a square around a head, pixels of the photo; the last four are of 1927.
    "gauss": (200, 60, 840, 700),
    "newton": (240, 20, 530, 310),
    "planck": (506, 1099, 676, 1269),
    "curie": (745, 1055, 975, 1285),
    "lorentz": (1130, 1090, 1360, 1320),
    "einstein": (1465, 1065, 1695, 1295),
}
_NOISE_SD: Final = 2.0
GREY: Final = 90


@dataclass(frozen=True, eq=False)
class Head:
    """A cut-out head. image: (S, S, 3) uint8 BGR; five: (5, 2) its points, pixels of it."""

    name: str
    image: Image
    five: Points

    @property
    def eyes_px(self) -> float:
        return float(np.linalg.norm(self.five[1] - self.five[0]))


@dataclass(frozen=True)
class Pose:
    """Where a head is in a frame: its middle in pixels, its side in pixels, its roll in degrees."""

    x: float
    y: float
    side: float
    roll_deg: float = 0.0


def cut_head(name: str) -> Image:
    """(S, S, 3): the head of a picture of the demo."""
    photo = read_photo("solvay" if name not in ("gauss", "newton") else name)
    x1, y1, x2, y2 = CROPS[name]
    return np.ascontiguousarray(photo[y1:y2, x1:x2])


def affine(head: Head, pose: Pose) -> Points:
    """(2, 3): from the head's pixels to the frame's."""
    size = head.image.shape[0]
    matrix = cv2.getRotationMatrix2D(
        ((size - 1) / 2, (size - 1) / 2), -pose.roll_deg, pose.side / size
    )
    matrix[:, 2] += np.array([pose.x, pose.y]) - (size - 1) / 2
    return np.asarray(matrix, np.float64)


def truth(head: Head, pose: Pose) -> Points:
    """(5, 2): where the head's points are, pixels of the frame."""
    matrix = affine(head, pose)
    return np.asarray(head.five @ matrix[:, :2].T + matrix[:, 2], np.float64)


def background(width: int, height: int) -> Image:
    """(H, W, 3) uint8: soft stripes, with nothing like a face in them."""
    down, right = np.mgrid[:height, :width].astype(np.float64) / height
    wave = 30 * np.sin(5 * right + 2 * down) + 20 * np.sin(3 * down - right)
    return np.repeat((GREY + wave)[..., None], 3, axis=2).astype(np.uint8)


def draw(frame: Image, head: Head, pose: Pose) -> None:
    """Put a head into a frame, soft at its edge; in place."""
    matrix, size = affine(head, pose), head.image.shape[0]
    # Only where it is: a frame of 4K is not blended whole for one head.
    reach = int(pose.side * 0.75) + 2
    height, width = frame.shape[:2]
    left, top = max(0, int(pose.x) - reach), max(0, int(pose.y) - reach)
    right, bottom = min(width, int(pose.x) + reach), min(height, int(pose.y) + reach)
    if left >= right or top >= bottom:
        return
    scale = pose.side / size
    image = head.image
    if scale < 0.7:
        # Shrunk with an area filter first: a bilinear warp alone would alias.
        small = max(1, round(size * scale))
        image = np.asarray(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA))
        ratio = size / small
        matrix = np.column_stack(
            [matrix[:, :2] * ratio, matrix[:, 2] + matrix[:, :2] @ np.full(2, ratio / 2 - 0.5)]
        )
    matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
    side = image.shape[0]
    down, across = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    mask = np.clip((1 - np.hypot(down, across)) * 8, 0, 1).astype(np.float32)
    area = (right - left, bottom - top)
    warped = cv2.warpAffine(image, matrix, area, flags=cv2.INTER_LINEAR).astype(np.float32)
    shown = cv2.warpAffine(mask, matrix, area, flags=cv2.INTER_LINEAR)[..., None]
    region = frame[top:bottom, left:right]
    region[...] = np.rint(region + shown * (warped - region))


def scene(
    width: int, height: int, heads: Sequence[tuple[Head, Pose]], *, noise: int | None = None
) -> Image:
    """One frame; the last head is in front. noise: seed of a camera's noise, sd 2 of 255."""
    frame = background(width, height)
    for head, pose in heads:
        draw(frame, head, pose)
    if noise is None:
        return frame
    random = np.random.default_rng(noise)
    noisy = frame + random.normal(0, _NOISE_SD, frame.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def as_i420(frame: Image) -> Image:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8)


def move_and_stop(index: int) -> float:
    """Progress of a move from 0 to 1: frames 10 to 30 of a clip, at one speed."""
    return float(np.clip((index - 10) / 20, 0, 1))


def contrast(frame: Image, share: float) -> Image:
    """A frame of less contrast, around grey."""
    paler = GREY + share * (frame.astype(np.float32) - GREY)
    return np.asarray(np.clip(np.rint(paler), 0, 255), np.uint8)


def speak_and_blink(head: Head, opening: float, lid: float) -> Image:
    """The head with its jaw down and its lids closing: (S, S, 3).

    opening: how far the lower lip goes down, lid: how far the upper lids do, of the eyes' distance.
    """
    size = head.image.shape[0]
    down, across = np.mgrid[:size, :size].astype(np.float32)
    eyes, shift = head.eyes_px, np.zeros((size, size), np.float32)
    mouth = head.five[3:].mean(axis=0)
    below = 1 / (1 + np.exp(-(down - mouth[1]) / (0.03 * eyes)))
    near = np.exp(-0.5 * ((across - mouth[0]) / (0.4 * eyes)) ** 2)
    fade = np.exp(-0.5 * (np.maximum(down - mouth[1], 0) / (0.5 * eyes)) ** 2)
    shift += opening * eyes * below * near * fade
    for eye in head.five[:2]:
        away = ((across - eye[0]) / (0.3 * eyes)) ** 2 + (
            (down - eye[1] + 0.09 * eyes) / (0.09 * eyes)
        ) ** 2
        shift += lid * eyes * np.exp(-0.5 * away)
    return np.asarray(
        cv2.remap(head.image, across, down - shift, cv2.INTER_LINEAR,
                  borderMode=cv2.BORDER_REPLICATE)
    )  # fmt: skip
