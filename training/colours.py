"""Which colours a swap may show where the truth is not known.

A crossed pair has two pictures of what is there: the target, and the source in the target's light.
What neither shows nearby (a blue line along the lips, a purple iris, a white edge at a lid) was
made up for a judge that likes it, not for a person who looks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.dice import on_device

# ITU-R BT.601: brightness, then blue and red less brightness, by row.
_OPPONENT = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))


def opponent(images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB 0..1 to brightness 0..1 and two colour differences, -0.5..0.5 each."""
    flat = tuple(value for row in _OPPONENT for value in row)
    return torch.einsum("ij,bjhw->bihw", on_device(flat, images.device).view(3, 3), images)


def distance_to_mixture(image: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """How far each pixel's colour is from the straight line between two images' colours.

    Along the lips a swap may show the target's mouth, the source's lips, or a mixture of both.
    """
    direction = b - a
    share = ((image - a) * direction).sum(1, keepdim=True) / (
        (direction**2).sum(1, keepdim=True) + 1e-3
    )
    nearest = a + share.clamp(0, 1) * direction
    return (image - nearest).abs().mean(1, keepdim=True)


def distance_to_surroundings(image: Tensor, a: Tensor, b: Tensor, size: int) -> Tensor:
    """How far each pixel is outside what two images show within `size` x `size` pixels (odd).

    Brightness and colour differences are compared one by one with the least and the most of both
    images there, so an edge may move, but no line may be brighter, darker or of another colour.

    Args:
        image, a, b: (B, 3, H, W) RGB, about 0..1.
        size: px.

    Returns:
        (B, 1, H, W), 0 where the pixel is within; the sum over the three.
    """
    own, *others = (opponent(x) for x in (image, a, b))
    most = F.max_pool2d(torch.maximum(*others), size, 1, size // 2)
    least = -F.max_pool2d(-torch.minimum(*others), size, 1, size // 2)
    return (F.relu(own - most) + F.relu(least - own)).sum(1, keepdim=True)
