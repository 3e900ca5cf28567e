"""What flickers, and how far one signal comes after another: clips whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality.measures import hull_mask, lag_frames, warp_error

# An octagon in the middle of 120 x 160.
CORNERS = np.float32([[80 + 40 * np.cos(k), 60 + 40 * np.sin(k)] for k in np.arange(8) * np.pi / 4])
MIDDLE = np.float32([[80, 60], [90, 70]])


def still() -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (12, 16, 3)).astype(np.float64)
    return np.kron(small, np.ones((10, 10, 1))).astype(np.uint8)


def test_what_lies_around_a_face_does_not_flicker() -> None:
    """Noise of sd 4 in every pixel, or in those around the face alone: of two frames that follow
    each other the difference's mean square is twice the square, 32, or nothing."""
    rng, target = np.random.default_rng(2), still()
    inside = hull_mask((120, 160), np.concatenate([CORNERS, MIDDLE]))
    assert inside.sum() == pytest.approx(2 * np.sqrt(2) * 40**2, rel=0.03), "an octagon's area"
    clean = [target] * 6
    noisy = [np.clip(target + rng.normal(0, 4, target.shape), 0, 255) for _ in clean]
    around = [np.where(inside[..., None] > 0, target, each).astype(np.uint8) for each in noisy]
    # The flow of a still picture is nothing, so nothing is carried over the edge.
    assert warp_error(around, clean, [inside] * 6) == pytest.approx(np.zeros(5), abs=0.2)
    # Black and white are clipped: at most 32.
    everywhere = warp_error([each.astype(np.uint8) for each in noisy], clean, [inside] * 6)
    assert 25 < everywhere.mean() < 35


@pytest.mark.parametrize("late", [-2, 0, 1, 3])
def test_a_signal_is_as_late_as_it_was_made(late: int) -> None:
    reference = np.cumsum(np.random.default_rng(3).normal(0, 1, 60))
    assert lag_frames(np.roll(reference, late), reference) == pytest.approx(late, abs=0.5)
