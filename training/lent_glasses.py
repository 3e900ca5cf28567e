"""Glasses of the people who wear some, put on other people's photos.

Drawn glasses are flat; real frames have shine, rims of two colours and bits of the skin behind.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.dice import Dice
from training.face_mesh import CROP, MARGIN
from training.faces import Faces
from training.networks import Swapper
from training.occluders import Occluder
from training.warping import sample_pixels
from training.worn import frames

_AT_ONCE = 16


class LentGlasses:
    """The frames of all wearers that are trained on, found once."""

    def __init__(self, faces: Faces, swapper: Swapper) -> None:
        self.faces, self.warper = faces, swapper.warper
        self.wearers = torch.nonzero(faces.worn * faces.frequency)[:, 0]
        inner = slice(MARGIN, MARGIN + CROP)
        found = [torch.zeros(0, 1, CROP, CROP, device=faces.pixels.device)]
        for start in range(0, len(self.wearers), _AT_ONCE):
            rows = self.wearers[start : start + _AT_ONCE]
            crops, points = (
                faces.pixels[rows][:, :, inner, inner].float() / 255,
                faces.landmarks[rows],
            )
            labels = swapper.prepare(crops, points, crops, points, points[..., :2]).labels
            found.append(frames(crops, points, labels))
        self.alphas = torch.cat(found)

    def put_on(self, dice: Dice, landmarks: Tensor) -> Occluder:
        """Somebody's glasses where faces with these landmarks (B, 478, 3) px would wear them."""
        picked = dice.integers(len(self.wearers), len(landmarks))
        rows, goal = self.wearers[picked], landmarks[..., :2]
        fields = self.warper.fields(goal, self.faces.landmarks[rows][..., :2] - goal, anchored=2)
        at = self.warper.positions(fields)
        photos = self.faces.pixels[rows].float() / 255
        return Occluder(
            sample_pixels(self.alphas[picked], at), sample_pixels(photos, at, offset=float(MARGIN))
        )
