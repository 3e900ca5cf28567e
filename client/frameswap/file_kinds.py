"""What a name on the command line stands for: a file, a folder, numbered pictures, a pipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import av
import cv2

from frameswap.addresses import Target, Url
from frameswap.errors import UnreadableFile

__all__ = ["check_source_kind", "check_target_kind", "is_sequence", "is_standard"]

_NUMBER: Final = re.compile(r"%0?\d*d")
_PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_ADDRESS: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
"""A path swallows one of a URL's two slashes."""
_CONTAINERS: Final = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "flv", "mpeg")
"""Formats that tell themselves: FFmpeg finds a video in many a text file, too."""
_WHITELIST: Final = ",".join(_CONTAINERS)
_MOVING: Final = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".gif")
"""What is a video by its name, even where it is damaged."""


def is_standard(path: Target) -> bool:
    """Whether `path` is "-": standard input or output."""
    return str(path) == "-"


def is_sequence(path: Target) -> bool:
    """Whether a name stands for numbered pictures, as `frame_%04d.png` does; no file has it."""
    if isinstance(path, Url):
        return False
    named = _NUMBER.search(path.name) is not None and path.suffix.lower() in _PICTURE_SUFFIXES
    return named and not path.exists()


def check_source_kind(path: Path) -> None:
    """Raise UnreadableFile where a source is no photo, saying what it is and what works."""
    if is_standard(path):
        raise UnreadableFile("a source photo is read from a file, not from standard input (-)")
    if _ADDRESS.match(str(path)):
        raise UnreadableFile(f"{path} is an address: download the source photo, and give its file")
    if path.is_dir():
        raise UnreadableFile(
            f"{path} is a folder: give the photos in it one by one, each after its own --source"
        )
    if not path.is_file() or not path.stat().st_size or cv2.haveImageReader(str(path)):
        return
    if path.suffix.lower() in _MOVING or _has_video(path):
        raise UnreadableFile(
            f"{path} is a video: a source is a photo; save a frame that shows the face well and "
            f"give that"
        )


def check_target_kind(path: Target) -> None:
    """Raise UnreadableFile where a target cannot be opened because of what it is."""
    if isinstance(path, Url):
        path.check()
        return
    if is_standard(path) or is_sequence(path):
        return
    if path.is_dir():
        raise UnreadableFile(
            f"{path} is a folder: give --output a folder too, and all photos and videos in it are "
            f"swapped"
        )
    if not path.exists():
        raise UnreadableFile(f"there is no file {path}")


def _has_video(path: Path) -> bool:
    try:
        with av.open(f"file:{path}", options={"format_whitelist": _WHITELIST}) as container:
            return bool(container.streams.video)
    except (av.error.FFmpegError, OSError, ValueError):
        return False
