"""Frames for load tests: one painted face (Gauss), several, none; raw files for perf_analyzer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from demo.photos import read_photo
from graphs.contract import OPTION_COUNT
from networks.swappers import SWAPPERS

Image = npt.NDArray[np.uint8]
FACE_SHARE: Final = 0.28
"""Height of a face as a share of the frame's: 300 of 1080 rows."""
GAUSS_FACE: Final = (520.0, 388.0, 366.0)
"""Centre x, y and height of the face in the painting, pixels."""


@dataclass(frozen=True)
class Scene:
    """What one request asks for.

    faces: how many the frame holds. slots: K, how many the request asks for. own: the sources
    are those of the project's own network, not identities.
    """

    name: str
    width: int = 1920
    height: int = 1080
    faces: int = 1
    slots: int = 1
    own: bool = False

    def bgr(self) -> Image:
        """(H, W, 3) uint8: grey, with the painting's face at even distances."""
        frame = np.full((self.height, self.width, 3), 60, np.uint8)
        if self.faces == 0:
            return frame
        painting = read_photo("gauss")
        x, y, tall = GAUSS_FACE
        scale = FACE_SHARE * self.height / tall
        half = int(0.5 * self.width / max(self.faces, 2))
        for index in range(self.faces):
            center = (self.width * (index + 0.5) / self.faces, self.height / 2)
            place = np.array([[scale, 0, center[0] - scale * x], [0, scale, center[1] - scale * y]])
            size = (self.width, self.height)
            picture = cv2.warpAffine(painting, place, size, flags=cv2.INTER_AREA)
            cover = cv2.warpAffine(np.full(painting.shape[:2], 255, np.uint8), place, size)
            left, right = int(center[0]) - half, int(center[0]) + half
            cover[:, : max(left, 0)] = 0
            cover[:, right:] = 0
            frame = np.where(cover[..., None] > 0, picture, frame)
        return frame

    def i420(self) -> Image:
        """(H*3/2, W) uint8."""
        return np.asarray(cv2.cvtColor(self.bgr(), cv2.COLOR_BGR2YUV_I420), np.uint8)

    def source(self) -> npt.NDArray[np.float32]:
        """[K, D] float32: unit vectors of 512, an identity that nobody has; or, for our own
        network, the painting's face, packed, and zeros for its landmarks."""
        if self.own:
            return np.tile(painted_source(), (self.slots, 1))
        vectors = np.random.default_rng(0).normal(size=(self.slots, 512)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def write(self, folder: Path) -> list[str]:
        """Write one raw file an input; returns perf_analyzer's arguments for them."""
        folder.mkdir(parents=True, exist_ok=True)
        self.i420().tofile(folder / "frame")
        self.source().tofile(folder / "source")
        np.zeros(OPTION_COUNT, np.float32).tofile(folder / "options")
        rows = self.height * 3 // 2
        return [
            "--input-data", str(folder),
            "--shape", f"frame:{rows},{self.width}",
            "--shape", "source:" + ",".join(map(str, self.source().shape)),
        ]  # fmt: skip


def painted_source() -> npt.NDArray[np.float32]:
    """(D,) float32 as `frameswap_256` takes it: Gauss's face, about where its crop has it."""
    row = SWAPPERS["frameswap_256"]
    side = row.source_size or 0
    x, y, tall = GAUSS_FACE
    scale = 0.62 * side / tall
    place = np.array([[scale, 0, side / 2 - scale * x], [0, scale, 0.55 * side - scale * y]])
    crop = cv2.warpAffine(read_photo("gauss"), place, (side, side)).astype(np.float32)
    blue, green, red = np.moveaxis(crop, 2, 0)
    source = np.zeros(row.source_length, np.float32)
    source[: side * side] = (red + 256 * green + 65_536 * blue).reshape(-1)
    return source
