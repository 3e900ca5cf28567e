"""Readers that are not ours: Debian's ffmpeg, ffprobe and exiftool."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

_PACKAGES = {"ffmpeg": "ffmpeg", "ffprobe": "ffmpeg", "exiftool": "libimage-exiftool-perl"}


def call(program: str, *arguments: object, content: bytes = b"") -> bytes:
    """Run one of them; returns its standard output."""
    assert shutil.which(program), (
        f"these tests compare with {program}, which is not installed: "
        f"apt-get install {_PACKAGES[program]}"
    )
    done = subprocess.run(
        [program, *map(str, arguments)], input=content, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def make(path: Path, arguments: str) -> Path:
    """Make a file with ffmpeg; `arguments` are as one would type them, without the output."""
    call("ffmpeg", "-v", "error", "-y", *arguments.split(), path)
    return path


def probe(path: Path) -> dict[str, Any]:
    """What ffprobe says of a file: format, streams, chapters."""
    return dict(
        json.loads(
            call("ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams",
                 "-show_chapters", path)
        )
    )  # fmt: skip


def video_of(found: dict[str, Any]) -> dict[str, Any]:
    return next(stream for stream in found["streams"] if stream["codec_type"] == "video")


def kinds(found: dict[str, Any], kind: str) -> list[str]:
    """The codecs of a file's streams of one kind."""
    return [stream["codec_name"] for stream in found["streams"] if stream["codec_type"] == kind]


def frame_times(path: Path) -> list[Fraction]:
    """Presentation times of the frames of the first video stream, from the first, seconds."""
    lines = call(
        "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries",
        "frame=best_effort_timestamp_time", "-of", "csv=p=0", path,
    ).decode().split()  # fmt: skip
    times = [Fraction(line.strip(",")) for line in lines]
    return [time - times[0] for time in times]


def photo_tags(path: Path) -> dict[str, Any]:
    """What exiftool says of a photo, with the group's name before each tag."""
    found = json.loads(call("exiftool", "-json", "-G1", "-n", path))
    return dict(found[0])
