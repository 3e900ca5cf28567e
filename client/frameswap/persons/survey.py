"""Who is in a file: each person once, with when, how often, how large and how she looks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SCORE_COLUMN, FaceOrder
from frameswap.errors import BadOptions, UnreadableFile
from frameswap.found_faces import FoundFrame
from frameswap.frame_picture import i420_to_bgr
from frameswap.frames import Frame, frame_format
from frameswap.options import SwapOptions
from frameswap.persons.eyes import Eyes
from frameswap.persons.following import models_to_find
from frameswap.persons.identity import SAME_PERSON, Identity, likeness
from frameswap.persons.looking import ServerLooker, cut_part, portrait_warp
from frameswap.persons.plan import begin_score, finding_options
from frameswap.persons.shapes import write_shape
from frameswap.persons.tracks import Sample, Tracker
from frameswap.photo import is_photo, open_photo
from frameswap.read_options import ReadOptions
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoReader

__all__ = ["Person", "Survey", "find_persons", "read_survey"]

Array = NDArray[np.float32]

DEFAULT_EVERY_S: Final = 0.2
THUMBNAIL_SIDE: Final = 160
_LONGEST_GAP: Final = 2
"""Frames looked at in which a track's face may be missing."""
_BETTER: Final = 1.1
"""A thumbnail is made anew for a face that shows so much more."""
_FORM: Final = "frameswap_persons"


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a file.

    number: from 1 on; who is seen longest comes first.
    first_s, last_s: when she is seen first and last, seconds.
    share: of the frames looked at, in how many she is seen, 0 to 1.
    size_px: height of her face's box, the median.
    best_s: when the thumbnail was taken, seconds; box, score, pose: of the face then.
    box: x1 y1 x2 y2, pixels of the upright frame. pose: yaw, pitch, roll, degrees.
    thumbnail: (160, 160, 3) uint8 BGR, upright; empty where it was read from a file.
    embedding: (E,) float32 of unit length: a reference for `Casting.by_reference`.
    """

    number: int
    first_s: float
    last_s: float
    share: float
    size_px: float
    best_s: float
    box: tuple[float, float, float, float]
    score: float
    pose: tuple[float, float, float]
    thumbnail: NDArray[np.uint8]
    embedding: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Survey:
    """The persons of a file.

    frames: how many were looked at. duration_s: from the first to the last of them.
    """

    persons: tuple[Person, ...]
    frames: int
    duration_s: float

    def to_json(self) -> dict[str, Any]:
        """All but the thumbnails, for `json.dump`."""
        return {
            _FORM: 1,
            "frames": self.frames,
            "duration_s": round(self.duration_s, 6),
            "persons": [_person_json(person) for person in self.persons],
        }

    @classmethod
    def from_json(cls, document: Any) -> Survey:
        """What `to_json` wrote; without thumbnails.

        Raises:
            ValueError: something else.
        """
        try:
            if document[_FORM] != 1:
                raise ValueError(f"version {document[_FORM]}")
            persons = tuple(_read_person(row) for row in document["persons"])
            return cls(persons, int(document["frames"]), float(document["duration_s"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no list of persons: {error}") from error


def read_survey(path: Path) -> Survey:
    """Read the JSON file that `frameswap faces` wrote.

    Raises:
        UnreadableFile: missing, or something else.
    """
    try:
        return Survey.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableFile(
            f"{path} holds no persons ({error}): `frameswap faces` writes such a file beside its "
            f"sheet"
        ) from error


def find_persons(
    swapper: FaceSwapper,
    path: Path,
    *,
    every_s: float = DEFAULT_EVERY_S,
    reading: ReadOptions | None = None,
    score_threshold: float | None = None,
    on_frame: Callable[[int, int | None], None] | None = None,
) -> Survey:
    """Look through a video or a photo.

    Args:
        every_s: seconds between the frames of a video that are looked at; 0 looks at each.
        reading: which part of a video, and how.
        score_threshold: the detector's, in (0, 1]; None is the usual 0.5.
        on_frame: gets how many frames were looked at, and how many there will be where that is
            known; what it raises ends the search.

    Raises:
        UnreadableFile: no such video or photo.
        ContractMismatch: the server has no `find_faces` or `embed_face_bgr` loaded.
    """
    if every_s < 0:
        raise BadOptions(f"every_s is 0 or more seconds, not {every_s}")
    options = SwapOptions(score_threshold=score_threshold)
    with ExitStack() as stack:
        if is_photo(path):
            photo = open_photo(path).image
            frames: Iterator[tuple[float, Frame]] = iter([(0.0, photo)])
            total: int | None = 1
        else:
            reader = stack.enter_context(VideoReader(path, reading or ReadOptions()))
            options = replace(
                options, color_matrix=reader.tags.color_matrix,
                color_range=reader.tags.color_range, chroma_location=reader.chroma_location,
            )  # fmt: skip
            frames = _some(reader, every_s)
            step = max(1.0, every_s * float(reader.frame_rate))
            total = None if reader.frame_count is None else math.ceil(reader.frame_count / step)
        search = _Search(swapper, options)
        for frame_s, found in search.look(frames):
            search.take(frame_s, found)
            if on_frame is not None:
                on_frame(search.frames, total)
    return search.survey()


def _some(reader: VideoReader, every_s: float) -> Iterator[tuple[float, Frame]]:
    """Frames of a video, a while apart, each with its time."""
    due_s: float | None = None
    for frame in reader.frames():
        frame_s = float(frame.pts * reader.time_base)
        # Half a millisecond: times are rounded.
        if due_s is None or frame_s >= due_s - 0.0005:
            due_s = (frame_s if due_s is None else max(due_s, frame_s - every_s)) + every_s
            yield frame_s, frame


@dataclass(eq=False)
class _Seen:
    """What is known of a track, or of a person by several."""

    identity: Identity = field(default_factory=Identity)
    times: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    merit: float = 0.0
    best: Person | None = None


class _Search:
    """Gathers the persons of a file, frame by frame."""

    def __init__(self, swapper: FaceSwapper, options: SwapOptions) -> None:
        self._swapper = swapper
        self._options = options
        self._finding = replace(finding_options(options), face_order=FaceOrder.LARGEST_FIRST)
        self._looker = ServerLooker(swapper, self._finding)
        self._tracker = Tracker(
            begin_score=begin_score(options), longest_gap=_LONGEST_GAP, knows_persons=True
        )
        self._tracks: dict[int, _Seen] = {}
        self._times: list[float] = []

    @property
    def frames(self) -> int:
        return len(self._times)

    def look(self, frames: Iterator[tuple[float, Frame]]) -> Iterator[tuple[float, FoundFrame]]:
        """What is found in each frame."""
        times: list[float] = []

        def remembered() -> Iterator[Frame]:
            for frame_s, frame in frames:
                times.append(frame_s)
                yield frame

        for number, found in enumerate(self._swapper.find_stream(remembered(), self._finding)):
            if not number:
                models = models_to_find(frame_format(found.frame), knows_persons=True)
                self._swapper.check_models(models)
            yield times[number], found

    def take(self, frame_s: float, each: FoundFrame) -> None:
        """Take in the next frame."""
        eyes = Eyes([], frame=each.frame, looker=self._looker)
        sighting = self._tracker.see(eyes, each.found)
        self._times.append(frame_s)
        for sample in sighting.samples:
            seen = self._tracks.setdefault(sample.track, _Seen())
            seen.identity = sample.identity
            seen.times.append(frame_s)
            face, _ = write_shape(sample.shape)
            seen.heights.append(float(face[3] - face[1]))
            merit = _merit(sample, seen.heights[-1])
            if merit > _BETTER * seen.merit:
                seen.merit = merit
                seen.best = self._portray(sample, face, each.frame, frame_s)

    def survey(self) -> Survey:
        """Everybody, tracks of one person put together."""
        persons = _put_together(list(self._tracks.values()))
        rows = [
            _finish(number, person, self.frames) for number, person in enumerate(persons, 1)
        ]
        lasts_s = self._times[-1] - self._times[0] if self._times else 0.0
        return Survey(tuple(rows), self.frames, lasts_s)

    def _portray(self, sample: Sample, face: Array, frame: Frame, frame_s: float) -> Person:
        part = cut_part(frame, portrait_warp(face, THUMBNAIL_SIDE), (THUMBNAIL_SIDE,) * 2)
        thumbnail = part
        if part.ndim == 2:
            thumbnail = i420_to_bgr(part, self._looker.options_of(frame))
        return Person(
            number=0, first_s=frame_s, last_s=frame_s, share=0.0, size_px=0.0, best_s=frame_s,
            box=(float(face[0]), float(face[1]), float(face[2]), float(face[3])),
            score=float(face[SCORE_COLUMN]), pose=_pose(sample), thumbnail=thumbnail,
            embedding=np.zeros(0, np.float32),
        )  # fmt: skip


def _merit(sample: Sample, height_px: float) -> float:
    """How well a face can be seen."""
    yaw, pitch = abs(float(sample.pose[0])), abs(float(sample.pose[1]))
    frontal = float(np.cos(np.radians(min(yaw + 0.5 * pitch, 85.0))))
    return float(sample.shape.score * frontal * min(height_px, 200.0) ** 0.5)


def _pose(sample: Sample) -> tuple[float, float, float]:
    yaw, pitch, roll = (float(angle) for angle in sample.pose)
    return yaw, pitch, roll


def _put_together(tracks: Sequence[_Seen]) -> list[_Seen]:
    """Persons by their tracks, longest seen first.

    Who was seen longest is known best, so tracks are joined in that order, each to the person that
    it is most like. Two who are in one frame are two.
    """
    persons: list[_Seen] = []
    known = [track for track in tracks if track.identity.is_known and track.best is not None]
    for track in sorted(known, key=lambda each: -len(each.times)):
        others = [each for each in persons if not set(each.times) & set(track.times)]
        alike = [likeness(each.identity.embedding, track.identity.embedding) for each in others]
        if not alike or max(alike) < SAME_PERSON:
            persons.append(replace(track))
            continue
        person = others[int(np.argmax(alike))]
        total = person.identity.total + track.identity.total
        person.identity = Identity(total, person.identity.seen + track.identity.seen)
        person.times = sorted(person.times + track.times)
        person.heights = person.heights + track.heights
        if track.merit > person.merit:
            person.merit, person.best = track.merit, track.best
    return sorted(persons, key=_longest_first)


def _longest_first(person: _Seen) -> tuple[int, float, float]:
    assert person.best is not None
    return -len(person.times), person.times[0], person.best.box[0]


def _finish(number: int, person: _Seen, frames: int) -> Person:
    assert person.best is not None
    return replace(
        person.best, number=number, first_s=person.times[0], last_s=person.times[-1],
        share=len(person.times) / frames, size_px=float(np.median(person.heights)),
        embedding=person.identity.embedding,
    )  # fmt: skip


def _person_json(person: Person) -> dict[str, Any]:
    return {
        "number": person.number,
        "first_s": round(person.first_s, 6),
        "last_s": round(person.last_s, 6),
        "share": round(person.share, 4),
        "size_px": round(person.size_px, 1),
        "best_s": round(person.best_s, 6),
        "box": [round(side, 1) for side in person.box],
        "score": round(person.score, 4),
        "pose": [round(angle, 1) for angle in person.pose],
        "embedding": [round(float(number), 6) for number in person.embedding],
    }


def _read_person(row: Any) -> Person:
    x1, y1, x2, y2 = (float(side) for side in row["box"])
    yaw, pitch, roll = (float(angle) for angle in row["pose"])
    embedding = np.array(row["embedding"], np.float32)
    if embedding.ndim != 1 or not np.isfinite(embedding).all() or not embedding.any():
        raise ValueError("an embedding that is none")
    return Person(
        number=int(row["number"]), first_s=float(row["first_s"]), last_s=float(row["last_s"]),
        share=float(row["share"]), size_px=float(row["size_px"]), best_s=float(row["best_s"]),
        box=(x1, y1, x2, y2), score=float(row["score"]), pose=(yaw, pitch, roll),
        thumbnail=np.zeros((0, 0, 3), np.uint8),
        embedding=embedding / np.float32(np.linalg.norm(embedding)),
    )  # fmt: skip
