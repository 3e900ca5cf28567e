"""From what was found in frames to what is swapped in them: steady, and by person.

A frame is placed when those behind it are known as far as `ahead` says: so a short gap is bridged
from both sides, landmarks are smoothed without lag, and a face that is about to go fades first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FACE_COLUMNS, MAX_DETECTIONS
from frameswap.errors import BadOptions
from frameswap.found_faces import Placement
from frameswap.persons.casting import Casting, Director, Present
from frameswap.persons.identity import Identity
from frameswap.persons.search import Search
from frameswap.persons.shapes import FaceShape, mix_shapes, write_shape
from frameswap.persons.smoothing import LiveSmoother, smooth_within
from frameswap.persons.tracks import Sample, Sighting

__all__ = ["Placer", "Steadiness"]

Array = NDArray[np.float32]

MOST_AHEAD: Final = 64
_AHEAD_S: Final = 0.35
_LEAST_AHEAD: Final = 12
_USUAL_MOST_AHEAD: Final = 24
"""Frames that wait for their swap lie in memory: at 120 frames/s gaps are bridged for less time."""
_RADIUS: Final = 10
"""Frames on each side that smooth one: two standard deviations of the window."""
FADE: Final = 3
"""Frames in which a face that comes or goes is shown in part."""
_COVERED: Final = 1.6
"""A face that is not seen, and lies so near one that is, in sizes of that one, is behind it: half
of its width."""
LIVE_HOLD: Final = 8
"""Live: frames for which a face that is not seen any more is shown where it was, fading."""


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """How faces are followed from frame to frame.

    ahead: frames that are looked at before one is placed; 0 is live: nothing waits, and what is
        smoothed lags a little. None: a third of a second, at least 12 frames and at most 24.
    search: what is looked at once more.
    """

    ahead: int | None = None
    search: Search = Search.UPRIGHT

    def __post_init__(self) -> None:
        if self.ahead is not None and not (self.ahead == 0 or FADE < self.ahead <= MOST_AHEAD):
            raise BadOptions(
                f"ahead is 0 (live) or {FADE + 1} to {MOST_AHEAD} frames, not {self.ahead}"
            )

    def frames_ahead(self, frame_rate: Fraction | float) -> int:
        """`ahead` for a video of so many frames a second."""
        if self.ahead is not None:
            return self.ahead
        return min(max(_LEAST_AHEAD, math.ceil(_AHEAD_S * frame_rate)), _USUAL_MOST_AHEAD)


def longest_gap(ahead: int) -> int:
    """Frames for which a face may be missing and still be the same track."""
    return ahead - FADE if ahead else LIVE_HOLD


class Placer:
    """Places the faces of frames.

    Args:
        ahead: frames that are known before one is placed; 0: live.
        mesh_rows: rows that may have landmarks (F).
        frame_rate: for live smoothing.
    """

    def __init__(
        self, casting: Casting, *, ahead: int, mesh_rows: int, frame_rate: Fraction | float
    ) -> None:
        self._casting = casting
        self._ahead = ahead
        self._mesh_rows = mesh_rows
        self._frame_s = 1.0 / float(frame_rate)
        self._director = Director(casting)
        self._window: deque[Sighting] = deque()
        self._now = 0
        self._begun: dict[int, int] = {}
        self._shot = 0
        self._live: dict[int, tuple[LiveSmoother, FaceShape, int]] = {}

    def place(self, sightings: Iterable[Sighting]) -> Iterator[Placement]:
        """One placement for each sighting, in order; reads `ahead` of them in front."""
        for sighting in sightings:
            self._window.append(sighting)
            if sighting.index - self._now >= self._ahead:
                yield self._next(is_end=False)
        while self._window and self._now <= self._window[-1].index:
            yield self._next(is_end=True)

    def _next(self, *, is_end: bool) -> Placement:
        now = self._now
        oldest = self._window[0].index
        sighting = self._window[now - oldest]
        if sighting.begins_shot:
            self._shot = now
            self._begun.clear()
            self._live.clear()
        history = _History(self._window, now, is_end=is_end)
        for sample in sighting.samples:
            self._begun.setdefault(sample.track, now)
        shown = self._shown_live(sighting) if not self._ahead else self._shown(history, sighting)
        players = self._director.cast(
            [_present(track, shape, history) for track, (shape, _) in shown.items()],
            begins_shot=sighting.begins_shot,
            ahead=history.presents,
        )
        self._now += 1
        # What smoothes and bridges the next frames stays.
        while self._window and self._window[0].index < self._now - max(_RADIUS, self._ahead):
            self._window.popleft()
        around = {sample.track for each in self._window for sample in each.samples}
        self._begun = {track: begun for track, begun in self._begun.items() if track in around}
        return self._placement(shown, {track: role for role, track in players.items()})

    def _shown(self, history: _History, sighting: Sighting) -> dict[int, tuple[FaceShape, float]]:
        """Shape and weight of each track that is in the frame; 0 where another face hides it."""
        shown = {}
        for track in history.tracks():
            around = history.around(track, _RADIUS)
            if around is None:
                continue
            shape = smooth_within(*around)
            begun = self._begun.get(track, history.now)
            weight = 1.0 if begun == self._shot else (history.now - begun + 1) / (FADE + 1)
            left = history.frames_left(track, longest_gap(self._ahead))
            if left is not None:
                weight = min(weight, (left + 1) / (FADE + 1))
            if _is_covered(track, shape, sighting):
                weight = 0.0
            shown[track] = (shape, min(1.0, weight))
        return shown

    def _shown_live(self, sighting: Sighting) -> dict[int, tuple[FaceShape, float]]:
        for sample in sighting.samples:
            smoother, seen = LiveSmoother(), sighting.index - 1
            if sample.track in self._live:
                smoother, _, seen = self._live[sample.track]
            shape = smoother.update(sample.shape, self._frame_s * (sighting.index - seen))
            self._live[sample.track] = (smoother, shape, sighting.index)
        shown = {}
        for track, (_, shape, seen) in list(self._live.items()):
            missing = sighting.index - seen
            if missing > LIVE_HOLD:
                del self._live[track]
                continue
            begun = self._begun[track]
            weight = 1.0 if begun == self._shot else (sighting.index - begun + 1) / (FADE + 1)
            # Shown in full for the first half of the hold.
            weight = min(1.0, weight, 2.0 * (1.0 - missing / (LIVE_HOLD + 1)))
            if _is_covered(track, shape, sighting):
                weight = 0.0
            shown[track] = (shape, weight)
        return shown

    def _placement(
        self, shown: dict[int, tuple[FaceShape, float]], roles: dict[int, int]
    ) -> Placement:
        """Rows of those who play a role, at their roles' slots, and behind them the others."""
        slots = self._slots(roles)
        count = len(self._casting.roles)
        others = [track for track in shown if track not in roles][: MAX_DETECTIONS - count]
        points = max((len(shape.points) - 5 for shape, _ in shown.values()), default=0)
        rows = np.zeros((count + len(others), FACE_COLUMNS), np.float32)
        meshes = np.zeros((self._mesh_rows, points, 3), np.float32)
        weights = np.ones(count, np.float32)
        places = {track: slots.index(role) for track, role in roles.items()}
        places |= {track: count + number for number, track in enumerate(others)}
        for track, place in places.items():
            shape, weight = shown[track]
            if not weight:
                # An empty row: a swap that is shown in no part would hide that of the face in
                # front. The role stays hers.
                continue
            rows[place], mesh = write_shape(shape)
            if track in roles:
                weights[place] = weight
                if place < self._mesh_rows:
                    meshes[place] = mesh
        return Placement(
            rows,
            [self._casting.roles[role].source for role in slots],
            meshes if points else None,
            weights=weights,
        )

    def _slots(self, roles: dict[int, int]) -> list[int]:
        """The role of each slot; those that are played come first where not all slots take
        landmarks."""
        everyone = range(len(self._casting.roles))
        if len(everyone) <= self._mesh_rows:
            return list(everyone)
        played = set(roles.values())
        return sorted(everyone, key=lambda role: role not in played)


class _History:
    """The frames around one."""

    def __init__(self, window: Sequence[Sighting], now: int, *, is_end: bool) -> None:
        self.now = now
        oldest = window[0].index
        start = stop = now - oldest
        while start and not window[start].begins_shot:
            start -= 1
        stop += 1
        while stop < len(window) and not window[stop].begins_shot:
            stop += 1
        # Whether what is behind the last frame here is another shot, or nothing.
        self.is_whole = is_end or stop < len(window)
        self._shot = [window[index] for index in range(start, stop)]
        self._samples: dict[int, list[tuple[int, Sample]]] = {}
        for sighting in self._shot:
            for sample in sighting.samples:
                self._samples.setdefault(sample.track, []).append((sighting.index, sample))

    def tracks(self) -> list[int]:
        """Those that are in the frame, or in frames on both sides of it."""
        return [
            track for track, samples in self._samples.items()
            if samples[0][0] <= self.now <= samples[-1][0]
        ]  # fmt: skip

    def shape_at(self, track: int, index: int) -> FaceShape | None:
        """Where a track is, or was on its way from one frame to another."""
        before = after = None
        for place, sample in self._samples[track]:
            if place <= index:
                before = (place, sample.shape)
            if place >= index:
                after = (place, sample.shape)
                break
        if before is None or after is None:
            return None
        if before[0] == after[0]:
            return before[1]
        return mix_shapes(before[1], after[1], (index - before[0]) / (after[0] - before[0]))

    def around(
        self, track: int, radius: int
    ) -> tuple[list[FaceShape], list[int], int] | None:
        """What `smooth_within` wants of a track."""
        shape = self.shape_at(track, self.now)
        if shape is None:
            return None
        near = {
            index: sample.shape for index, sample in self._samples[track]
            if abs(index - self.now) <= radius
        }  # fmt: skip
        near.setdefault(self.now, shape)
        offsets = sorted(near)
        return (
            [near[index] for index in offsets],
            [index - self.now for index in offsets],
            offsets.index(self.now),
        )

    def frames_left(self, track: int, gap: int) -> int | None:
        """Frames until a track's last one, where it ends before its shot does; else None."""
        last = self._samples[track][-1][0]
        end = self._shot[-1].index
        is_known = end - last > gap or (self.is_whole and end > last)
        return last - self.now if is_known else None

    def identity(self, track: int) -> Identity:
        """Who a track is, as far as is known at the newest of the frames."""
        return self._samples[track][-1][1].identity if track in self._samples else Identity()

    def presents(self) -> list[list[Present]]:
        """Who is in each of the frames behind this one."""
        frames = []
        for sighting in self._shot:
            if sighting.index <= self.now:
                continue
            here = []
            for track in self._samples:
                shape = self.shape_at(track, sighting.index)
                if shape is not None:
                    here.append(_present(track, shape, self))
            frames.append(here)
        return frames


def _is_covered(track: int, shape: FaceShape, sighting: Sighting) -> bool:
    """Whether a track's face, which is not seen in a frame, lies behind one that is."""
    if any(sample.track == track for sample in sighting.samples):
        return False
    return any(
        np.hypot(*(shape.place[:2] - sample.shape.place[:2])) < _COVERED * sample.shape.size_px
        for sample in sighting.samples
    )


def _present(track: int, shape: FaceShape, history: _History) -> Present:
    box = (shape.box.reshape(2, 2) * np.float32(shape.size_px) + shape.place[:2]).reshape(-1)
    return Present(track, np.asarray(box, np.float32), shape.score, history.identity(track))
