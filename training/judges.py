"""The two frozen networks that say who a face is and where its landmarks are.

Both are losses of the training, so what they say of its result is optimistic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.dice import Dice, per_image
from training.face_mesh import ARCFACE_112_V2, ARCFACE_128, CROP, POINTS, fit_similarity
from training.frozen import FrozenNetwork
from training.warping import blur, pixel_grid, sample_pixels

_PAD: Final = 16
"""The landmarker sees the crop with this border, as its own framing has more of the head."""
_RECOGNISER_LAYERS: Final = ("conv_2_relu", "conv_4_relu", "conv_6_relu", "conv_8_relu")
_LANDMARKER_LAYERS: Final = (2, 8, 18, 28)


class Recogniser(nn.Module):
    """SFace: a crop to a unit vector of 128."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = FrozenNetwork(path)
        warp = fit_similarity(ARCFACE_112_V2 * 112, ARCFACE_128 * CROP)
        linear = torch.from_numpy(warp).float()
        grid = torch.einsum("ij,bjhw->bihw", linear[:, :2], pixel_grid(112))
        self.register_buffer("grid", grid + linear[None, :, 2, None, None], persistent=False)
        self.register_buffer("linear", linear, persistent=False)

    def align(self, crops: Tensor, dice: Dice | None = None) -> Tensor:
        """(B, 3, 256, 256) RGB 0..1 to the network's (B, 3, 112, 112) RGB 0..255.

        With `dice` the view is jittered: turned, scaled, moved, mirrored, blurred, lit and noisy.
        A reward that has to hold for all such views cannot be had by a pattern of pixels.
        """
        half, at = F.avg_pool2d(crops, 2), self.grid.expand(len(crops), -1, -1, -1)
        if dice is None:
            return sample_pixels(half, (at + 0.5) / 2 - 0.5) * 255
        batch = len(crops)
        mirror = 1 - 2 * dice.chance(0.5, batch)
        angle, scale = dice.normal(batch) * 0.06, torch.exp(dice.normal(batch) * 0.04)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        turn = torch.stack([torch.stack([cos * mirror, -sin], 1),
                            torch.stack([sin * mirror, cos], 1)], 1)  # fmt: skip
        middle = CROP / 2 - 0.5
        at = torch.einsum("bij,bjhw->bihw", turn, at - middle) + middle
        at = at + dice.normal(batch, 2, 1, 1) * 4.5
        view = sample_pixels(half, (at + 0.5) / 2 - 0.5)
        view = view + (blur(view, 3) - view) * per_image(dice.uniform(batch))
        view = (view - 0.5) * dice.uniform(batch, 1, 1, 1, low=0.85, high=1.15) + 0.5
        noise = dice.normal(*view.shape) * dice.uniform(batch, 1, 1, 1) * 0.03
        return (view + noise) * 255

    def forward(self, aligned: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, 112, 112) RGB 0..255 to (B, 128) unit vectors and four maps on the way."""
        outputs, maps = self.network(aligned, _RECOGNISER_LAYERS)
        return F.normalize(outputs[self.network.output_names[0]].float(), dim=1), maps


class Landmarker(nn.Module):
    """Face Landmarker v2: a crop to 478 points."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = FrozenNetwork(path)
        activations = [node.output for node in self.network.nodes if node.operator == "PRelu"]
        self.layers = tuple(activations[index] for index in _LANDMARKER_LAYERS)
        self.register_buffer("origin", torch.tensor([_PAD, _PAD, 0.0]), persistent=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, 256, 256) RGB 0..1 to (B, 478, 3) crop pixels and four maps on the way."""
        framed = F.pad(crops, (_PAD,) * 4, mode="replicate")
        size = (CROP, CROP)
        framed = F.interpolate(framed, size=size, mode="bilinear", align_corners=False)
        with torch.autocast(crops.device.type, enabled=False):
            outputs, maps = self.network(framed.float().permute(0, 2, 3, 1), self.layers)
        points = outputs[self.network.output_names[0]].reshape(-1, POINTS, 3)
        return points * ((CROP + 2 * _PAD) / CROP) - self.origin, maps
