"""What became of each frame: one line of JSON for each, and the sum of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import SCORE_COLUMN, Verdict

__all__ = ["Tally", "count_faces", "describe_left", "frame_line", "read_verdicts", "report_lines"]

_REASONS: Final = {
    Verdict.LOOKS_AWAY: "looks away",
    Verdict.MISSHAPEN: "its points fit no face",
    Verdict.NO_SLOT: "no source is left for it (--faces)",
    Verdict.BELOW_THRESHOLD: "its score is too low",
}


@dataclass
class Tally:
    """What a job did; faces are those found, swapped or not.

    drop_outs: runs of frames without a face between frames that have one; longest_drop_out: in
    frames. resumed_at: how many of the frames an earlier run had done.
    left: verdicts other than SWAPPED, each with how many frames have a face of it.
    """

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0
    drop_outs: int = 0
    longest_drop_out: int = 0
    resumed_at: int = 0
    left: dict[Verdict, int] = field(default_factory=dict)
    _missing: int = 0

    def add(self, faces: int, verdicts: Sequence[Verdict] = ()) -> None:
        """Take in the next frame's number of faces, and what became of them."""
        for verdict in sorted(set(verdicts) - {Verdict.SWAPPED}):
            self.left[verdict] = self.left.get(verdict, 0) + 1
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
    index: int,
    time_s: float,
    faces: NDArray[np.float32],
    verdicts: Sequence[Verdict],
    *,
    slots: int,
    corrupt: bool,
) -> str:
    """The line of one frame, with its end of line.

    Args:
        index: from 0.
        faces: (F, 15) float32, found in it, in the order in which they are given sources.
        verdicts: of each, whether it was swapped, or why not.
        slots: how many faces of a frame are swapped, at most.
        corrupt: whether the decoder found it damaged.
    """
    found = [
        {
            "box": [round(float(value), 1) for value in face[:SCORE_COLUMN]],
            "score": round(float(face[SCORE_COLUMN]), 4),
            "swapped": verdict is Verdict.SWAPPED,
            "verdict": verdict.name.lower(),
        }
        for face, verdict in zip(faces, verdicts, strict=True)
    ]
    row: dict[str, Any] = {"frame": index, "time_s": round(time_s, 6), "faces": found}
    without = sum(verdict is Verdict.NO_SLOT for verdict in verdicts)
    others = sorted(set(verdicts) - {Verdict.SWAPPED, Verdict.NO_SLOT})
    if not found:
        row["why_not"] = "no face was found"
    elif without or others:
        reasons = [_REASONS[verdict] for verdict in others]
        if without:
            reasons.append(f"{without} more than --faces {slots}")
        row["why_not"] = ", ".join(reasons)
    if corrupt:
        row["corrupt"] = True
    return json.dumps(row) + "\n"


def count_faces(line: str) -> int:
    """How many faces a frame's line tells of."""
    return len(json.loads(line)["faces"])


def read_verdicts(line: str) -> list[Verdict]:
    """What became of each face that a frame's line tells of."""
    return [Verdict[face["verdict"].upper()] for face in json.loads(line)["faces"]]


def describe_left(tally: Tally) -> str:
    """Why faces were left as they are, in how many frames; "" where all were swapped."""
    parts = [
        f"{count} {'frame' if count == 1 else 'frames'}: {_REASONS[verdict]}"
        for verdict, count in sorted(tally.left.items())
    ]
    return f"faces left as they are: {', '.join(parts)}" if parts else ""


def report_lines(lines: Iterable[str], tally: Tally) -> Iterator[str]:
    """The whole report: a line for each frame, and one of their sum."""
    yield from lines
    # The report of a job does not depend on how often it was interrupted.
    left_out = ("resumed_at", "_missing")
    summary = {key: value for key, value in asdict(tally).items() if key not in left_out}
    summary["left"] = {verdict.name.lower(): count for verdict, count in sorted(tally.left.items())}
    yield json.dumps({"summary": summary}) + "\n"
