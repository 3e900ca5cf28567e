"""Times of a container's packets, counted from where its output begins."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from frameswap.read_options import ReadOptions

__all__ = ["PacketTimes"]


class PacketTimes:
    """Moves packets' times: to zero where a broadcast begins late, and to the part that is read.

    Attributes:
        start_s: when the container says that it begins.
    """

    def __init__(self, container: Any, options: ReadOptions) -> None:
        self.start_s = Fraction(max(0, container.start_time or 0), 1_000_000)
        self._options = options

    def start_at_zero(self, packet: Any) -> None:
        """Take the container's start off a packet's times: broadcast streams begin at any time."""
        if packet.time_base:
            _move(packet, self.start_s)

    def take_part(self, packet: Any) -> bool:
        """Whether another stream's packet begins within the part; its times then count from it."""
        begin_s, end_s = self._options.start_s, self._options.end_s
        if (begin_s is None and end_s is None) or packet.pts is None or not packet.time_base:
            return True
        time_s = packet.pts * _base(packet)
        if time_s < (begin_s or 0) or (end_s is not None and time_s >= end_s):
            return False
        _move(packet, Fraction(begin_s or 0))
        return True


def _base(packet: Any) -> Fraction:
    return Fraction(packet.time_base.numerator, packet.time_base.denominator)


def _move(packet: Any, by_s: Fraction) -> None:
    shift = round(by_s / _base(packet))
    if packet.pts is not None:
        packet.pts -= shift
    if packet.dts is not None:
        packet.dts -= shift
