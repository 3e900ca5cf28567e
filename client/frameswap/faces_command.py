"""`frameswap faces`: who is in a video or photo, as a contact sheet."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from frameswap.arguments import HelpFormatter, seconds_or_zero, share
from frameswap.errors import BadOptions
from frameswap.file_flags import add_reading_flags, read_options
from frameswap.file_kinds import check_target_kind
from frameswap.persons.following import models_to_find
from frameswap.persons.sheet import check_sheet, write_sheet
from frameswap.persons.survey import DEFAULT_EVERY_S, Survey, find_persons
from frameswap.photo import is_photo, open_photo
from frameswap.progress import PROGRESS_FORMS, Progress
from frameswap.server_flags import add_server_flags, connect, tell
from frameswap.server_settings import add_security
from frameswap.video import VideoReader

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Subparsers = _SubParsersAction[ArgumentParser]

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verb `faces` to the command line."""
    parser = subparsers.add_parser(
        "faces",
        help="list the persons of a video or photo",
        description="Find the persons of a video or photo, and write a picture of them, numbered, "
        "and the same as JSON beside it. `frameswap swap --persons` takes that.",
        formatter_class=HelpFormatter,
    )
    group = parser.add_argument_group("files")
    group.add_argument("target", type=Path, metavar="FILE", help="the video or photo")
    group.add_argument(
        "--output", type=Path, required=True, metavar="FILE.png", help="where the sheet goes"
    )
    group.add_argument("--force", action="store_true", help="overwrite the sheet if it exists")
    group = parser.add_argument_group("looking")
    group.add_argument(
        "--every-s", type=seconds_or_zero, default=DEFAULT_EVERY_S, metavar="SECONDS",
        help="look at a frame every so many seconds of a video; 0 looks at each",
    )  # fmt: skip
    group.add_argument(
        "--score-threshold", type=share, metavar="SCORE",
        help="how sure the detector must be of a face, above 0 to 1 (default: 0.5)",
    )  # fmt: skip
    group.add_argument(
        "--progress", choices=PROGRESS_FORMS, default="auto",
        help="one line on a terminal and plain lines elsewhere, or always plain lines, lines of "
        "JSON, or nothing",
    )  # fmt: skip
    add_reading_flags(parser)
    add_server_flags(parser)
    add_security(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Write the sheet; returns the exit code.

    Raises:
        FrameswapError: what went wrong.
    """
    try:
        reading = read_options(arguments)
    except BadOptions as error:
        tell([str(error)])
        return 2
    target = arguments.target
    check_target_kind(target)
    check_sheet(arguments.output, force=arguments.force)
    if is_photo(target):
        image = open_photo(target).image
        models = models_to_find("bgr", knows_persons=True)
        size = (image.shape[1], image.shape[0])
    else:
        models = models_to_find("i420", knows_persons=True)
        with VideoReader(target, reading) as reader:
            size = (reader.width, reader.height)
    progress = Progress(None, sys.stderr, form=arguments.progress)
    with ExitStack() as stack:
        swapper = connect(arguments, stack, models, size)
        swapper.check_models(models)
        survey = find_persons(
            swapper, target, every_s=arguments.every_s, reading=reading,
            score_threshold=arguments.score_threshold,
            on_frame=lambda done, expected: progress.update(done, total=expected),
        )  # fmt: skip
        progress.clear()
    write_sheet(survey, arguments.output, force=arguments.force)
    _tell_persons(survey, arguments.output)
    return 0


def _tell_persons(survey: Survey, output: Path) -> None:
    count = len(survey.persons)
    print(f"{output}: {count} {'person' if count == 1 else 'persons'} in {survey.frames} frames")
    for person in survey.persons:
        print(
            f"  {person.number}: from {person.first_s:.2f} s to {person.last_s:.2f} s, "
            f"{100 * person.share:.0f} % of the frames, {person.size_px:.0f} px"
        )
