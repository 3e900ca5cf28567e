"""What a job tells of how far it is, in a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from frameswap.progress import Progress, format_duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(300, stream, clock=clock)
    for done in range(1, 251):
        clock.now += 0.125
        progress.update(done)
    progress.clear()
    assert stream.getvalue().splitlines() == [
        "80 of 300 frames (27 %), 8.0 frames/s, 28 s left",
        "160 of 300 frames (53 %), 8.0 frames/s, 18 s left",
        "240 of 300 frames (80 %), 8.0 frames/s, 8 s left",
    ]


def test_a_terminal_gets_one_line_that_is_rewritten_and_taken_away() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress(None, stream, clock=clock)
    for done in (1, 2, 3):
        clock.now += 0.25
        progress.update(done)
    progress.clear()
    lines = stream.getvalue().split("\r")
    assert lines[1:] == [
        "1 frames, 4.0 frames/s\x1b[K", "2 frames, 4.0 frames/s\x1b[K",
        "3 frames, 4.0 frames/s\x1b[K", "\x1b[K",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (3725, "1:02:05 h")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_more_frames_than_were_promised_are_not_more_than_all() -> None:
    clock = Clock()
    progress = Progress(10, io.StringIO(), clock=clock)
    clock.now += 2
    assert progress.describe(12) == "12 of 10 frames (100 %), 6.0 frames/s, 0 s left"
