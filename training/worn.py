"""Real glasses in photos: who wears them, and where their frames are.

No network: a frame is a thin line, darker or lighter than the skin on both sides of it, that runs
under both eyes and over the nose. Wearers are poor sources (their glasses would be carried along)
and poor truths; as targets they show what a swap has to leave alone.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from training import face_mesh
from training.dice import on_device
from training.networks import near_eyes_and_brows
from training.warping import blur, enlarge, pixel_grid

_THICKEST_PX: Final = 9
"""Thicker lines than this are no frames."""
WEARER: Final = 0.5
"""Least score of a wearer: 91 of 508 portraits are above it. Looked at: some four of these wear
none, and some eight rimless pairs are below."""
_LEAST_COLOUR: Final = 0.06
"""Mean difference of the colour channels below which a picture is an engraving or a grey print:
there everything is lines."""
_FAINTEST, _FULL = 0.16, 0.32
"""Contrast, as a share of the skin's brightness, at which a line begins to be and is a frame."""


def _thin_lines(images: Tensor) -> Tensor:
    """How much each pixel differs from its surroundings without their thin lines.

    (B, 3, 256, 256) RGB 0..1 to (B, 1, 256, 256), a share of the brightness.
    """
    grey, size = images.mean(1, keepdim=True), _THICKEST_PX

    def largest(x: Tensor) -> Tensor:
        across = F.max_pool2d(x, (1, size), 1, (0, size // 2))
        return F.max_pool2d(across, (size, 1), 1, (size // 2, 0))

    def closed(x: Tensor) -> Tensor:
        return -largest(-largest(x))

    brightness = enlarge(blur(F.avg_pool2d(grey, 8), 5))
    return torch.maximum(closed(grey) - grey, grey + closed(-grey)) / (brightness + 0.15)


class _Eyes:
    """Both eyes of (B, 478, 2 or 3) landmarks, px, and distances from them in units of `span`."""

    def __init__(self, landmarks: Tensor) -> None:
        self.middles = [
            landmarks[:, on_device(eye, landmarks.device), :2].mean(1)
            for eye in (face_mesh.RIGHT_EYE, face_mesh.LEFT_EYE)
        ]
        self.span = (self.middles[1] - self.middles[0]).norm(dim=1)[:, None, None]
        self._pixels = pixel_grid(device=landmarks.device)

    def offset(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """x and y from (B, 2) px, (B, 256, 256) each."""
        x, y = ((self._pixels[:, k] - point[:, k, None, None]) / self.span for k in (0, 1))
        return x, y


def glasses_score(images: Tensor, landmarks: Tensor) -> Tensor:
    """How sure it is that a face wears glasses: (B,), 0 and up; 0 for grey pictures.

    Args:
        images: (B, 3, 256, 256) RGB 0..1.
        landmarks: (B, 478, 2 or 3) px.
    """
    lines, eyes = _thin_lines(images)[:, 0], _Eyes(landmarks)

    def strongest(where: Tensor) -> Tensor:
        # A frame crosses every column of the region; a wrinkle does not.
        columns = (lines * where).amax(1)
        used = where.amax(1)
        return (columns * used).sum(1) / used.sum(1).clamp_min(1)

    below = []
    for middle in eyes.middles:
        x, y = eyes.offset(middle)
        below.append(strongest(((x.abs() < 0.22) & (y > 0.2) & (y < 0.48)).float()))
    x, y = eyes.offset((eyes.middles[0] + eyes.middles[1]) / 2)
    bridge = strongest(((x.abs() < 0.1) & (y > -0.18) & (y < 0.25)).float())
    colourful = (images.amax(1) - images.amin(1)).mean((1, 2)) > _LEAST_COLOUR
    return (torch.minimum(*below) + 0.7 * bridge) * colourful


def frames(images: Tensor, landmarks: Tensor, labels: Tensor) -> Tensor:
    """Where the frames of a wearer's glasses are: (B, 1, 256, 256) in [0, 1].

    Lids and brows are lines, too, so nothing is said on them.

    Args:
        images: (B, 3, 256, 256) RGB 0..1.
        landmarks: (B, 478, 2 or 3) px.
        labels: (B, 5, 256, 256), what each pixel shows.
    """
    eyes = _Eyes(landmarks)
    alpha = ((_thin_lines(images) - _FAINTEST) / (_FULL - _FAINTEST)).clamp(0, 1)
    x, y = eyes.offset((eyes.middles[0] + eyes.middles[1]) / 2)
    region = ((x.abs() < 1.25) & (y > -0.45) & (y < 0.55)).float()[:, None]
    return blur(alpha, 3) * region * (1 - near_eyes_and_brows(labels))
