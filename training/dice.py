"""Random draws from one seeded generator, with the option to tie rows of a batch together.

Nothing here, nor in what draws from it, waits for the GPU or copies to it: a whole training step
is captured as one CUDA graph.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


class Dice:
    """All randomness of a training run comes from here, so a checkpoint can keep its state.

    Every draw is batch first. With `tied` = k, the last k rows of a draw repeat the k rows before
    them: two neighbouring frames of a clip then get the same light, crop and occluder.
    """

    def __init__(self, generator: torch.Generator, *, tied: int = 0) -> None:
        self.generator = generator
        self.device = generator.device
        self._tied = tied

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> Dice:
        """Dice of their own generator on `device`."""
        return cls(torch.Generator(device).manual_seed(seed))

    def tying(self, pairs: int) -> Dice:
        """The same generator, with the last `pairs` rows of each draw tied to those before."""
        return Dice(self.generator, tied=pairs)

    def tie(self, rows: Tensor) -> Tensor:
        """`rows` with the last k rows replaced by the k before them."""
        k = self._tied
        return rows if k == 0 else torch.cat([rows[:-k], rows[-2 * k : -k]])

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Float32 in [low, high)."""
        draw = torch.rand(*shape, generator=self.generator, device=self.device)
        return self.tie(low + (high - low) * draw)

    def normal(self, *shape: int) -> Tensor:
        """Float32, mean 0 and standard deviation 1."""
        return self.tie(torch.randn(*shape, generator=self.generator, device=self.device))

    def chance(self, probability: float, batch: int) -> Tensor:
        """(batch,) float32: 1 with this probability, else 0."""
        return (self.uniform(batch) < probability).float()

    def integers(self, high: int, batch: int) -> Tensor:
        """(batch,) int64 in [0, high)."""
        draw = torch.randint(high, (batch,), generator=self.generator, device=self.device)
        return self.tie(draw)

    def weighted(self, weights: Tensor, batch: int) -> Tensor:
        """(batch,) int64 row numbers of `weights`, drawn in proportion to them."""
        cumulative = weights.cumsum(0)
        draw = torch.searchsorted(cumulative, self.uniform(batch) * cumulative[-1], right=True)
        return draw.clamp_max(len(weights) - 1)


@functools.cache
def on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A constant, copied to the device once: int64 where all are int, else float32."""
    return torch.tensor(values, device=device)


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1), to be multiplied with images."""
    return values[:, None, None, None]
