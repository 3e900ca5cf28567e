"""The compiler's progress as a person sees it."""

from __future__ import annotations

import io

from engines.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_innermost_phase_is_shown_with_its_share() -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar.start("Building", None, 4)
    bar.start("Tactics", "Building", 2)
    assert bar.advance("Tactics", 0)
    assert terminal.getvalue().endswith("[############............] Tactics 1/2")
    bar.finish("Tactics")
    assert terminal.getvalue().endswith("[........................] Building 0/4")


def test_the_line_is_blank_when_all_is_done() -> None:
    terminal = Terminal()
    bar = ProgressBar(terminal)
    bar.start("Building", None, 1)
    bar.finish("Building")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_nothing_is_written_where_nobody_looks() -> None:
    log = io.StringIO()
    bar = ProgressBar(log)
    bar.start("Building", None, 1)
    bar.advance("Building", 0)
    bar.finish("Building")
    assert log.getvalue() == ""


def test_a_phase_without_steps_is_drawn_as_well() -> None:
    terminal = Terminal()
    ProgressBar(terminal).start("Parsing", None, 0)
    assert terminal.getvalue().endswith("Parsing 0/0")
