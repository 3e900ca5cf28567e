"""Faces of frames that follow each other, joined to tracks: who in this frame is who in the last.

Where a face is, how large, and how its five points lie decide; who it is, by its embedding, where
more than one track could go on with it, and now and then to make sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SCORE_COLUMN
from frameswap.found_faces import FoundFaces
from frameswap.persons.cuts import CutFinder
from frameswap.persons.eyes import Eyes
from frameswap.persons.identity import SAME_PERSON, Identity, likeness
from frameswap.persons.matching import match
from frameswap.persons.search import Search, Searcher, Sighted, are_one, sighted
from frameswap.persons.shapes import FaceShape

__all__ = ["Sample", "Sighting", "Tracker"]

Array = NDArray[np.float32]

_REACH: Final = 3.5
"""How far a face may be from where it is awaited, in units of its size: about its width."""
_GROWTH: Final = 0.5
"""How much its size may change, as a logarithm, from one frame to the next."""
_DAMPING: Final = 0.5
"""Of what is known of a face's speed: detectors tremble."""
_ASK_AT: Final = (0, 4, 12)
"""Ages of a track, in frames, at which it is asked who it is; then every `_ASK_EVERY` frames."""
_ASK_EVERY: Final = 25
_JUMP: Final = 0.035
"""Mean change of a face's points within it, in units of its size, from which on it may be another
one's. Seen between two persons: 0.044; in a frame of a face that turns and grows: 0.023."""
_LOOKS_ASIDE: Final = 50.0
"""Degrees of yaw from which on an embedding says little."""
_APPEARANCE: Final = 0.7
"""How much of a contested pair's cost is who the face is; the rest is where it is."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One face of a track in one frame.

    track: its number; no number is used twice.
    pose: (3,) float32: yaw, pitch, roll, degrees; zeros without landmarks.
    identity: who the track is, as far as is known by then.
    """

    track: int
    shape: FaceShape
    pose: Array
    identity: Identity


@dataclass(frozen=True, eq=False)
class Sighting:
    """The faces of one frame.

    index: of the frame, from 0. begins_shot: whether a shot begins with it.
    """

    index: int
    begins_shot: bool
    samples: tuple[Sample, ...]


@dataclass(eq=False)
class _Track:
    number: int
    shape: FaceShape
    speed: Array = field(default_factory=lambda: np.zeros(4, np.float32))
    age: int = 0
    missing: int = 0
    identity: Identity = field(default_factory=Identity)
    is_suspect: bool = False
    has_jumped: bool = False
    is_followed: bool = False
    is_small: bool = False

    def awaited(self) -> Array:
        """(4,) float32: the place where the face should be in the next frame."""
        return np.asarray(self.shape.place + self.speed * (self.missing + 1), np.float32)

    def go_on(self, shape: FaceShape) -> None:
        step = (shape.place - self.shape.place) / np.float32(self.missing + 1)
        step[3] = (step[3] + np.pi) % (2.0 * np.pi) - np.pi
        self.speed = np.asarray(self.speed + _DAMPING * (step - self.speed), np.float32)
        change = np.abs(shape.points - self.shape.points)[:, :2].mean()
        self.has_jumped = shape.has_mesh == self.shape.has_mesh and bool(change > _JUMP)
        self.shape = shape
        self.age += self.missing + 1
        self.missing = 0

    def lose(self) -> None:
        self.missing += 1
        self.speed = self.speed * np.float32(0.7)


class Tracker:
    """Joins what is found in frames, in order.

    Args:
        begin_score: of a face that a track begins with; to go on with one, any score does.
        longest_gap: frames without the face after which a track ends.
        knows_persons: whether embeddings may be asked for.
        searcher: looks once more for turned and small faces; None: nobody does.
    """

    def __init__(
        self,
        *,
        begin_score: float,
        longest_gap: int,
        knows_persons: bool,
        searcher: Searcher | None = None,
    ) -> None:
        self._begin_score = begin_score
        self._longest_gap = longest_gap
        self._knows_persons = knows_persons
        self._searcher = searcher or Searcher(Search.OFF, begin_score=begin_score)
        self._cuts = CutFinder()
        self._tracks: list[_Track] = []
        self._frames = self._numbers = 0

    def see(self, eyes: Eyes, found: FoundFaces | None, *, is_resized: bool = False) -> Sighting:
        """Take in the next frame.

        Args:
            found: what `find` said of it; None where `eyes` remember.
            is_resized: whether it has another size than the one before: where faces were, in
                pixels, says nothing then, so a shot begins.
        """
        begins_shot = self._cuts.is_cut(eyes.thumbnail()) or is_resized
        if begins_shot:
            self._tracks.clear()
        known = sighted(eyes.found(found))
        samples = self._follow(eyes)
        there = [sample.shape for sample in samples]
        faces = [each for each in known if not any(are_one(each.shape, one) for one in there)]
        samples += self._take(faces, eyes)
        if samples:
            self._searcher.sees_somebody()
        elif self._searcher.sweeps and not self._tracks:
            hidden = self._searcher.sweep(eyes, faces, begins_shot=begins_shot)
            samples += [self._sample(self._begin(each.shape), each, eyes) for each in hidden]
        seen = {sample.track for sample in samples}
        for track in self._tracks:
            if track.number not in seen:
                track.lose()
        self._tracks = [each for each in self._tracks if each.missing <= self._longest_gap]
        self._frames += 1
        return Sighting(self._frames - 1, begins_shot, tuple(samples))

    def _follow(self, eyes: Eyes) -> list[Sample]:
        """Samples of those tracks that the ordinary look does not see, or not rightly."""
        samples = []
        for track in [each for each in self._tracks if each.is_followed]:
            each = self._searcher.follow(eyes, track.awaited())
            if each is not None:
                track.go_on(each.shape)
                samples.append(self._sample(track, each, eyes))
        return samples

    def _take(self, faces: Sequence[Sighted], eyes: Eyes) -> list[Sample]:
        """Samples of the faces of an ordinary look."""
        pairs = self._join(faces, eyes)
        samples = []
        for number, face in enumerate(faces):
            track = pairs.get(number)
            if track is None and face.row[SCORE_COLUMN] < self._begin_score:
                continue
            each = self._searcher.righted(eyes, face, age=0 if track is None else track.age + 1)
            if track is None:
                track = self._begin(each.shape)
            else:
                track.go_on(each.shape)
            samples.append(self._sample(track, each, eyes))
        return samples

    def _sample(self, track: _Track, each: Sighted, eyes: Eyes) -> Sample:
        track = self._ask(track, each.row, each.pose, eyes)
        # Who was too small once is looked for where she was as long as she is seen.
        track.is_small = track.is_small or each.is_small
        track.is_followed = track.is_small or self._searcher.stays_followed(
            each.shape, was_followed=track.is_followed
        )
        return Sample(track.number, each.shape, each.pose, track.identity)

    def _begin(self, shape: FaceShape) -> _Track:
        track = _Track(self._numbers, shape)
        self._numbers += 1
        self._tracks.append(track)
        return track

    def _join(self, faces: Sequence[Sighted], eyes: Eyes) -> Mapping[int, _Track]:
        """The track of each face that has one, by the face's number."""
        free = [track for track in self._tracks if not track.is_followed]
        costs = [[_distance(track, each.shape) for each in faces] for track in free]
        if self._knows_persons:
            for column in range(len(faces)):
                rivals = [row for row, cost in enumerate(costs) if cost[column] <= 1.0]
                if len(rivals) < 2:
                    continue
                seen = eyes.embed(faces[column].row)
                for row in rivals:
                    who = free[row].identity
                    if who.is_known and seen.any():
                        unlike = min(1.0, max(0.0, 1.0 - likeness(seen, who.embedding)))
                        costs[row][column] *= 1.0 - _APPEARANCE
                        costs[row][column] += _APPEARANCE * unlike
        return {column: free[row] for row, column in match(costs, most=1.0)}

    def _ask(self, track: _Track, face: Array, pose: Array, eyes: Eyes) -> _Track:
        """Ask who a face is where that is due; the track, or the one that the face begins."""
        if not self._knows_persons:
            return track
        is_doubted = track.is_suspect or track.has_jumped
        is_due = track.age in _ASK_AT or track.age % _ASK_EVERY == 0 or is_doubted
        if track.identity.is_known and not is_doubted:
            is_due = is_due and abs(float(pose[0])) < _LOOKS_ASIDE
        if not is_due and track.identity.is_known:
            return track
        seen = eyes.embed(face)
        if not seen.any():
            return track
        is_same = (
            not track.identity.is_known or likeness(seen, track.identity.embedding) >= SAME_PERSON
        )
        if is_same:
            track.identity = track.identity.and_seen(seen)
            track.is_suspect = False
        elif not is_doubted:
            # Once may be a bad moment; the next frame is asked, too.
            track.is_suspect = True
        else:
            self._tracks.remove(track)
            # Somebody else, but found in the same way.
            is_small, is_followed = track.is_small, track.is_followed
            track = self._begin(track.shape)
            track.is_small, track.is_followed = is_small, is_followed
            track.identity = track.identity.and_seen(seen)
        return track


def _distance(track: _Track, shape: FaceShape) -> float:
    """What it costs to go on with a face: 0 to 1, infinite where it cannot be."""
    awaited = track.awaited()
    size = max(track.shape.size_px, shape.size_px)
    reach = _REACH * (1.0 + 0.1 * track.missing)
    away = float(np.hypot(*(shape.place[:2] - awaited[:2]))) / size / reach
    growth = abs(float(shape.place[2] - track.shape.place[2])) / _GROWTH
    if away > 1.0 or growth > 1.0 + 0.1 * track.missing:
        return float("inf")
    points = shape.points[:5, :2] - track.shape.points[:5, :2]
    bent = min(1.0, float(np.abs(points).mean()))
    return 0.7 * away + 0.2 * min(growth, 1.0) + 0.1 * bent
