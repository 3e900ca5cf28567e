"""What the project's command lines share: how a value is read, and how help is printed."""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

__all__ = [
    "HelpFormatter",
    "WholeNumber",
    "frame_rate",
    "frame_size",
    "mebibytes",
    "model_count",
    "number_or_zero",
    "port",
    "seconds",
    "seconds_or_zero",
    "share",
    "share_or_zero",
    "time_of",
]


_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Show each default as it would be typed, and none where the help text says it or none is set.

    A description's indented paragraphs keep their lines: they show commands.
    """

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        untold = default is None or default is False or default == [] or not action.option_strings
        if untold or default == argparse.SUPPRESS or "(default:" in (action.help or ""):
            return action.help
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        return f"{action.help} (default: {shown.replace('%', '%%')})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.strip("\n").split("\n\n"):
            kept = paragraph.startswith(" ")
            lines = paragraph.splitlines() if kept else textwrap.wrap(paragraph, width)
            paragraphs.append("\n".join(indent + line for line in lines))
        return "\n\n".join(paragraphs)


@dataclass(frozen=True)
class WholeNumber:
    """argparse type: a whole number in a range, both ends included.

    most: None has no end. noun: what the number is, for the error's text.
    """

    least: int
    most: int | None = None
    noun: str = "a whole number"

    def __call__(self, text: str) -> int:
        # Not `int` alone: it takes "1_000" and " 1" too, and fails on thousands of digits.
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 19 else None
        if value is None or value < self.least or (self.most is not None and value > self.most):
            ends = f", {self.least} or more" if self.most is None else (
                f" from {self.least} to {self.most}"
            )
            raise argparse.ArgumentTypeError(f"must be {self.noun}{ends}, not {text!r}")
        return value


port = WholeNumber(0, 65535, "a port")


def mebibytes(text: str) -> int:
    """Bytes, from a whole number of MiB."""
    return WholeNumber(1, noun="a whole number of MiB")(text) * 2**20


def share(text: str) -> float:
    """A number greater than 0 and at most 1."""
    return _number(text, "greater than 0 and at most 1", 1.0)


def number_or_zero(text: str) -> float:
    """A number, 0 or more; none without an end."""
    return _number(text, "a number, 0 or more", sys.float_info.max, zero=True)


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    return _number(text, "a number of seconds above 0", threading.TIMEOUT_MAX)


def seconds_or_zero(text: str) -> float:
    """A number of seconds, or 0."""
    return _number(text, "a number of seconds, 0 or more", threading.TIMEOUT_MAX, zero=True)


def share_or_zero(text: str) -> float:
    """A share from 0 to 1, both included."""
    return _number(text, "a share from 0 to 1", 1.0, zero=True)


def _number(text: str, rule: str, most: float, *, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Written so that a NaN fails.
    if not (0 < value <= most or (zero and value == 0)):
        raise argparse.ArgumentTypeError(f"must be {rule}, not {text!r}")
    return value


def time_of(text: str) -> Fraction:
    """Seconds, exactly, from SECONDS, MM:SS or HH:MM:SS, each of them with decimals."""
    parts = text.split(":")
    whole = all(part.isascii() and part.isdecimal() for part in parts[:-1])
    if len(text) <= 32 and len(parts) <= 3 and whole and _DECIMAL.fullmatch(parts[-1]):
        time_s = Fraction(0)
        for part in parts:
            time_s = time_s * 60 + Fraction(part)
        return time_s
    raise argparse.ArgumentTypeError(f"must be seconds, MM:SS or HH:MM:SS, not {text!r}")


def frame_rate(text: str) -> Fraction:
    """Frames a second, from a number or a fraction: 25, 29.97, 30000/1001."""
    whole, _, part = text.partition("/")
    sound = _DECIMAL.fullmatch(whole) and (not part or (part.isascii() and part.isdecimal()))
    if len(text) <= 32 and sound and (not part or int(part)):
        rate = Fraction(whole) / (int(part) if part else 1)
        if rate > 0 and "/" not in text.removesuffix(f"/{part}"):
            return rate
    raise argparse.ArgumentTypeError(
        f"must be frames a second above 0, as 25 or 30000/1001, not {text!r}"
    )


def frame_size(text: str) -> tuple[int, int]:
    """Width and height, pixels, from WIDTHxHEIGHT."""
    try:
        width, height = (WholeNumber(1)(part) for part in text.lower().split("x"))
    except (argparse.ArgumentTypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT in pixels, for example 1920x1080, not {text!r}"
        ) from None
    return width, height


def model_count(text: str) -> tuple[str, int]:
    """A model's name and a number, 1 or more, from MODEL=COUNT."""
    name, _, count = text.partition("=")
    try:
        number = WholeNumber(1)(count)
    except argparse.ArgumentTypeError:
        number = 0
    if not (name and number):
        raise argparse.ArgumentTypeError(
            f"must be MODEL=COUNT, for example face_swapper=2, not {text!r}"
        )
    return name, number
