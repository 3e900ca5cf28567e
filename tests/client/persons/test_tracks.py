"""Faces of frames that follow each other become tracks."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap.persons.cuts import CutFinder, thumbnail
from frameswap.persons.identity import SAME_PERSON, Identity, average_embeddings
from frameswap.persons.tracks import Sighting, Tracker
from people import PaintedEyes, face_at, found, person, tracks_of


def tracker(*, persons: bool = False, gap: int = 9) -> Tracker:
    return Tracker(begin_score=0.5, longest_gap=gap, knows_persons=persons)


def test_a_face_that_moves_is_one_track() -> None:
    ours = tracker()
    seen = [ours.see(PaintedEyes({}), found(face_at(100 + 30 * step, 200))) for step in range(12)]
    assert [tracks_of(each.samples) for each in seen] == [[0]] * 12
    assert [each.begins_shot for each in seen] == [True] + [False] * 11
    assert [each.index for each in seen] == list(range(12))


def test_a_weak_face_goes_on_with_a_track_but_begins_none() -> None:
    ours = tracker()
    weak = [face_at(100, 200, score=0.35), face_at(400, 200, score=0.35)]
    assert tracks_of(ours.see(PaintedEyes({}), found(*weak)).samples) == []
    assert tracks_of(ours.see(PaintedEyes({}), found(face_at(100, 200))).samples) == [0]
    assert tracks_of(ours.see(PaintedEyes({}), found(*weak)).samples) == [0]


def test_a_face_that_comes_back_in_time_is_the_same_track() -> None:
    ours = tracker(gap=3)
    shown = [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    seen = [
        tracks_of(ours.see(PaintedEyes({}), found(*[face_at(100, 200)][:there])).samples)
        for there in shown
    ]
    assert seen == [[0], [0], [], [], [], [0], [], [], [], [], [1]]


def test_a_cut_ends_every_track() -> None:
    ours = tracker()
    for shot, number in ((0, 0), (0, 0), (1, 1), (1, 1)):
        sighting = ours.see(PaintedEyes({}, shot=shot), found(face_at(100, 200)))
        assert tracks_of(sighting.samples) == [number]


def cross(ours: Tracker, *, hidden: range = range(0)) -> tuple[list[Sighting], int]:
    """Person 1 walks right, person 2 left at the same height; one hides the other for a while."""
    seen, asked = [], 0
    for step in range(41):
        one, two = 100.0 + 10 * step, 504.0 - 10 * step
        faces = [face_at(one, 200)] + ([] if step in hidden else [face_at(two, 203)])
        eyes = PaintedEyes({one: 1, two: 2})
        # The detector's order changes, as who is larger does.
        seen.append(ours.see(eyes, found(*faces[:: 1 if step % 2 else -1])))
        asked += eyes.asked
    return seen, asked


@pytest.mark.parametrize("hidden", [range(0), range(17, 24)])
def test_who_crosses_stays_who_she_is(hidden: range) -> None:
    seen, asked = cross(tracker(persons=True), hidden=hidden)
    for sighting in seen:
        for sample in sighting.samples:
            if sample.identity.is_known:
                # The one a little lower is person 2.
                who = 1 if sample.shape.place[1] < 205 else 2
                assert np.argmax(sample.identity.embedding) == who
                assert sample.identity.embedding.max() == pytest.approx(1.0)
    assert len({track for each in seen for track in tracks_of(each.samples)}) <= 3
    # Not each frame: at the beginning, where two could be meant, and now and then.
    assert 2 <= asked <= 45


def test_without_persons_nobody_is_asked() -> None:
    assert cross(tracker())[1] == 0


def test_whose_face_is_another_ones_twice_begins_a_track() -> None:
    """A cut that the picture did not show, as between two who stand alike."""
    ours = tracker(persons=True)
    seen = [
        ours.see(PaintedEyes({100.0: 1 if step < 10 else 2}), found(face_at(100, 200)))
        for step in range(30)
    ]
    assert {track for each in seen for track in tracks_of(each.samples)} == {0, 1}
    assert np.argmax(seen[-1].samples[0].identity.embedding) == 2
    assert np.argmax(seen[9].samples[0].identity.embedding) == 1


def test_a_pan_is_no_cut_and_a_cut_is_one(rng: np.random.Generator) -> None:
    wide = np.kron(rng.integers(0, 256, (20, 60)), np.ones((18, 18))).astype(np.uint8)
    cuts = CutFinder()
    shown = [wide[:, 4 * step : 4 * step + 640] for step in range(24)]
    pan = [cuts.is_cut(thumbnail(as_i420(frame))) for frame in shown]
    assert pan == [True] + [False] * 23
    other = np.kron(rng.integers(0, 256, (20, 36)), np.ones((18, 18))).astype(np.uint8)
    frames = [other[:, 4 * step : 4 * step + 640] for step in range(2)]
    assert [cuts.is_cut(thumbnail(as_i420(frame))) for frame in frames] == [True, False]


def test_a_thumbnail_is_of_the_luma(rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (360, 640), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(thumbnail(as_i420(grey)), thumbnail(colour))
    assert thumbnail(colour).shape == (9, 16)


def test_several_photos_of_one_person_are_averaged() -> None:
    mean = average_embeddings([person(0), person(1)])
    np.testing.assert_allclose(mean, (person(0) + person(1)) / np.sqrt(2), atol=1e-6)
    with pytest.raises(Exception, match="at least one photo"):
        average_embeddings([])
    with pytest.raises(Exception, match="cancel each other out"):
        average_embeddings([person(0), -person(0)])
    assert not Identity().is_known
    assert 0.3 < SAME_PERSON < 0.4


def as_i420(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    return np.concatenate([grey, np.full((height // 2, width), 128, np.uint8)])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)
