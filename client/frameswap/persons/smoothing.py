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
_PLACE_TREMBLES, _FIVE_TREMBLES, _POINT_TREMBLES = 6.0, 6.0, 4.0
"""What differs by less than so many standard deviations of the tremble stands still. Chance alone
makes almost three of a place, which has four numbers, and two of one point; the mesh is compared by
the mean of many, which needs less room above."""
_REGIONS: Final = 8
_REGION: Final = 0.5
"""A face is compared in 8 x 8 squares of this side, in units of its size: lids, lips and brows move
by themselves, and each as a whole."""
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
    weights = near * _likeness(apart, _reach(_tremble(scaled), _PLACE_TREMBLES / _PLACE_NORM))
    weights = _even(weights, offsets)
    weights /= weights.sum()
    boxes = np.stack([shape.box for shape in shapes])
    # A face whose mesh is missing in some frames is smoothed by those that have what it has.
    alike = [index for index, shape in enumerate(shapes) if shape.has_mesh == middle.has_mesh]
    stack = np.stack([shapes[index].points for index in alike])
    apart = stack - middle.points
    # NumPy's own sum over so short a last axis takes three times as long.
    differences = np.einsum("npc,npc->np", apart, apart)
    tremble = _tremble(stack[:, ::_SAMPLED, :2])
    reach = _reach(tremble, _POINT_TREMBLES / _POINT_NORM)
    likeness = _likeness_by_region(differences, middle.points, reach)
    # The five points say where the face is put, and nothing of what it does.
    likeness[:, :5] = _likeness(differences[:, :5], _reach(tremble, _FIVE_TREMBLES / _POINT_NORM))
    of_points = (near[alike, None] * likeness)[..., None]
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


def _likeness_by_region(differences: Array, points: Array, reach: np.float32) -> Array:
    """(N, P) `_likeness` of each point's region, given its squared differences (N, P)."""
    places = np.clip(np.floor(points[:, :2] / _REGION) + _REGIONS // 2, 0, _REGIONS - 1)
    regions = (places[:, 1] * _REGIONS + places[:, 0]).astype(np.intp)
    # Counting, because a matrix product would wake the threads of the BLAS.
    count = _REGIONS * _REGIONS
    cells = regions + count * np.arange(len(differences))[:, None]
    sums = np.bincount(cells.reshape(-1), differences.reshape(-1), count * len(differences))
    sizes = np.maximum(np.bincount(regions, minlength=count), 1)
    means = np.asarray(sums.reshape(-1, count) / sizes, np.float32)
    return np.asarray(_likeness(means, reach)[:, regions], np.float32)


def _tremble(values: Array) -> float:
    """The median length of the second difference of values over time (N, ..., dimensions): steady
    motion has none; what is left is tremble, or a quick change."""
    if len(values) < 3:
        return 0.0
    bent = values[2:] - 2.0 * values[1:-1] + values[:-2]
    squared = np.sort(np.einsum("...c,...c->...", bent, bent), axis=None)
    # The mean of the two in the middle, or twice the one.
    middle = np.sqrt(squared[[(len(squared) - 1) // 2, len(squared) // 2]])
    return float(middle.mean())


def _reach(tremble: float, trembles: float) -> np.float32:
    """How much may differ and still be the same: so many times the tremble, within limits."""
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
