"""From what was found to what is swapped: gaps, fades, cuts, and one placement a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from frameswap import BadOptions, FoundFrame, Placement, Search, Steadiness, SwapOptions
from frameswap.contract import FaceOrder
from frameswap.fading import mix_faces
from frameswap.found_faces import FoundFaces
from frameswap.persons.casting import Casting
from frameswap.persons.eyes import Eyes, Tape, read_tape, write_tape
from frameswap.persons.plan import SteadyPlan
from frameswap.persons.steadiness import FADE, LIVE_HOLD, Placer, longest_gap
from frameswap.persons.tracks import Tracker
from frameswap.planes import split_planes
from people import PaintedEyes, face_at, found, person, source_of

AHEAD = 12
Shown = Sequence[Sequence[np.ndarray]]


def placements(
    frames: Shown,
    *,
    ahead: int = AHEAD,
    casting: Casting | None = None,
    cuts: Sequence[int] = (),
    frame_rate: int = 25,
) -> list[Placement]:
    casting = casting or Casting.everyone(source_of(1))
    tracker = Tracker(
        begin_score=0.5, longest_gap=longest_gap(ahead), knows_persons=casting.knows_persons
    )

    def sightings() -> Iterator:
        for index, faces in enumerate(frames):
            shot = sum(index >= cut for cut in cuts)
            yield tracker.see(PaintedEyes({0.0: 1}, shot=shot), found(*faces))

    placer = Placer(casting, ahead=ahead, mesh_rows=4, frame_rate=frame_rate)
    placed = list(placer.place(sightings()))
    assert len(placed) == len(frames)
    return placed


def weights(placed: Sequence[Placement]) -> list[float]:
    """Of row 0; 0 where it is empty."""
    return [
        float(each.weights[0]) if each.faces[0, 4] > 0 else 0.0 for each in placed
    ]


def moving(count: int, gone: range = range(0)) -> list[list[np.ndarray]]:
    return [[] if step in gone else [face_at(100 + 4 * step, 200)] for step in range(count)]


@pytest.mark.parametrize("gap", [1, 5, AHEAD - FADE])
def test_a_short_gap_is_bridged_where_the_face_must_have_been(gap: int) -> None:
    gone = range(20, 20 + gap)
    placed = placements(moving(60, gone))
    assert weights(placed) == [1.0] * 60
    for step in gone:
        # A hundredth of the distance of the eyes.
        np.testing.assert_allclose(placed[step].faces[0, 5:], face_at(100 + 4 * step, 200)[5:],
                                   atol=0.4)  # fmt: skip
        assert placed[step].landmarks[0].any()


def test_a_long_absence_fades_out_and_in() -> None:
    gone = range(20, 21 + AHEAD)
    shown = weights(placements(moving(60, gone)))
    assert shown[:17] == [1.0] * 17
    assert shown[17:20] == pytest.approx([0.75, 0.5, 0.25])
    assert shown[20:33] == [0.0] * 13
    assert shown[33:36] == pytest.approx([0.25, 0.5, 0.75])
    assert shown[36:] == [1.0] * 24


def test_a_cut_and_the_ends_of_a_clip_do_not_fade() -> None:
    frames = [*moving(10), *([] for _ in range(10)), *moving(10)]
    assert weights(placements(frames, cuts=[10, 20])) == [1.0] * 10 + [0.0] * 10 + [1.0] * 10


def test_a_cut_is_not_smoothed_across() -> None:
    frames = [[face_at(100, 200)]] * 10 + [[face_at(112, 205)]] * 10
    placed = placements(frames, cuts=[10])
    np.testing.assert_allclose(placed[9].faces[0, 5:], face_at(100, 200)[5:], atol=0.01)
    np.testing.assert_allclose(placed[10].faces[0, 5:], face_at(112, 205)[5:], atol=0.01)


def test_who_plays_no_role_is_told_of_and_left() -> None:
    placed = placements([[face_at(100, 200, 50), face_at(400, 200, 30)]] * 5)
    for each in placed:
        assert each.faces.shape == (2, 15)
        np.testing.assert_allclose(each.faces[1, 5:], face_at(400, 200, 30)[5:], atol=0.01)
        assert len(each.sources) == len(each.weights) == 1
        assert not each.landmarks[1].any()


def test_an_empty_role_is_an_empty_row() -> None:
    casting = Casting.by_reference([(person(3), source_of(3)), (person(1), source_of(1))])
    for each in placements([[face_at(0, 200)]] * 4, casting=casting):
        assert not each.faces[0].any()
        assert each.faces[1, 4] > 0
        assert each.landmarks[1].any()


def walks_behind(count: int = 60) -> list[list[np.ndarray]]:
    """One stands; another walks by behind her, and is not seen while she is hidden."""
    front = face_at(300, 200, 50)
    frames = []
    for step in range(count):
        x = 300.0 + 6 * (step - count // 2)
        frames.append([front] if abs(x - 300) < 24 else [front, face_at(x, 200)])
    return frames


@pytest.mark.parametrize("ahead", [AHEAD, 0])
def test_a_face_behind_another_is_not_painted_over_it(ahead: int) -> None:
    casting = Casting.by_place([source_of(1), source_of(2)], FaceOrder.LARGEST_FIRST)
    frames = walks_behind()
    placed = placements(frames, ahead=ahead, casting=casting)
    hidden = [index for index, faces in enumerate(frames) if len(faces) == 1]
    assert len(hidden) == 7, "short enough to be bridged"
    for index in hidden:
        (shown,) = [row for row in placed[index].faces if row[4] > 0]
        np.testing.assert_allclose(shown[5:], face_at(300, 200, 50)[5:], atol=0.01)
    for each in placed:
        np.testing.assert_allclose(each.faces[0, 5:], face_at(300, 200, 50)[5:], atol=0.01)


def test_who_is_hidden_keeps_her_role() -> None:
    """One role, for who stands left: it is not the other's for the moment that she is hidden."""
    casting = Casting.everyone(source_of(1), order=FaceOrder.LARGEST_FIRST)
    behind = face_at(300, 200, 60)
    frames = [[face_at(100 + 10 * step, 200), behind] for step in range(60)]
    for step in range(18, 23):
        frames[step] = frames[step][:1]
    for index, each in enumerate(placements(frames, casting=casting)):
        is_shown = each.faces[0, 4] > 0
        assert is_shown == (index not in range(18, 23)), f"frame {index}"
        if is_shown:
            np.testing.assert_allclose(each.faces[0, 5:], behind[5:], atol=0.01)


def test_a_frame_of_another_size_begins_a_shot() -> None:
    """A camera that is turned: places in pixels say nothing of the next frame."""

    def founds() -> Iterator[FoundFrame]:
        for step in range(20):
            shape = (360, 640, 3) if step < 10 else (640, 360, 3)
            face = face_at(100, 200) if step < 10 else face_at(250, 400)
            yield FoundFrame(np.full(shape, 90, np.uint8), found(face))

    plan = SteadyPlan(
        Casting.everyone(source_of(1)), ahead=AHEAD, options=SwapOptions(), looker=Nobody(),
        mesh_rows=4, frame_rate=25,
    )  # fmt: skip
    placed = list(plan(founds()))
    for step, face in ((9, face_at(100, 200)), (10, face_at(250, 400))):
        np.testing.assert_allclose(placed[step].faces[0, 5:], face[5:], atol=0.01)
    assert weights(placed) == [1.0] * 20, "as at a cut, nothing fades"


class Nobody:
    """A looker where nobody is to be asked."""

    def embed(self, *asked: object) -> np.ndarray:
        raise AssertionError("an embedding was asked for")

    def find_in(self, *asked: object) -> list[FoundFaces]:
        raise AssertionError("a part of a frame was asked for")


def test_a_day_before_a_camera_leaves_no_more_behind_than_a_minute() -> None:
    """Without a cut: faces come and go, and what is known of those who went is forgotten."""
    placer = Placer(Casting.everyone(source_of(1)), ahead=0, mesh_rows=4, frame_rate=25)
    tracker = Tracker(begin_score=0.5, longest_gap=longest_gap(0), knows_persons=False)
    sightings = (
        tracker.see(PaintedEyes({}), found(*[face_at(100, 200)][: step % 20 < 5]))
        for step in range(600)
    )
    assert len(list(placer.place(sightings))) == 600
    assert len(placer._begun) <= 1 + 600 // 300


def test_roles_that_are_played_come_first_where_landmarks_have_few_rows() -> None:
    casting = Casting.by_reference([(person(k), source_of(k)) for k in (3, 4, 5, 6, 1)])
    (each,) = placements([[face_at(0, 200)]], casting=casting)
    assert [source.vector[0] for source in each.sources] == [1, 3, 4, 5, 6]
    assert each.faces[0, 4] > 0
    assert each.landmarks.shape == (4, 6, 3)


def test_live_nothing_waits_and_who_is_gone_fades() -> None:
    shown = weights(placements(moving(40, range(20, 40)), ahead=0))
    assert shown[:20] == [1.0] * 20
    held = shown[20 : 20 + LIVE_HOLD]
    assert held[: LIVE_HOLD // 2] == [1.0] * (LIVE_HOLD // 2)
    assert all(0 < later < earlier for earlier, later in pairwise(held[4:]))
    assert shown[20 + LIVE_HOLD :] == [0.0] * (20 - LIVE_HOLD)


def test_live_a_gap_is_time_that_goes_by() -> None:
    """Seen in every fifth frame of 25 a second, or in each of 5 a second: one face, one speed."""
    steps = [20.0 * step for step in range(12)]
    often = placements([[face_at(100 + x, 200)] for x in steps], ahead=0, frame_rate=5)
    seldom = [[face_at(100 + x, 200)] if gone == 0 else [] for x in steps for gone in range(5)]
    for each, same in zip(placements(seldom, ahead=0)[::5], often, strict=True):
        np.testing.assert_allclose(each.faces[0, 5:], same.faces[0, 5:], atol=0.01)


def test_live_places_a_frame_when_it_comes() -> None:
    placer = Placer(Casting.everyone(source_of(1)), ahead=0, mesh_rows=4, frame_rate=25)
    tracker = Tracker(begin_score=0.5, longest_gap=8, knows_persons=False)
    came = []

    def sightings() -> Iterator:
        for step in range(3):
            came.append(step)
            yield tracker.see(PaintedEyes({}), found(face_at(100, 200)))

    for placed, _ in enumerate(placer.place(sightings())):
        assert len(came) == placed + 1


def test_how_far_ahead_follows_the_frame_rate() -> None:
    assert Steadiness().frames_ahead(25) == 12
    assert Steadiness().frames_ahead(60) == 21
    assert Steadiness().frames_ahead(240) == 24
    assert Steadiness(ahead=0).frames_ahead(25) == 0
    assert Steadiness().search is Search.UPRIGHT
    with pytest.raises(BadOptions, match=r"ahead is 0 \(live\) or 4 to 64 frames, not 3"):
        Steadiness(ahead=3)


def test_what_was_asked_is_answered_again_from_the_tape() -> None:
    tape, asked = Tape(), found(face_at(10, 20), face_at(90, 20))
    picture = np.full((64, 64, 3), 7, np.uint8)
    first = Eyes(tape.of(0), frame=picture)
    assert first.thumbnail()[0, 0] == 7
    first.found(asked)
    Eyes(tape.of(1), frame=picture).found(found())
    stored = read_tape(write_tape(tape.take(0, 3)))
    assert [len(frame) for frame in stored] == [4, 3, 0]
    again = Eyes(stored[0])
    assert again.thumbnail()[0, 0] == 7
    known = again.found(None)
    np.testing.assert_array_equal(known.faces, asked.faces)
    np.testing.assert_array_equal(known.landmarks, asked.landmarks)
    assert known.pose.shape == (2, 3)
    assert Eyes(stored[1]).found(None).faces.shape == (0, 15)
    assert tape.take(0, 1) == [[]], "it is handed out once"


@pytest.mark.parametrize("kind", ["i420", "bgr"])
def test_a_face_is_mixed_and_the_rest_is_left(kind: str) -> None:
    shape = (480, 320) if kind == "i420" else (320, 320, 3)
    before, after = np.full(shape, 40, np.uint8), np.full(shape, 240, np.uint8)
    rows = np.stack([face_at(80, 80, 20), face_at(240, 240, 20)])
    assert mix_faces(after, before, rows, np.float32([1, 1])) is after
    mixed = mix_faces(after, before, rows, np.float32([0.25, 1]))
    (luma, *rest) = split_planes(mixed) if kind == "i420" else [mixed]
    assert int(np.ravel(luma[80, 80])[0]) == pytest.approx(40 + 50, abs=1)
    assert int(np.ravel(luma[240, 240])[0]) == 240
    for plane in rest:
        assert plane[40, 40] == pytest.approx(90, abs=1)
        assert plane[120, 120] == 240
    assert after.min() == 240, "what the server sent is not changed"
    # Who is near, and shown in full, stays so.
    rows[1] = face_at(120, 80, 20)
    near = mix_faces(after, before, rows, np.float32([0.25, 1]))
    luma = split_planes(near)[0] if kind == "i420" else near
    assert int(np.ravel(luma[80, 120])[0]) > 235
    assert int(np.ravel(luma[80, 80])[0]) < 95
