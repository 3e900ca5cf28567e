"""Opening what a video is read from: a file, numbered pictures, a pipe, an animated picture."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import av
from av.codec.hwaccel import HWAccel

from frameswap.animated_webp import write_as_video
from frameswap.errors import UnreadableFile
from frameswap.file_kinds import is_sequence, is_standard
from frameswap.photo_metadata import is_animated
from frameswap.read_options import ReadOptions

__all__ = ["choose_stream", "open_video"]

_OPEN_OPTIONS: Final[dict[str, Any]] = (
    # Up to version 18 a title that is not UTF-8 is an exception unless this is said; since 19
    # PyAV reads it anyway and the argument is gone.
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_video(path: Path, options: ReadOptions, stack: ExitStack) -> Any:
    """Open a container; the stack closes it, and removes what was made for it.

    Raises:
        UnreadableFile: missing, empty, damaged, of an unknown format.
    """
    more = dict(_OPEN_OPTIONS)
    if options.decoder == "cuda":
        more["hwaccel"] = HWAccel("cuda", allow_software_fallback=False)
    try:
        if is_standard(path):
            return stack.enter_context(av.open(sys.stdin.buffer, **more))
        if is_sequence(path):
            first = _first_number(path)
            settings = {"framerate": str(options.rate), "start_number": str(first)}
            return stack.enter_context(
                av.open(str(path), format="image2", options=settings, **more)
            )
        if path.is_dir():
            raise UnreadableFile(f"{path} is a folder, not a video")
        if path.stat().st_size == 0:
            raise UnreadableFile(f"{path} is empty")
        return stack.enter_context(av.open(str(_readable(path, stack)), **more))
    except FileNotFoundError as error:
        raise UnreadableFile(f"there is no file {path}") from error
    except PermissionError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    except av.error.FFmpegError as error:
        raise UnreadableFile(
            f"{path} is no video that FFmpeg reads, or is damaged or cut off ({error.strerror})"
        ) from error
    except (RuntimeError, NotImplementedError) as error:
        # What PyAV raises where there is no such device.
        raise UnreadableFile(
            f"{path} cannot be decoded on an NVIDIA GPU here ({error}): leave --decoder cuda out"
        ) from error


def choose_stream(container: Any, path: Path) -> Any:
    """The first video stream that is no cover picture.

    Raises:
        UnreadableFile: there is none.
    """
    pictures = [
        stream
        for stream in container.streams.video
        # A cover picture is a video stream of one frame.
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not pictures:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise UnreadableFile(f"{path} has no video stream (it has {', '.join(kinds)})")
    if pictures[0].codec_context is None:
        raise UnreadableFile(f"{path} has video of a codec that FFmpeg does not know")
    return pictures[0]


def _readable(path: Path, stack: ExitStack) -> Path:
    """The file itself, or one made of an animated WebP, which FFmpeg does not read."""
    with path.open("rb") as file:
        if is_animated(file.read(64)) != "WebP":
            return path
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="frameswap-"))
    made = Path(folder) / "animation.mkv"
    write_as_video(path, made)
    return made


def _first_number(path: Path) -> int:
    """The lowest number of the pictures that a pattern names."""
    before, after = re.split(r"%0?\d*d", path.name, maxsplit=1)
    named = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError as error:
        raise UnreadableFile(f"{path.parent} cannot be read: {error.strerror}") from error
    numbers = [int(found[1]) for name in names if (found := named.fullmatch(name))]
    if not numbers:
        raise UnreadableFile(f"there is no picture whose name {path.name} stands for")
    return min(numbers)
