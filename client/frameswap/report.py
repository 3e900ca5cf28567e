"""What became of each frame: one line of JSON for each, and the sum of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SCORE_COLUMN

__all__ = ["Tally", "frame_line", "report_lines"]


@dataclass
class Tally:
    """What a job did; faces are those found, swapped or not.

    drop_outs: runs of frames without a face between frames that have one; longest_drop_out: in
    frames. resumed_at: how many of the frames an earlier run had done.
    """

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0
    drop_outs: int = 0
    longest_drop_out: int = 0
    resumed_at: int = 0
    _missing: int = 0

    def add(self, faces: int) -> None:
        """Take in the next frame's number of faces."""
        self.frames += 1
        self.faces += faces
        if not faces:
            self.frames_without_face += 1
            # Before the first face nobody is missed.
            self._missing += self.faces > 0
        elif self._missing:
            self.drop_outs += 1
            self.longest_drop_out = max(self.longest_drop_out, self._missing)
            self._missing = 0


def frame_line(
    index: int, time_s: float, faces: NDArray[np.float32], *, slots: int, corrupt: bool
) -> str:
    """The line of one frame, with its end of line.

    Args:
        index: from 0.
        faces: (F, 15) float32, found in it, in the order in which they are given sources.
        slots: how many faces of a frame are swapped, at most.
        corrupt: whether the decoder found it damaged.
    """
    found = [
        {
            "box": [round(float(value), 1) for value in face[:SCORE_COLUMN]],
            "score": round(float(face[SCORE_COLUMN]), 4),
            "swapped": place < slots,
        }
        for place, face in enumerate(faces)
    ]
    row: dict[str, Any] = {"frame": index, "time_s": round(time_s, 6), "faces": found}
    if not found:
        row["why_not"] = "no face was found"
    elif len(found) > slots:
        row["why_not"] = f"{len(found) - slots} more than --faces {slots}"
    if corrupt:
        row["corrupt"] = True
    return json.dumps(row) + "\n"


def count_faces(line: str) -> int:
    """How many faces a frame's line tells of."""
    return len(json.loads(line)["faces"])


def report_lines(lines: Iterable[str], tally: Tally) -> Iterator[str]:
    """The whole report: a line for each frame, and one of their sum."""
    yield from lines
    # The report of a job does not depend on how often it was interrupted.
    left_out = ("resumed_at", "_missing")
    summary = {key: value for key, value in asdict(tally).items() if key not in left_out}
    yield json.dumps({"summary": summary}) + "\n"
