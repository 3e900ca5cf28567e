"""Turned and small faces: where the ordinary look finds nobody, or somebody who is upside down.

A detector made for upright faces sees a turned one where it is, but takes a chin for a forehead. So
a face that it is not quite sure of is looked at four times, turned by quarters, or eight, and each
time once more with level eyes: it is the right way up where the detector is surest. Looks that do
not depend on each other are asked for at once.

Of few pixels a detector can say little: it sees faces in gravel, and is not sure of one that is
there. So a search of a whole frame takes every glimpse, and a second look, from near, decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import LANDMARK_COLUMN, SCORE_COLUMN
from frameswap.found_faces import FoundFaces
from frameswap.persons.eyes import Eyes, Part
from frameswap.persons.shapes import FaceShape, read_shape

__all__ = ["Search", "Searcher", "Sighted", "are_one", "sighted"]

Array = NDArray[np.float32]

_SIDE: Final = 256
"""Of the part of a frame in which a face is looked at again, pixels."""
_SHARE: Final = 0.1
"""Size of the face there (`FaceShape.size_px`), of the side."""
_NEAR_SHARE: Final = 0.2
"""How far from the middle it may be, of the side."""
_SURELY_UPRIGHT: Final = 0.92
"""A score that no face has the wrong way up: of paintings in every roll, up to 0.88."""
_SURER: Final = 0.02
"""How much surer the detector must be of a face that is turned."""
_SURE_ENOUGH: Final = 0.85
"""A score of the surest of the quarters that turns between them will not beat."""
_BEHIND: Final = 0.05
"""A view so much less sure than the best one yet is not levelled. With both rules an upright face
that needs a look gets 4.3 of them in the mean instead of 11.5, and as many of 250 are right:
paintings in every roll, of 150 to 400 pixels, also dark and noisy."""
_QUARTERS: Final = (0.0, 1.0, 3.0, 2.0)
_BETWEEN: Final = (0.5, 3.5, 1.5, 2.5)
"""Turns that are tried, in quarters; those between where no quarter shows a sure face."""
_TURNED_RAD: Final = np.radians(35.0)
"""From so much roll on a face is followed in a part that is turned with it."""
_LEVEL_RAD: Final = np.radians(25.0)
_CHECK_EVERY: Final = 100
"""Frames after which it is made sure once more that a face is the right way up."""
_SWEEP_EVERY: Final = 10
_TILE_SWEEP_EVERY: Final = 25
"""Frames between two searches of a whole frame, while nobody is seen."""
_TILE: Final = 640
_OVERLAP: Final = 96
_GLIMPSE: Final = 0.2
"""How much of the score of a face that is believed is enough for a look from near."""
_SURELY_A_FACE: Final = 0.7
"""Least score of a glimpse that was looked at from near. Faces of 16 pixels and more have 0.83 and
above there; gravel, grass, stars, letters and a cat, of 450 glimpses in all, up to 0.62."""
_MOST_GLIMPSES: Final = 24
"""The surest that are looked at from near after a search of tiles: as many looks as tiles in 4K,
about."""
_GLIMPSES_A_TURN: Final = 2
"""The same of a turned frame, beside those that are believed."""
_ONE_FACE: Final = 2.4
"""Distance, in face sizes, below which two finds are one face: half its height."""


class Search(Enum):
    """What is looked at once more.

    UPRIGHT: faces that may be the wrong way up. TURNED, SMALL, ALL: frames, too, in which the
    ordinary look finds nobody.
    """

    OFF = "off"
    UPRIGHT = "upright"
    TURNED = "turned"
    SMALL = "small"
    ALL = "all"


@dataclass(frozen=True, eq=False)
class Sighted:
    """A face that was found in a frame.

    row: (15,) float32. mesh: (P, 3). pose: (3,), degrees.
    is_small: whether the ordinary look is too coarse for it.
    """

    row: Array
    mesh: Array
    pose: Array
    is_small: bool = False

    @cached_property
    def shape(self) -> FaceShape:
        return read_shape(self.row, self.mesh)


def sighted(found: FoundFaces) -> list[Sighted]:
    """The faces of `found`, one by one."""
    rows = zip(found.faces, found.landmarks, found.pose, strict=True)
    return [Sighted(*row) for row in rows]


class Searcher:
    """Looks once more.

    Args:
        begin_score: how sure the detector must be of a face that was not known.
    """

    def __init__(self, search: Search, *, begin_score: float) -> None:
        self._upright = search in (Search.UPRIGHT, Search.TURNED, Search.ALL)
        self._turned = search in (Search.TURNED, Search.ALL)
        self._small = search in (Search.SMALL, Search.ALL)
        self._begin_score = begin_score
        self._empty = 0

    @property
    def sweeps(self) -> bool:
        """Whether frames are searched in which nobody is seen."""
        return self._turned or self._small

    def righted(self, eyes: Eyes, each: Sighted, *, age: int) -> Sighted:
        """A face the right way up, where it is time to make sure: new, turned, or after a while."""
        if not self._upright or _score(each) >= _SURELY_UPRIGHT:
            return each
        is_tilted = abs(_roll_rad(each)) > _TURNED_RAD
        if age % _CHECK_EVERY and not is_tilted:
            return each
        best = self._look_around(eyes, each.shape.place)
        return each if best is None else best

    def follow(self, eyes: Eyes, place: Array) -> Sighted | None:
        """A face that was at a place (4,), and must be looked for there."""
        (seen,) = _look(eyes, [(place, float(place[3]))])
        if self._upright and not (seen and self._believes(seen)):
            seen = self._look_around(eyes, place)
        return seen if seen and self._believes(seen) else None

    def sweep(
        self, eyes: Eyes, doubtful: Sequence[Sighted], *, begins_shot: bool
    ) -> list[Sighted]:
        """Search the whole frame, where it is time to: nobody is seen in it.

        Args:
            doubtful: what the ordinary look saw and nobody believes.
        """
        if begins_shot:
            self._empty = 0
        waited, self._empty = self._empty, self._empty + 1
        turned = self._turned and waited % _SWEEP_EVERY == 0
        tiles = self._small and waited % _TILE_SWEEP_EVERY == 0
        found: list[Sighted] = []
        if turned or tiles:
            found += self._from_near(
                eyes, [replace(each, is_small=self._small) for each in doubtful]
            )
        if turned and not found:
            found += self._sweep_turned(eyes)
        if tiles and not found:
            found += self._sweep_tiles(eyes)
        return found

    def sees_somebody(self) -> None:
        """Somebody is seen: the next search is due when nobody is."""
        self._empty = 0

    def stays_followed(self, shape: FaceShape, *, was_followed: bool) -> bool:
        """Whether a face is turned so far that it has to be looked for where it was."""
        roll = abs(float(shape.place[3]))
        return self._upright and roll > (_LEVEL_RAD if was_followed else _TURNED_RAD)

    def _believes(self, each: Sighted) -> bool:
        return _score(each) >= self._begin_score

    def _look_around(self, eyes: Eyes, place: Array) -> Sighted | None:
        """The surest of eight views of a place (4,), each levelled; None where nobody is in any."""
        best: Sighted | None = None
        # The first alone: of an upright face it is enough.
        for turns in (_QUARTERS[:1], _QUARTERS[1:], _BETWEEN):
            seen = _look(eyes, [(place, turn * np.pi / 2) for turn in turns])
            least = 0.0 if best is None else _score(best) - _BEHIND
            there = [
                (turn, each) for turn, each in zip(turns, seen, strict=True)
                if each is not None and _score(each) >= least
            ]  # fmt: skip
            levels = _look_level(eyes, [each for _, each in there])
            for (turn, _), level in zip(there, levels, strict=True):
                if level is None:
                    continue
                margin = _SURER if turn and best is not None else 0.0
                if best is None or _score(level) > _score(best) + margin:
                    best = level
                if _score(best) >= _SURELY_UPRIGHT:
                    return best
            if len(turns) > 1 and best is not None and _score(best) >= _SURE_ENOUGH:
                break
        return best

    def _sweep_turned(self, eyes: Eyes) -> list[Sighted]:
        height, width = (float(side) for side in eyes.frame_size())
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        for quarters in (*_QUARTERS[1:], *_BETWEEN):
            turn = _turned_back(quarters * np.pi / 2)
            # What a turned frame needs, so that no corner is cut off.
            side = np.abs(turn) @ [width, height]
            size = (_even(round(float(side[0]))), _even(round(float(side[1]))))
            shift = (np.array(size) - 1) / 2 - turn @ middle
            warp = np.column_stack([turn, shift]).astype(np.float32)
            # One after the other: most often the first that shows somebody is the last.
            seen = self._glimpse(eyes, [(warp, size)])
            sure = [each for each in seen if self._believes(each)]
            doubtful = [each for each in seen if not self._believes(each)]
            found = self._from_near(eyes, [*sure, *doubtful[:_GLIMPSES_A_TURN]])
            if found:
                return found
        return []

    def _sweep_tiles(self, eyes: Eyes) -> list[Sighted]:
        height, width = (int(side) for side in eyes.frame_size())
        size = (_even(min(_TILE, width)), _even(min(_TILE, height)))
        warps = [
            np.array([[1, 0, -left], [0, 1, -top]], np.float32)
            for top in _steps(height) for left in _steps(width)
        ]  # fmt: skip
        # Some are in two tiles.
        seen = _once_each(self._glimpse(eyes, [(warp, size) for warp in warps]))[:_MOST_GLIMPSES]
        return self._from_near(eyes, [replace(each, is_small=True) for each in seen])

    def _glimpse(self, eyes: Eyes, parts: Sequence[Part]) -> list[Sighted]:
        """What may be a face in parts of the frame, the surest first."""
        answers = eyes.find_in(parts, _GLIMPSE * self._begin_score)
        seen = [each for found in answers for each in sighted(found)]
        return sorted(seen, key=_score, reverse=True)

    def _from_near(self, eyes: Eyes, glimpsed: Sequence[Sighted]) -> list[Sighted]:
        """Those that are faces, as they look from near."""
        found = []
        for each, seen in zip(glimpsed, _look_level(eyes, glimpsed), strict=True):
            if self._turned and seen is not None and self._believes(seen):
                seen = self._look_around(eyes, seen.shape.place)
            if seen is not None and _score(seen) >= max(self._begin_score, _SURELY_A_FACE):
                found.append(replace(seen, is_small=each.is_small))
        return _once_each(found)


def _look(eyes: Eyes, views: Sequence[tuple[Array, float]]) -> list[Sighted | None]:
    """The face in the middle of each view of a place (4,), turned back by an angle in radians."""
    warps = [_view(place, roll_rad) for place, roll_rad in views]
    answers = eyes.find_in([(warp, (_SIDE, _SIDE)) for warp in warps])
    middles: list[Sighted | None] = []
    for warp, found in zip(warps, answers, strict=True):
        near = [(_away(each, warp), each) for each in sighted(found)]
        away, each = min(near, key=lambda pair: pair[0], default=(np.inf, None))
        middles.append(each if away <= _NEAR_SHARE * _SIDE else None)
    return middles


def _look_level(eyes: Eyes, faces: Sequence[Sighted]) -> list[Sighted | None]:
    """Each face once more, from near and with level eyes."""
    return _look(eyes, [(each.shape.place, _roll_rad(each)) for each in faces])


def _view(place: Array, roll_rad: float) -> Array:
    """(2, 3) float32: from the frame to the part around a place, turned back by an angle."""
    turn = _turned_back(roll_rad) * (_SHARE * _SIDE / float(np.exp(place[2])))
    shift = np.full(2, (_SIDE - 1) / 2) - turn @ place[:2]
    return np.column_stack([turn, shift]).astype(np.float32)


def _turned_back(roll_rad: float) -> NDArray[np.float64]:
    cos, sin = np.cos(roll_rad), np.sin(roll_rad)
    return np.array([[cos, sin], [-sin, cos]])


def _away(each: Sighted, warp: Array) -> float:
    """How far from the middle of a view a face is, pixels of the view."""
    middle = each.row[LANDMARK_COLUMN:].reshape(5, 2).mean(axis=0)
    return float(np.abs(warp[:, :2] @ middle + warp[:, 2] - (_SIDE - 1) / 2).max())


def _steps(length: int) -> list[int]:
    """Where tiles begin so that they cover a side and overlap; even, for chroma."""
    if length <= _TILE:
        return [0]
    count = -(-(length - _OVERLAP) // (_TILE - _OVERLAP))
    return [round(step * (length - _TILE) / (count - 1)) // 2 * 2 for step in range(count)]


def _score(each: Sighted) -> float:
    return float(each.row[SCORE_COLUMN])


def _roll_rad(each: Sighted) -> float:
    return float(each.shape.place[3])


def _even(side: int) -> int:
    return side + side % 2


def _once_each(found: list[Sighted]) -> list[Sighted]:
    """Faces without those that were found twice; the surest of each."""
    kept: list[Sighted] = []
    for each in sorted(found, key=_score, reverse=True):
        if not any(are_one(each.shape, other.shape) for other in kept):
            kept.append(each)
    return kept


def are_one(first: FaceShape, second: FaceShape) -> bool:
    """Whether two shapes are of one face, maybe one of them the wrong way up."""
    reach = _ONE_FACE * max(first.size_px, second.size_px)
    return bool(np.hypot(*(first.place[:2] - second.place[:2])) < reach)
