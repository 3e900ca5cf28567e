"""Two patch discriminators, at full and half size, with spectral normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Strided convolutions that score overlapping patches of an image in [-1, 1]."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        layers, width = [], 3
        for k in range(depth):
            wider = min(channels * 2**k, 384)
            layers.append(spectral_norm(nn.Conv2d(width, wider, 4, 2, 1)))
            width = wider
        layers.append(spectral_norm(nn.Conv2d(width, width, 3, 1, 1)))
        self.layers = nn.ModuleList(layers)
        self.score = spectral_norm(nn.Conv2d(width, 1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, 1, s, s) scores; higher is more like a photo."""
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
        return self.score(images)


class Discriminator(nn.Module):
    """Scores at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList([PatchDiscriminator(48, 3), PatchDiscriminator(64, 4)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, 256, 256) RGB 0..1 to two score maps."""
        images = images * 2 - 1
        return [self.scales[0](images), self.scales[1](F.avg_pool2d(images, 2))]


def hinge_loss(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """What the discriminator lowers: fakes below -1, photos above 1."""
    terms = [
        F.relu(1 + f.float()).mean() + F.relu(1 - r.float()).mean()
        for f, r in zip(fake, real, strict=True)
    ]
    return sum(terms[1:], terms[0]) / len(terms)


def adversarial_loss(fake: list[Tensor]) -> Tensor:
    """What the generator lowers: minus the mean score."""
    terms = [-f.float().mean() for f in fake]
    return sum(terms[1:], terms[0]) / len(terms)
