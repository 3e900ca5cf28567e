"""What is asked about a frame, and what was answered: kept, so that it need not be asked twice.

A job that goes on after a kill must come to the same tracks, so it is given the same answers: those
that its journal kept. `Eyes` are of one frame; the answers lie on a `Tape`, frame by frame.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frameswap.found_faces import FoundFaces
from frameswap.frames import Frame, frame_size
from frameswap.persons.cuts import thumbnail

__all__ = ["Eyes", "Looker", "Part", "Tape", "read_tape", "write_tape"]

Array = NDArray[np.float32]
Part = tuple[Array, tuple[int, int]]
"""Of a frame: (2, 3), frame to part; and the part's width and height in pixels, both even."""


class Looker(Protocol):
    """Asks the server about parts of a frame."""

    def embed(self, frame: Frame, face: Array) -> Array:
        """Who a face (15,) is: (E,) of unit length; zeros where the face could not be seen."""

    def find_in(
        self, frame: Frame, parts: Sequence[Part], least_score: float | None = None
    ) -> list[FoundFaces]:
        """Faces of each of some parts of the frame, in the frame's pixels.

        Args:
            least_score: of a face; None: as in the job's ordinary look.
        """


class Eyes:
    """One frame: what was found in it, and who else may be asked.

    Args:
        kept: answers, in the order of asking; new ones are added.
        frame, looker: None where all that will be asked is in `kept`.
    """

    def __init__(
        self, kept: list[Array], *, frame: Frame | None = None, looker: Looker | None = None
    ) -> None:
        self._kept = kept
        self._next = 0
        self._frame = frame
        self._looker = looker

    def thumbnail(self) -> Array:
        """See `cuts.thumbnail`."""
        return self._see(lambda: thumbnail(self._given()))

    def frame_size(self) -> Array:
        """(2,): height and width of the frame, pixels."""

        def size() -> Array:
            known = frame_size(self._given())
            return np.array([known.height, known.width], np.float32)

        return self._see(size)

    def found(self, found: FoundFaces | None) -> FoundFaces:
        """What the frame's `find` said; None where that was kept."""
        def given() -> FoundFaces:
            assert found is not None  # as `_given`
            return found

        return self._see_found(given)

    def embed(self, face: Array) -> Array:
        """See `Looker.embed`."""
        return self._see(lambda: self._asked().embed(self._given(), face))

    def find_in(
        self, parts: Sequence[Part], least_score: float | None = None
    ) -> list[FoundFaces]:
        """See `Looker.find_in`."""
        answers: list[FoundFaces] = []

        def answer(number: int) -> FoundFaces:
            if not answers:
                answers.extend(self._asked().find_in(self._given(), parts, least_score))
            return answers[number]

        return [self._see_found(partial(answer, number)) for number in range(len(parts))]

    def _given(self) -> Frame:
        frame = self._frame
        assert frame is not None  # a frame whose answers were kept is asked nothing new
        return frame

    def _asked(self) -> Looker:
        looker = self._looker
        assert looker is not None  # as `_given`
        return looker

    def _see_found(self, ask: Callable[[], FoundFaces]) -> FoundFaces:
        answers: list[FoundFaces] = []

        def once() -> FoundFaces:
            if not answers:
                answers.append(ask())
            return answers[0]

        return FoundFaces(
            self._see(lambda: once().faces),
            self._see(lambda: once().landmarks),
            self._see(lambda: once().pose),
        )

    def _see(self, ask: Callable[[], Array]) -> Array:
        if self._next == len(self._kept):
            self._kept.append(np.asarray(ask(), np.float32))
        self._next += 1
        return self._kept[self._next - 1]


class Tape:
    """The answers of each frame of a job, from frame 0 on, as long as somebody needs them."""

    def __init__(self) -> None:
        self._frames: dict[int, list[Array]] = {}

    def of(self, index: int) -> list[Array]:
        """The answers of a frame, to read or to add to."""
        return self._frames.setdefault(index, [])

    def take(self, start: int, stop: int) -> list[list[Array]]:
        """Hand out those of frames `start` to `stop` (open), and forget them."""
        return [self._frames.pop(index, []) for index in range(start, stop)]


def write_tape(frames: Sequence[Sequence[Array]]) -> bytes:
    """Answers of frames that follow each other, as the bytes of an `.npz` file."""
    arrays = [array for frame in frames for array in frame]
    table = [[number, *array.shape] for number, frame in enumerate(frames) for array in frame]
    width = max((len(row) for row in table), default=1)
    rows = np.full((len(table), width), -1, np.int32)
    for row, values in zip(rows, table, strict=True):
        row[: len(values)] = values
    buffer = io.BytesIO()
    numbers = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.zeros(0)
    np.savez(
        buffer, numbers=numbers.astype(np.float32), shapes=rows, frames=np.array(len(frames))
    )
    return buffer.getvalue()


def read_tape(data: bytes) -> list[list[Array]]:
    """What `write_tape` wrote.

    Raises:
        ValueError, KeyError, OSError: other bytes.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        stored: Mapping[str, NDArray[Any]] = file
        numbers, rows = stored["numbers"], stored["shapes"]
        frames: list[list[Array]] = [[] for _ in range(int(stored["frames"]))]
    place = 0
    for row in rows:
        shape = tuple(int(side) for side in row[1:] if side >= 0)
        size = int(np.prod(shape))
        frames[row[0]].append(np.asarray(numbers[place : place + size], np.float32).reshape(shape))
        place += size
    return frames
