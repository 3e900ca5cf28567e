"""Turned and small faces, with a detector that takes every face for an upright one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from frameswap.found_faces import FoundFaces
from frameswap.persons.eyes import Eyes, Part
from frameswap.persons.looking import cut_part, portrait_warp
from frameswap.persons.search import Search, Searcher
from frameswap.persons.shapes import read_shape
from frameswap.persons.tracks import Sighting, Tracker
from people import FIVE, POINTS, face_at, person

WIDTH, HEIGHT = 1280, 720


@dataclass(frozen=True)
class Head:
    """A face in a frame. eyes_px: distance of its eyes. roll_deg: clockwise on the screen.

    far, near: scores where fewer and where more than 10 pixels are between its eyes; None: of an
        ordinary face.
    upright, askew: of an ordinary face, without roll and with more than 50 degrees of it.
    """

    x: float = 640.0
    y: float = 360.0
    eyes_px: float = 40.0
    roll_deg: float = 0.0
    far: float | None = None
    near: float | None = None
    upright: float = 0.94
    askew: float = 0.85


def row(head: Head, *, turn_deg: float, score: float) -> np.ndarray:
    angle = np.radians(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    face = face_at(head.x, head.y, head.eyes_px, score)
    face[5:] = ((FIVE * head.eyes_px) @ turn.T + [head.x, head.y]).reshape(-1)
    return face


class Detector(Eyes):
    """Sees heads up to 50 degrees of roll rightly, and others the wrong way up; small ones not."""

    def __init__(self, *heads: Head, shot: int = 0) -> None:
        super().__init__([])
        self.heads, self.shot, self.looks, self.rounds = heads, shot, 0, 0

    def thumbnail(self) -> np.ndarray:
        return np.full((9, 16), 100.0 * self.shot, np.float32)

    def frame_size(self) -> np.ndarray:
        return np.float32([HEIGHT, WIDTH])

    def found(self, given: FoundFaces | None) -> FoundFaces:
        return self._find(np.float32([[1, 0, 0], [0, 1, 0]]), (WIDTH, HEIGHT))

    def find_in(
        self, parts: Sequence[Part], least_score: float | None = None
    ) -> list[FoundFaces]:
        self.looks += len(parts)
        self.rounds += bool(parts)
        return [self._find(*part, 0.3 if least_score is None else least_score) for part in parts]

    def _find(
        self, warp: np.ndarray, size: tuple[int, int], least_score: float = 0.3
    ) -> FoundFaces:
        turned = np.degrees(np.arctan2(warp[1, 0], warp[0, 0]))
        scale = np.hypot(*warp[:, 0]) * 640 / max(640, *size)
        rows = []
        for head in self.heads:
            place = warp[:, :2] @ [head.x, head.y] + warp[:, 2]
            roll = (head.roll_deg + turned + 180) % 360 - 180
            if head.eyes_px * scale < 4 or (place < 0).any() or (place >= size).any():
                continue
            given = head.near if head.eyes_px * scale > 10 else head.far
            score = head.upright - abs(roll) / 1000 if abs(roll) <= 50 else head.askew
            score = score if given is None else given
            if score >= least_score:
                # Upright in the view, whatever it is, where it is turned too far.
                turn = head.roll_deg if abs(roll) <= 50 else -turned
                rows.append(row(head, turn_deg=turn, score=score))
        count = len(rows)
        faces = np.stack(rows) if rows else np.zeros((0, 15), np.float32)
        zeros = np.zeros((count, POINTS, 3), np.float32)
        return FoundFaces(faces, zeros, np.zeros((count, 3), np.float32))


def tracker(search: Search) -> Tracker:
    return Tracker(
        begin_score=0.5, longest_gap=9, knows_persons=False,
        searcher=Searcher(search, begin_score=0.5),
    )  # fmt: skip


def rolls(sighting: Sighting) -> list[int]:
    return [round(np.degrees(sample.shape.place[3])) % 360 for sample in sighting.samples]


@pytest.mark.parametrize("search", [Search.UPRIGHT, Search.TURNED])
@pytest.mark.parametrize("roll", range(0, 360, 15))
def test_every_roll_is_seen_the_right_way_up(roll: int, search: Search) -> None:
    ours = tracker(search)
    for _ in range(3):
        (seen,) = rolls(ours.see(Detector(Head(roll_deg=roll)), None))
        assert abs((seen - roll + 180) % 360 - 180) <= 1


@pytest.mark.parametrize(
    ("score", "looks", "rounds"),
    # Two; then three quarters, levelled; then four turns between, each of these as sure as others.
    [(None, 0, 0), (0.91, 8, 4), (0.8, 16, 6)],
)
def test_a_face_is_looked_at_until_its_detector_is_sure(
    score: float | None, looks: int, rounds: int
) -> None:
    eyes = Detector(Head(near=score))
    tracker(Search.UPRIGHT).see(eyes, None)
    assert (eyes.looks, eyes.rounds) == (looks, rounds)


def test_a_view_that_is_far_less_sure_is_not_levelled() -> None:
    """Upright it has 0.9 in the ordinary look's eyes; turned further than 50 degrees, 0.8."""
    eyes = Detector(Head(upright=0.9, askew=0.8))
    assert rolls(tracker(Search.UPRIGHT).see(eyes, None)) == [0]
    assert (eyes.looks, eyes.rounds) == (5, 3)


def test_frames_without_faces_are_searched_only_where_that_was_asked_for() -> None:
    eyes = Detector()
    assert tracker(Search.UPRIGHT).see(eyes, None).samples == ()
    assert eyes.looks == 0
    tracker(Search.TURNED).see(eyes, None)
    assert eyes.looks > 0


def test_without_search_nothing_is_looked_at_again() -> None:
    eyes = Detector(Head(roll_deg=180))
    assert rolls(tracker(Search.OFF).see(eyes, None)) == [0], "the wrong way up"
    assert eyes.looks == 0


def test_a_head_that_rolls_over_is_one_track_and_takes_a_look_a_frame() -> None:
    ours = tracker(Search.TURNED)
    looks, tracks = [], set()
    for step in range(73):
        eyes = Detector(Head(roll_deg=5 * step))
        sighting = ours.see(eyes, None)
        tracks |= {sample.track for sample in sighting.samples}
        assert rolls(sighting) == [5 * step % 360]
        looks.append(eyes.looks)
    assert tracks == {0}
    assert np.median(looks[10:60]) == 1
    # Upright at the beginning and again at the end, it is an ordinary face.
    assert looks[1:5] == [0] * 4
    assert looks[-1] == 0


def test_a_small_face_is_found_in_tiles_and_then_where_it_was() -> None:
    ours = tracker(Search.SMALL)
    looks = []
    for step in range(6):
        eyes = Detector(Head(x=1000 + 3 * step, y=600, eyes_px=5))
        (sample,) = ours.see(eyes, None).samples
        assert sample.shape.place[0] == pytest.approx(1000 + 3 * step, abs=1)
        looks.append(eyes.looks)
    assert looks == [6 + 1, 1, 1, 1, 1, 1], "six tiles, and a look from near"
    assert tracker(Search.TURNED).see(Detector(Head(eyes_px=5)), None).samples == ()


class Passport(Detector):
    """Who the small face is, besides: person `who`."""

    def __init__(self, head: Head, who: int) -> None:
        super().__init__(head)
        self.who = who

    def embed(self, face: np.ndarray) -> np.ndarray:
        return person(self.who)


@pytest.mark.parametrize(
    ("search", "head"),
    [(Search.SMALL, Head(1100, 600, eyes_px=5.0)), (Search.TURNED, Head(roll_deg=180.0))],
)
def test_a_face_that_is_somebody_elses_is_found_as_before(search: Search, head: Head) -> None:
    """One takes another's place, in a crowd far away: the track is new, the way to look is not."""
    ours = Tracker(
        begin_score=0.5, longest_gap=9, knows_persons=True,
        searcher=Searcher(search, begin_score=0.5),
    )  # fmt: skip
    seen = [ours.see(Passport(head, 1 if step < 10 else 2), None) for step in range(40)]
    assert [len(each.samples) for each in seen] == [1] * 40
    assert {sample.track for each in seen for sample in each.samples} == {0, 1}
    assert {roll for each in seen for roll in rolls(each)} == {round(head.roll_deg)}


@pytest.mark.parametrize("far", [0.15, 0.4, 0.9])
def test_a_glimpse_is_a_face_if_it_looks_like_one_from_near(far: float) -> None:
    (sample,) = tracker(Search.SMALL).see(
        Detector(Head(x=1000, y=600, eyes_px=5, far=far, near=0.85)), None
    ).samples
    assert sample.shape.place[:2] == pytest.approx([1000, 600], abs=1)
    assert sample.shape.score == pytest.approx(0.85)


@pytest.mark.parametrize("search", [Search.SMALL, Search.TURNED, Search.ALL])
def test_gravel_is_no_face_from_near_however_sure_the_first_look_was(search: Search) -> None:
    stones = [
        Head(x=100 + 60 * k, y=300 + 7 * k, eyes_px=5, roll_deg=50 * k, far=0.95, near=0.62)
        for k in range(16)
    ]
    eyes = Detector(*stones)
    eyes.found = lambda given: FoundFaces(  # type: ignore[method-assign]
        np.zeros((0, 15), np.float32), np.zeros((0, POINTS, 3), np.float32),
        np.zeros((0, 3), np.float32),
    )  # fmt: skip
    assert tracker(search).see(eyes, None).samples == ()


def test_a_face_that_the_ordinary_look_doubts_is_looked_at_from_near() -> None:
    doubted = Head(eyes_px=15, far=0.4, near=0.9)
    (sample,) = tracker(Search.TURNED).see(Detector(doubted), None).samples
    assert sample.shape.score == pytest.approx(0.9)
    assert tracker(Search.OFF).see(Detector(doubted), None).samples == ()


def test_an_empty_frame_is_searched_now_and_then() -> None:
    ours = tracker(Search.ALL)
    looks = [0] * 40
    for step in range(40):
        eyes = Detector(shot=step >= 30)
        assert ours.see(eyes, None).samples == ()
        looks[step] = eyes.looks
    turned, tiles = 7, 6
    assert looks[0] == turned + tiles, "a shot begins with both"
    assert [step for step in range(30) if looks[step]] == [0, 10, 20, 25]
    assert looks[30] == turned + tiles


def test_a_part_of_a_frame_shows_what_is_there() -> None:
    """The face of a portrait lies in its middle, upright, whatever the format and its turn."""
    down, right = np.mgrid[:360, :640]
    bgr = np.dstack([right / 3, down / 2, (right + down) / 5]).astype(np.uint8)
    head = Head(300, 200, 30, 90)
    face = row(head, turn_deg=90, score=0.9)
    warp = portrait_warp(face, 224)
    shape = read_shape(face, np.zeros((0, 3), np.float32))
    upright = shape.points[:5, :2] * 0.11 * 224 + 111.5
    there = face[5:].reshape(5, 2) @ warp[:, :2].T + warp[:, 2]
    np.testing.assert_allclose(there, upright, atol=0.01)
    cut = cut_part(bgr, warp, (224, 224))
    # The pixel that lies in the middle.
    x, y = np.round(shape.place[:2]).astype(int)
    # Half a pixel beside it, at most, of a picture that changes by half a level a pixel.
    np.testing.assert_allclose(cut[111, 111], bgr[y, x], atol=1)
    part = cut_part(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), warp, (224, 224))
    assert part.shape == (336, 224)
    back = cv2.cvtColor(part, cv2.COLOR_YUV2BGR_I420)
    # Through limited range and halved chroma, away from the edges.
    assert np.abs(back[20:-20, 20:-20].astype(int) - cut[20:-20, 20:-20]).mean() < 3
