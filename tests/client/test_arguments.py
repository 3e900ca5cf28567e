"""What the command lines' readers take, and what they refuse in one sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
from frameswap import arguments

Reader = Callable[[str], Any]
WHOLE = arguments.WholeNumber(1, 51)


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (WHOLE, "1", 1),
        (WHOLE, "51", 51),
        (arguments.WholeNumber(0), "123456789", 123456789),
        (arguments.port, "65535", 65535),
        (arguments.mebibytes, "3", 3 * 1024 * 1024),
        (arguments.share, "1", 1.0),
        (arguments.share, "1e-3", 0.001),
        (arguments.seconds, "0.5", 0.5),
        (arguments.seconds_or_zero, "0", 0.0),
        (arguments.number_or_zero, "0.5", 0.5),
        (arguments.number_or_zero, "0", 0.0),
        (arguments.frame_size, "1920x1080", (1920, 1080)),
        (arguments.frame_size, "64X48", (64, 48)),
        (arguments.model_count, "face_swapper=2", ("face_swapper", 2)),
    ],
)
def test_a_value_is_read(reader: Reader, text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "texts", "rule"),
    [
        (WHOLE, ["0", "52", "-1", "+3", "1.0", "", " 1", "1_0", "²", "٣", "1" * 5000],
         "a whole number from 1 to 51"),
        (arguments.WholeNumber(1), ["0", "many"], "a whole number, 1 or more"),
        (arguments.port, ["65536", "http"], "a port from 0 to 65535"),
        (arguments.mebibytes, ["0", "1.5"], "a whole number of MiB, 1 or more"),
        (arguments.share, ["0", "-0.5", "1.01", "nan", "inf", "half"],
         "greater than 0 and at most 1"),
        (arguments.seconds, ["0", "-1", "nan", "inf", "1e300", "soon"],
         "a number of seconds above 0"),
        (arguments.seconds_or_zero, ["-1", "nan", "inf", "soon"],
         "a number of seconds, 0 or more"),
        (arguments.number_or_zero, ["-1", "nan", "inf", "all"], "a number, 0 or more"),
        (arguments.frame_size, ["large", "1920", "1920x", "x1080", "0x1080", "1x2x3", "²x2"],
         "WIDTHxHEIGHT in pixels, for example 1920x1080"),
        (arguments.model_count, ["face_swapper", "=2", "a=", "a=0", "a=²", "a=b=2"],
         "MODEL=COUNT, for example face_swapper=2"),
    ],
)  # fmt: skip
def test_what_is_no_such_value_is_refused(reader: Reader, texts: list[str], rule: str) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            reader(text)
        assert str(refused.value) == f"must be {rule}, not {text!r}"


def test_help_shows_defaults_as_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    parser = argparse.ArgumentParser(
        prog="p", description="Long " * 30 + "\n\n    p --kept  a\n    p --kept  b\n",
        formatter_class=arguments.HelpFormatter,
    )  # fmt: skip
    parser.add_argument("--size", type=arguments.frame_size, default="64x48", help="a size")
    parser.add_argument("--time", type=arguments.seconds, default=60.0, help="a time")
    parser.add_argument("--share", default="5%", help="a share")
    parser.add_argument("--port", default=0, help="a port")
    parser.add_argument("--none", help="nothing")
    parser.add_argument("--flag", action="store_true", help="a flag")
    parser.add_argument("--many", action="append", default=[], help="many")
    parser.add_argument("--said", default=3, help="said (default: what there is)")
    lines = parser.format_help().splitlines()
    told = {line.split()[0]: line.partition("  ")[2].strip() for line in map(str.strip, lines)
            if line.startswith("--")}  # fmt: skip
    assert told == {
        "--size": "a size (default: 64x48)",
        "--time": "a time (default: 60)",
        "--share": "a share (default: 5%)",
        "--port": "a port (default: 0)",
        "--none": "nothing",
        "--flag": "a flag",
        "--many": "many",
        "--said": "said (default: what there is)",
    }
    assert "    p --kept  a" in lines
    assert max(map(len, lines)) <= 90
