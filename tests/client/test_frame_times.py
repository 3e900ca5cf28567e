"""Exact times out of a container's milliseconds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from frameswap.frame_times import FrameClock, with_durations

MILLISECOND = Fraction(1, 1000)


@pytest.mark.parametrize("rate", [
    Fraction(24), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(60),
    Fraction(120), Fraction(240),
])  # fmt: skip
@pytest.mark.parametrize("start_ms", [0, 7, 1001])
def test_a_steady_rate_comes_back_from_milliseconds(rate: Fraction, start_ms: int) -> None:
    clock = FrameClock(MILLISECOND, rate)
    shown = [start_ms + round(1000 * index / rate) for index in range(500)]
    times = [clock.place(pts) * clock.base for pts in shown]
    steps = {after - before for before, after in itertools.pairwise(times)}
    assert steps == {1 / rate}
    assert clock.length(round(1000 / rate)) == clock.step


def test_frames_that_are_not_steady_keep_their_milliseconds() -> None:
    clock = FrameClock(MILLISECOND, Fraction(30))
    shown = [0, 10, 35, 90, 91, 400]
    assert [clock.place(pts) * clock.base * 1000 for pts in shown][1:4] == [10, 35, 90]


def test_a_finer_base_is_left_as_it_is() -> None:
    clock = FrameClock(Fraction(1, 90000), Fraction(24))
    assert clock.base == Fraction(1, 90000)
    assert [clock.place(pts) for pts in (0, 3749, 7500)] == [0, 3749, 7500]


def test_times_grow_and_a_frame_without_one_gets_the_next_place() -> None:
    clock = FrameClock(Fraction(1, 30000), Fraction(30))
    assert [clock.place(pts) for pts in (0, 0, None, 500)] == [0, 1, 1001, 1002]


def test_each_frame_lasts_until_the_next() -> None:
    timed = [("a", 0, 9), ("b", 5, 9), ("c", 12, 4)]
    assert list(with_durations(timed)) == [("a", 0, 5), ("b", 5, 7), ("c", 12, 4)]
    assert list(with_durations([])) == []
