"""The One-Euro filter: a low pass whose cutoff rises with speed.

Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. Each number of an array is filtered by itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["OneEuro"]

Array = NDArray[np.float32]


class OneEuro:
    """The filter's state for arrays of one shape.

    Args:
        min_cutoff_hz: of what stands still; lower trembles less.
        beta: how much the cutoff rises with speed, Hz per unit a second; higher lags less.
        speed_cutoff_hz: of the speed itself.
    """

    def __init__(
        self, *, min_cutoff_hz: float, beta: float, speed_cutoff_hz: float = 1.0
    ) -> None:
        self._min_cutoff_hz = min_cutoff_hz
        self._beta = beta
        self._speed_cutoff_hz = speed_cutoff_hz
        self._value: Array | None = None
        self._speed: Array | None = None

    def update(self, value: Array, elapsed_s: float) -> Array:
        """Filter the next value.

        Args:
            value: any shape, the same each time.
            elapsed_s: seconds since the last one, above 0; unused for the first.
        """
        if self._value is None or self._speed is None:
            self._value, self._speed = value.copy(), np.zeros_like(value)
            return value
        speed = (value - self._value) / elapsed_s
        self._speed = self._speed + _share(self._speed_cutoff_hz, elapsed_s) * (speed - self._speed)
        cutoff_hz = self._min_cutoff_hz + self._beta * np.abs(self._speed)
        share = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * elapsed_s))
        self._value = np.asarray(self._value + share * (value - self._value), np.float32)
        return self._value


def _share(cutoff_hz: float, elapsed_s: float) -> float:
    """How much of a new value a low pass takes (equation 4 of the paper)."""
    return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * elapsed_s))
