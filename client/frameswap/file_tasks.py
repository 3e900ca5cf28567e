"""Which files a command line means, and where each result goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frameswap.addresses import Target, Url
from frameswap.encoders import VIDEO_SUFFIXES
from frameswap.errors import BadOptions, UnreadableFile, UnwritableFile
from frameswap.file_kinds import is_sequence, is_standard
from frameswap.photo import PHOTO_SUFFIXES, is_photo

__all__ = ["FileTask", "FolderPlan", "is_folder_job", "plan_folder"]

_VIDEO_INPUTS: Final = frozenset({
    *VIDEO_SUFFIXES, ".3gp", ".asf", ".divx", ".dv", ".f4v", ".flv", ".h264", ".hevc", ".m2ts",
    ".m2v", ".mjpeg", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogg", ".ogv", ".qt", ".vob",
    ".wmv",
})  # fmt: skip
"""What is taken for a video in a folder, by its name: FFmpeg finds video in a text file, too."""


@dataclass(frozen=True)
class FileTask:
    """One file to change, and where its result goes."""

    target: Target
    output: Path


@dataclass(frozen=True)
class FolderPlan:
    """What is to be done with the files that were named; left_alone: those that are no pictures."""

    tasks: tuple[FileTask, ...]
    left_alone: int


def is_folder_job(targets: Sequence[Target], output: Path) -> bool:
    """Whether results go into a folder: several targets, a folder of them, or such an output."""
    if len(targets) > 1:
        return True
    target = targets[0]
    if isinstance(target, Url) or is_standard(target):
        return False
    return target.is_dir() and not is_sequence(output)


def plan_folder(targets: Sequence[Target], output: Path) -> FolderPlan:
    """Say where the result of each file goes: under its own name, below `output`.

    A folder is walked, its tree is kept, and what is hidden in it is left out. A format that is
    not written becomes .mp4 or .png.

    Raises:
        BadOptions: standard input, numbered pictures or an address among several targets.
        UnreadableFile: a file that is not there, or no photo and no video in all of it.
        UnwritableFile: an output that is a file, or where the inputs lie.
    """
    if output.exists() and not output.is_dir():
        raise UnwritableFile(
            f"the results of several files go into a folder, and {output} is a file"
        )
    if output.suffix.lower() in (*VIDEO_SUFFIXES, *PHOTO_SUFFIXES) and not output.is_dir():
        raise UnwritableFile(
            f"{targets[0]} is a folder, or one of several targets: their results go into a folder, "
            f"and --output names a file, {output.name}"
        )
    taken: dict[Path, Path] = {}
    left_alone = 0
    for target in targets:
        if isinstance(target, Url) or is_standard(target) or is_sequence(target):
            raise BadOptions(f"{target} is swapped alone, not among several targets")
        if not target.exists():
            raise UnreadableFile(f"there is no file {target}")
        found = [target] if target.is_file() else _walk(target, leaving=output)
        for file in found:
            suffix = _output_suffix(file)
            if suffix is None:
                left_alone += 1
                continue
            place = file.relative_to(target) if target.is_dir() else Path(file.name)
            named = output / place.with_suffix(suffix)
            if named in taken:
                named = output / place.with_name(place.name + suffix)
            if named in taken or named.resolve() == file.resolve():
                raise UnwritableFile(
                    f"{file} would be written over {taken.get(named, file)}: choose another "
                    f"output folder"
                )
            taken[named] = file
    if not taken:
        raise UnreadableFile(
            f"there is no photo and no video in {', '.join(str(target) for target in targets)}"
        )
    return FolderPlan(tuple(FileTask(file, named) for named, file in taken.items()), left_alone)


def _walk(folder: Path, *, leaving: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones and without those of the output."""
    inside = leaving.resolve() != folder.resolve()
    files = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        ours = inside and leaving.resolve() in path.resolve().parents
        if path.is_file() and not hidden and not ours:
            files.append(path)
    return files


def _output_suffix(path: Path) -> str | None:
    """What a file's result is written as; None for one that is no picture."""
    suffix = path.suffix.lower()
    if is_photo(path):
        return path.suffix if suffix in PHOTO_SUFFIXES else ".png"
    if suffix in VIDEO_SUFFIXES:
        return path.suffix
    if suffix == ".png":  # one that moves
        return ".webp"
    return ".mp4" if suffix in _VIDEO_INPUTS else None
