"""The plan of a steady job: tracks in, placements out, and answers kept for a run that goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.found_faces import FoundFrame, Placement
from frameswap.frames import FrameSize, frame_size
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting
from frameswap.persons.eyes import Eyes, Looker, Tape
from frameswap.persons.search import Search, Searcher
from frameswap.persons.steadiness import Placer, longest_gap
from frameswap.persons.tracks import Sighting, Tracker

__all__ = ["SteadyPlan", "begin_score", "finding_options"]

Array = NDArray[np.float32]

_BEGIN_SCORE: Final = 0.5
"""A track begins with what a detector is as sure of as it usually has to be."""
_GO_ON: Final = 0.6
"""How much of that score is enough to go on with a track."""


def begin_score(options: SwapOptions) -> float:
    """How sure a detector must be of a face that a track begins with."""
    return _BEGIN_SCORE if options.score_threshold is None else options.score_threshold


def finding_options(options: SwapOptions) -> SwapOptions:
    """What `find` is asked for: those, too, whom only a track makes believable."""
    return replace(options, score_threshold=_GO_ON * begin_score(options))


class SteadyPlan:
    """A `Plan` that follows faces.

    Args:
        ahead: frames that are known before one is placed; 0: live.
        options: of the job.
        search: what is looked at once more.
        mesh_rows: rows of `landmarks` that the server takes.
        known: the answers of the frames that are done already, which no more frames come of.
        tape: gets the answers of the others; None: they are forgotten.
    """

    def __init__(
        self,
        casting: Casting,
        *,
        ahead: int,
        options: SwapOptions,
        looker: Looker,
        mesh_rows: int,
        frame_rate: Fraction | float,
        search: Search = Search.OFF,
        known: Iterable[Sequence[Array]] = (),
        tape: Tape | None = None,
    ) -> None:
        self._tracker = Tracker(
            begin_score=begin_score(options),
            longest_gap=longest_gap(ahead),
            knows_persons=casting.knows_persons,
            searcher=Searcher(search, begin_score=begin_score(options)),
        )
        self._placer = Placer(
            casting, ahead=ahead, mesh_rows=mesh_rows, frame_rate=frame_rate
        )
        self._looker = looker
        self._known = known
        self._tape = tape
        self._done = 0

    def __call__(self, founds: Iterator[FoundFrame]) -> Iterator[Placement]:
        for index, placement in enumerate(self._placer.place(self._sightings(founds))):
            if index >= self._done:
                yield placement

    def _sightings(self, founds: Iterator[FoundFrame]) -> Iterator[Sighting]:
        for answers in self._known:
            self._done += 1
            yield self._tracker.see(Eyes(list(answers)), None)
        # Frames whose answers are known are a file's, so all of one size.
        last: FrameSize | None = None
        for index, each in enumerate(founds, self._done):
            size = frame_size(each.frame)
            kept = [] if self._tape is None else self._tape.of(index)
            eyes = Eyes(kept, frame=each.frame, looker=self._looker)
            is_resized = last is not None and size != last
            last = size
            yield self._tracker.see(eyes, each.found, is_resized=is_resized)
