"""When frames are shown and for how long: exact times out of what containers write down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final, TypeVar

__all__ = ["FrameClock", "with_durations"]

_COARSE: Final = Fraction(1, 1000)
_FINEST: Final = 1_000_000
_FASTEST: Final = 250
"""Frames a second; above, a millisecond is too much of a frame to tell places apart."""
_T = TypeVar("_T")


class FrameClock:
    """Times of frames in a base that holds them exactly.

    Matroska, WebM and FLV count in milliseconds, so a frame of a steady rate lies up to half a
    millisecond beside its place, and so does the first, from which the places are counted. It is
    put there again where the stream says its rate.

    Args:
        stream_base: seconds a tick of the stream.
        rate: frames a second that the stream states; None when it states none.
    """

    def __init__(self, stream_base: Fraction, rate: Fraction | None) -> None:
        self._stream_base = stream_base
        self._rate = rate if rate and rate <= _FASTEST and stream_base == _COARSE else None
        self._origin_s: Fraction | None = None
        self.base = stream_base
        self._last: int | None = None
        if self._rate is not None:
            ticks = math.lcm(self._rate.numerator, 1000)
            if ticks <= _FINEST:
                self.base = Fraction(1, ticks)
            else:
                self._rate = None
        # A rate of less than a frame in a thousand seconds is none.
        step = round(1 / (rate * self.base)) if rate else 1
        self.step = max(1, step)

    def exact_s(self, pts: int) -> Fraction:
        """Seconds of a time of the stream."""
        time_s = pts * self._stream_base
        if self._rate is not None:
            origin_s = time_s if self._origin_s is None else self._origin_s
            placed_s = origin_s + round((time_s - origin_s) * self._rate) / self._rate
            # Rounding has moved this time and the first by up to half a tick each.
            if abs(placed_s - time_s) <= _COARSE:
                time_s = placed_s
        return time_s

    def place(self, pts: int | None) -> int:
        """The next frame's time in `base`; it grows, and one without a time gets the next place."""
        if pts is None:
            time = 0 if self._last is None else self._last + self.step
        else:
            if self._origin_s is None:
                self._origin_s = pts * self._stream_base
            time = round(self.exact_s(pts) / self.base)
            if self._last is not None and time <= self._last:
                time = self._last + 1
        self._last = time
        return time

    def length(self, duration: int | None) -> int | None:
        """A duration of the stream in `base`; None when there is none."""
        if not duration or duration < 0:
            return None
        length_s = duration * self._stream_base
        if self._rate is not None and abs(length_s - 1 / self._rate) <= _COARSE:
            length_s = 1 / self._rate
        return max(1, round(length_s / self.base))


def with_durations(
    timed: Iterable[tuple[_T, int, int | None]],
) -> Iterator[tuple[_T, int, int | None]]:
    """Give each but the last the duration that leads to the next one's time.

    Args:
        timed: value, time, own duration.
    """
    waiting: tuple[_T, int, int | None] | None = None
    for value, time, duration in timed:
        if waiting is not None:
            yield waiting[0], waiting[1], time - waiting[1]
        waiting = value, time, duration
    if waiting is not None:
        yield waiting
