"""Landmarks without a tremble: both sides of a frame where they are known, the past alone live.

Two-sided: a mean over the frames around, where a frame counts less the later or earlier it is and
the more the face differs there (a bilateral filter in time). What stands still is averaged over
the whole window; what moves fast, a blink, a turn, differs at once and stays as it is, so nothing
comes late. Live: the One-Euro filter, scaled by the face's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.persons.one_euro import OneEuro
from frameswap.persons.shapes import FaceShape, stack_places

__all__ = ["LiveSmoother", "smooth_within"]

Array = NDArray[np.float32]

_FRAMES: Final = 5.0
"""Standard deviation of the window, frames: noise of a still face falls to a quarter."""
_TREMBLES: Final = 6.0
"""What differs by less than so many standard deviations of the tremble stands still: chance alone
makes two to three of two points, and of a place, which has four numbers."""
_LEAST, _MOST = 0.02, 0.1
"""Limits of that, in units of the face's size, which is about half the distance of the eyes."""
_SLOPE_FRAMES: Final = 2.0
_SAMPLED: Final = 8
"""The tremble is measured at every so many points."""
_PLACE_NORM: Final = 4.5
_POINT_NORM: Final = 2.9
"""Median length of the second difference of noise of deviation 1 in 4 and in 2 dimensions."""
_MIN_CUTOFF_HZ: Final = 0.8
_PLACE_BETA: Final = 6.0
_POINT_BETA: Final = 8.0


def smooth_within(shapes: Sequence[FaceShape], offsets: Sequence[int], center: int) -> FaceShape:
    """The shape at one frame, smoothed by those of the frames around it.

    Args:
        shapes: of one face, in order of time, that of the frame included.
        offsets: of each, which frame it is, less the frame.
        center: which of the shapes is the frame's.
    """
    middle = shapes[center]
    away = np.array(offsets, np.float32) / np.float32(_FRAMES)
    near = np.exp(-0.5 * away**2)
    places = stack_places(shapes)
    scale = np.array([1.0 / middle.size_px, 1.0 / middle.size_px, 1.0, 1.0], np.float32)
    scaled = places * scale
    # Steady motion is no difference: what is compared is what it leaves.
    apart = ((scaled - scaled[center] - _drift(scaled, center, offsets)) ** 2).sum(axis=1)
    weights = near * _likeness(apart, _reach(scaled, _TREMBLES / _PLACE_NORM))
    weights = _even(weights, offsets)
    weights /= weights.sum()
    boxes = np.stack([shape.box for shape in shapes])
    # A face whose mesh is missing in some frames is smoothed by those that have what it has.
    alike = [index for index, shape in enumerate(shapes) if shape.has_mesh == middle.has_mesh]
    stack = np.stack([shapes[index].points for index in alike])
    differences = ((stack - middle.points) ** 2).sum(axis=2, keepdims=True)
    reach = _reach(stack[:, ::_SAMPLED, :2], _TREMBLES / _POINT_NORM)
    of_points = near[alike, None, None] * _likeness(differences, reach)
    points = (stack * of_points).sum(axis=0) / of_points.sum(axis=0)
    return replace(
        middle,
        place=np.asarray(weights @ places, np.float32),
        points=np.asarray(points, np.float32),
        box=np.asarray(weights @ boxes, np.float32),
    )


def _drift(values: Array, center: int, offsets: Sequence[int]) -> Array:
    """(N, 4): how far steady motion has led by each frame, by the slope around the middle one."""
    steps = np.array(offsets, np.float32)
    near = steps[:, None] * np.exp(-0.5 * (steps[:, None] / np.float32(_SLOPE_FRAMES)) ** 2)
    norm = float((near[:, 0] * steps).sum())
    slope = (near * (values - values[center])).sum(axis=0) / max(norm, 1.0)
    return np.asarray(steps[:, None] * slope, np.float32)


def _likeness(squared: Array, reach: np.float32) -> Array:
    """1 for what is the same, 0 for what is not; steep in between."""
    return np.asarray(np.exp(-((squared / reach**2) ** 2)), np.float32)


def _reach(values: Array, trembles: float) -> np.float32:
    """How much may differ and still be the same, given values over time (N, ..., dimensions), as a
    multiple of the median length of their second difference.

    The second difference of steady motion is 0: what is left is tremble, or a change so quick that
    the limits hold.
    """
    if len(values) < 3:
        return np.float32(_LEAST)
    bent = values[2:] - 2.0 * values[1:-1] + values[:-2]
    tremble = float(np.median(np.sqrt((bent**2).sum(axis=-1))))
    return np.float32(min(max(trembles * tremble, _LEAST), _MOST))


def _even(weights: Array, offsets: Sequence[int]) -> Array:
    """Weights that pull as much backward as forward: steady motion is not pulled to either side.

    Near the ends of a face's time, where one side is short, the window narrows to what both have.
    """
    by_offset = dict(zip(offsets, weights, strict=True))
    return np.array(
        [
            min(weight, by_offset.get(-offset, np.float32(0.0))) if offset else weight
            for offset, weight in zip(offsets, weights, strict=True)
        ],
        np.float32,
    )


class LiveSmoother:
    """Smooths one face's shapes as they come."""

    def __init__(self) -> None:
        self._place = OneEuro(min_cutoff_hz=_MIN_CUTOFF_HZ, beta=_PLACE_BETA)
        self._points = OneEuro(min_cutoff_hz=_MIN_CUTOFF_HZ, beta=_POINT_BETA)
        self._box = OneEuro(min_cutoff_hz=_MIN_CUTOFF_HZ, beta=_POINT_BETA)
        self._last: Array | None = None
        self._unit = np.float32(1.0)
        self._has_mesh = False

    def update(self, shape: FaceShape, elapsed_s: float) -> FaceShape:
        """Smooth the next shape; `elapsed_s` seconds after the last."""
        if self._last is None:
            self._unit = np.float32(shape.size_px)
        if shape.has_mesh != self._has_mesh:
            self._points = OneEuro(min_cutoff_hz=_MIN_CUTOFF_HZ, beta=_POINT_BETA)
            self._has_mesh = shape.has_mesh
        place = shape.place.copy()
        if self._last is not None:
            turn = place[3] - self._last[3]
            place[3] = self._last[3] + (turn + np.pi) % (2.0 * np.pi) - np.pi
        self._last = place
        scale = np.array([self._unit, self._unit, 1.0, 1.0], np.float32)
        return replace(
            shape,
            place=self._place.update(place / scale, elapsed_s) * scale,
            points=self._points.update(shape.points, elapsed_s),
            box=self._box.update(shape.box, elapsed_s),
        )
