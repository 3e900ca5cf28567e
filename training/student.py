"""A narrower U-Net that learns beside the large one by imitating what that one paints.

It sees the same prepared crops in the same step, and costs a fraction of it: making pairs, the
judges and the discriminator are the large one's. Imitation does not carry over what is hard to
foresee, such as thin coloured lines, so its picture is the cleaner one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.losses import slope_distance
from training.networks import Generator, Paint, Swapper, near_face, reach

_DETAIL: Final = 3.0
"""How much more an error weighs on mouth, eyes, lips and brows than on skin."""


class Student(nn.Module):
    """learning: what learns. averaged: its running mean, which is what is kept."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.learning, self.averaged = (Generator(channels) for _ in range(2))
        self.averaged.load_state_dict(self.learning.state_dict())
        self.averaged.requires_grad_(False)
        self.channels = channels

    def loss(self, inputs: list[Tensor], taught: Paint) -> Tensor:
        """How far its paint is from the large one's, in colour, slopes and mask.

        Args:
            inputs: target, source, labels and flow, as the generator takes them.
            taught: what the large one painted of them.
        """
        target, _, labels, _ = inputs
        painted = self.learning(*inputs)
        near, within = near_face(labels), reach(labels)
        weight = near * (1 + _DETAIL * labels[:, 1:5].sum(1, keepdim=True).clamp(0, 1))
        masks = [torch.sigmoid(paint.mask_logits.float()) * within for paint in (painted, taught)]
        own, goal = (
            mask * paint.rgb.float() + (1 - mask) * target
            for mask, paint in zip(masks, (painted, taught), strict=True)
        )
        free = (painted.rgb.float() - taught.rgb.float()).abs()
        return (
            8 * (((own - goal).abs() + 0.3 * free) * weight).mean()
            + 6 * slope_distance(own, goal, weight)
            + 4 * (masks[0] - masks[1]).abs().mean()
        )

    @torch.no_grad()
    def average(self, share: float) -> None:
        """Move the averaged weights towards those that learn."""
        old, new = (list(g.parameters()) for g in (self.averaged, self.learning))
        torch._foreach_lerp_(old, new, 1 - share)

    def as_swapper(self, teacher: Swapper, mean_shape: npt.NDArray[np.float32]) -> Swapper:
        """The averaged student behind the large one's retargeter, on the CPU."""
        swapper = Swapper(mean_shape, self.channels)
        swapper.retargeter.load_state_dict(teacher.retargeter.state_dict())
        swapper.generator.load_state_dict(self.averaged.state_dict())
        return swapper
