"""The contact sheet: a picture of all persons of a file, numbered, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from frameswap.errors import UnwritableFile
from frameswap.output_file import check_output, output_file
from frameswap.persons.survey import THUMBNAIL_SIDE, Person, Survey

__all__ = ["check_sheet", "draw_sheet", "write_sheet"]

_COLUMNS: Final = 6
_GAP: Final = 12
_LINE: Final = 18
_LINES: Final = 4
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_INK: Final = (32, 32, 32)
_PAPER: Final = 245


def draw_sheet(survey: Survey) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR: a thumbnail of each person, with her number and what is known."""
    count = len(survey.persons)
    columns = max(1, min(_COLUMNS, count))
    rows = max(1, -(-count // columns))
    width, height = THUMBNAIL_SIDE + _GAP, THUMBNAIL_SIDE + _LINES * _LINE + 2 * _GAP
    sheet = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, np.uint8)
    for place, person in enumerate(survey.persons):
        top = _GAP + place // columns * height
        left = _GAP + place % columns * width
        sheet[top : top + THUMBNAIL_SIDE, left : left + THUMBNAIL_SIDE] = person.thumbnail
        for number, line in enumerate(_lines(person), 1):
            base = top + THUMBNAIL_SIDE + number * _LINE
            scale, weight = (0.6, 2) if number == 1 else (0.4, 1)
            cv2.putText(sheet, line, (left, base), _FONT, scale, _INK, weight, cv2.LINE_AA)
    if not count:
        cv2.putText(sheet, "nobody", (_GAP, 2 * _LINE), _FONT, 0.6, _INK, 2, cv2.LINE_AA)
    return sheet


def _lines(person: Person) -> list[str]:
    yaw, pitch, roll = person.pose
    return [
        str(person.number),
        f"from {person.first_s:.1f} s to {person.last_s:.1f} s",
        f"{100 * person.share:.0f} % of frames, {person.size_px:.0f} px",
        f"yaw {yaw:.0f} pitch {pitch:.0f} roll {roll:.0f}",
    ]


def check_sheet(path: Path, *, force: bool) -> None:
    """Raise UnwritableFile for a sheet that cannot be written."""
    if path.suffix.lower() != ".png":
        raise UnwritableFile(f"a sheet of persons is a .png, not {path.name}")
    for each in (path, path.with_suffix(".json")):
        check_output(each, force=force)


def write_sheet(survey: Survey, path: Path, *, force: bool = False) -> None:
    """Write the sheet, and what it says as JSON beside it.

    Raises:
        UnwritableFile: no `.png`, an output that exists, a full disk.
    """
    check_sheet(path, force=force)
    _, encoded = cv2.imencode(".png", draw_sheet(survey))
    with output_file(path, force=force) as temporary:
        temporary.write_bytes(encoded.tobytes())
    with output_file(path.with_suffix(".json"), force=force) as temporary:
        temporary.write_text(json.dumps(survey.to_json(), indent=1) + "\n", encoding="utf-8")
