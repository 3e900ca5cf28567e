"""Flags of a job: what it goes on with, what it tells, and how it ends."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from frameswap.arguments import WholeNumber
from frameswap.progress import PROGRESS_FORMS
from frameswap.segmented_job import Journaling
from frameswap.segments import SEGMENT_FRAMES

__all__ = ["add_job_flags", "journaling"]


def add_job_flags(parser: ArgumentParser) -> None:
    """Add the group `job`."""
    group = parser.add_argument_group("job")
    group.add_argument(
        "--resume",
        action=BooleanOptionalAction,
        help="insist on going on with an unfinished run of this job, or begin anew "
        "(default: go on where there is one)",
    )
    group.add_argument(
        "--segment-frames",
        type=WholeNumber(1, 100_000),
        default=SEGMENT_FRAMES,
        metavar="N",
        help="frames that are kept together: a run that was cut short does so many again, at most",
    )
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="a line of JSON for each frame of a video, and "
        "a summary; of several files a folder, with one for each video",
    )  # fmt: skip
    group.add_argument(
        "--require-face", action="store_true", help="end with 1 when a file had no face"
    )
    group.add_argument(
        "--preview", type=Path, metavar="FILE", help=".jpg or .png of the newest frame, refreshed"
    )
    group.add_argument(
        "--progress",
        choices=PROGRESS_FORMS,
        default="auto",
        help="one line on a terminal and plain lines elsewhere, or always plain lines, lines of "
        "JSON, or nothing",
    )


def journaling(arguments: Namespace) -> Journaling:
    """What the flags say of the journal."""
    return Journaling(segment_frames=arguments.segment_frames, resume=arguments.resume)
