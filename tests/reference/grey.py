"""How much colour a swap keeps, in NumPy, double precision."""

from __future__ import annotations

import numpy as np


def color_share(crop: np.ndarray) -> float:
    """Of a target's crop (3, S, S) RGB in [0, 1]: 0 up to 4 levels between channels, 1 from 10."""
    seen = crop[:, ::4, ::4].astype(np.float64) * 255
    apart = np.mean(seen.max(axis=0) - seen.min(axis=0))
    return float(np.clip((apart - 4) / 6, 0, 1))


def keep_grey(crop: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """(3, S, S): the swapped crop with that share of its colour, its BT.709 luma unchanged."""
    swapped = swapped.astype(np.float64)
    grey = np.tensordot([0.2126, 0.7152, 0.0722], swapped, 1)[None]
    return grey + (swapped - grey) * color_share(crop)
