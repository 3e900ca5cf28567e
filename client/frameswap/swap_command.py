"""`frameswap swap`: flags in, one job, a summary out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frameswap.addresses import Target, Url
from frameswap.arguments import HelpFormatter
from frameswap.contract import SWAP_MODELS, FrameFormat
from frameswap.encoders import check_options
from frameswap.errors import (
    BadOptions,
    ContractMismatch,
    FrameswapError,
    NoFaceFound,
    ServerNotReady,
    ServerUnreachable,
    TransportUnavailable,
    UnwritableFile,
)
from frameswap.face_flags import ORDERS, add_face_flags, face_options
from frameswap.file_flags import (
    add_encoding_flags,
    add_file_flags,
    add_reading_flags,
    encoding,
    folder_plan,
    read_options,
    report_path,
)
from frameswap.file_kinds import check_source_kind, check_target_kind, is_sequence, is_standard
from frameswap.file_tasks import FileTask, FolderPlan, is_folder_job
from frameswap.job_control import JobControl, JobStopped, describe_early_end, end_early_at_interrupt
from frameswap.job_flags import add_job_flags, journaling
from frameswap.journal import is_unfinished
from frameswap.one_frame import swap_frame_at
from frameswap.output_file import check_output, explain_failure
from frameswap.person_flags import (
    CastPhotos,
    add_person_flags,
    check_person_flags,
    knows_persons,
    picture_search,
    read_cast,
    steadiness,
)
from frameswap.persons.casting import Casting
from frameswap.persons.following import check_followed, models_to_follow
from frameswap.persons.search import Search
from frameswap.photo import (
    Photo,
    check_photo_output,
    describe_losses,
    is_photo,
    open_photo,
)
from frameswap.preview import Preview
from frameswap.progress import Progress, format_duration
from frameswap.report import Tally, describe_left
from frameswap.server_flags import add_server_flags, connect, tell
from frameswap.server_settings import add_security
from frameswap.swap_job import swap_photo, swap_video
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoReader
from frameswap.video_writer import check_video_output

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    Subparsers = _SubParsersAction[ArgumentParser]

__all__ = ["register"]

_SERVER_ERRORS: Final = (
    ServerUnreachable, ServerNotReady, ContractMismatch, TransportUnavailable,
)  # fmt: skip
"""What ends a job of many files: it is not about one of them."""
_INTERRUPTED: Final = 130
"""What a shell says of a program that Ctrl-C ended."""


def register(subparsers: Subparsers) -> None:
    """Add the verb `swap` to the command line."""
    parser = subparsers.add_parser(
        "swap",
        help="put the face of a photo into a video or photo",
        description="Put the face of a photo into a video or photo.",
        formatter_class=HelpFormatter,
    )
    add_file_flags(parser)
    add_face_flags(parser)
    add_person_flags(parser)
    add_encoding_flags(parser)
    add_reading_flags(parser)
    add_job_flags(parser)
    add_server_flags(parser)
    add_security(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Do the job; returns the exit code.

    Raises:
        FrameswapError: what went wrong.
    """
    # All that can fail without a server fails before one is started.
    try:
        _check_usage(arguments)
        plan = folder_plan(arguments)
    except BadOptions as error:
        tell([str(error)])
        return 2
    for path in arguments.source or ():
        check_source_kind(path)
    if plan is not None:
        return _run_folder(arguments, plan, read_cast(arguments))
    task = FileTask(arguments.target[0], arguments.output)
    if arguments.at is not None:
        check_photo_output(task.output)
    if not (is_standard(task.output) or is_sequence(task.output)):
        _check_outputs(arguments, task.output)
    cast = read_cast(arguments)
    check_target_kind(task.target)
    with ExitStack() as stack:
        opened = _open_target(arguments, task, stack)
        swapper = _connect(arguments, stack, [_pixel(opened)], _size(opened))
        casting = _encode(arguments, swapper, cast)
        if arguments.at is not None:
            return _swap_one_frame(arguments, swapper, casting, opened, task.output)
        return _swap_file(arguments, swapper, casting, opened, task.output)


def _connect(
    arguments: Namespace,
    stack: ExitStack,
    pixels: Sequence[FrameFormat],
    size: tuple[int, int],
) -> FaceSwapper:
    """Connect to a server that has what the job asks for, with files of those formats."""
    persons, picture = knows_persons(arguments), picture_search(arguments) is not Search.OFF
    is_followed = {
        pixel: persons
        or (arguments.steady == "on" if pixel == "i420" and arguments.at is None else picture)
        for pixel in pixels
    }
    models: list[str] = []
    for pixel, followed in is_followed.items():
        models += models_to_follow(pixel, knows_persons=persons) if followed else [
            SWAP_MODELS[pixel]
        ]
    swapper = connect(arguments, stack, list(dict.fromkeys(models)), size)
    for pixel, followed in is_followed.items():
        if followed:
            check_followed(swapper, pixel, knows_persons=persons)
        else:
            swapper.check_model(pixel)
    return swapper


def _check_outputs(arguments: Namespace, output: Path) -> None:
    check_output(output, force=arguments.force or is_unfinished(output))
    report = report_path(arguments, output)
    if report is not None:
        check_output(report, force=True)


def _check_usage(arguments: Namespace) -> None:
    """Raise BadOptions for flags that contradict each other or the encoder."""
    check_person_flags(arguments)
    face_options(arguments)
    read_options(arguments)
    if arguments.at is not None:
        _check_one_frame(arguments)
    elif arguments.codec is not None:
        check_options(arguments.codec, encoding(arguments))
    elif not is_folder_job(arguments.target, arguments.output):
        target, output = arguments.target[0], arguments.output
        if _is_photo(target):
            if arguments.quality == 0:
                raise BadOptions("quality of a photo is 100 (best) to 1, not 0")
        else:
            # A file that is not written is said later, as all that is no wrong usage.
            with suppress(UnwritableFile):
                check_video_output(output, encoding(arguments))


def _check_one_frame(arguments: Namespace) -> None:
    target = arguments.target[0]
    if is_folder_job(arguments.target, arguments.output) or is_standard(arguments.output):
        raise BadOptions("--at writes one frame of one video to a file")
    if _is_photo(target):
        raise BadOptions(f"--at is a moment of a video, and {target} is a photo")


def _run_folder(
    arguments: Namespace, plan: FolderPlan, cast: CastPhotos
) -> int:
    """Swap many files with one connection; an error of one is kept for the summary."""
    pixels, size = _probe(arguments, plan)
    failed: dict[Target, FrameswapError] = {}
    done = 0
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, pixels, size)
        casting = _encode(arguments, swapper, cast)
        for task in plan.tasks:
            try:
                report = report_path(arguments, task.output)
                for path in (task.output, *([] if report is None else [report])):
                    path.parent.mkdir(parents=True, exist_ok=True)
                _check_outputs(arguments, task.output)
                with ExitStack() as files:
                    opened = _open_target(arguments, task, files)
                    code = _swap_file(arguments, swapper, casting, opened, task.output)
                if code == _INTERRUPTED:
                    _summarise_folder(plan, done, failed)
                    return code
                if code:
                    failed[task.target] = NoFaceFound("no frame had a face (--require-face)")
                    continue
                done += 1
            except OSError as error:
                reason = explain_failure(error.errno, error.strerror, task.output)
                failed[task.target] = UnwritableFile(reason)
            except _SERVER_ERRORS as error:
                # Every other file would end the same way.
                failed[task.target] = error
                break
            except FrameswapError as error:
                tell([str(error)])
                failed[task.target] = error
    _summarise_folder(plan, done, failed)
    return 1 if failed else 0


def _summarise_folder(plan: FolderPlan, done: int, failed: Mapping[Target, FrameswapError]) -> None:
    missing = len(plan.tasks) - done - len(failed)
    parts = [f"{_count(len(plan.tasks), 'file')}: {done} done"]
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{missing} not done"] if missing else []
    parts += [f"{plan.left_alone} that are no photo or video left alone"] if plan.left_alone else []
    print(", ".join(parts))
    for path, error in failed.items():
        print(f"  {path}: {error}")


def _probe(
    arguments: Namespace, plan: FolderPlan
) -> tuple[list[FrameFormat], tuple[int, int]]:
    """Which kinds of frames there will be, and the largest width and height of one, pixels."""
    pixels: set[FrameFormat] = set()
    width = height = 1
    for task in plan.tasks:
        # What cannot be opened is said when its turn comes.
        with suppress(FrameswapError), ExitStack() as stack:
            opened = _open(arguments, task.target, stack)
            pixels.add(_pixel(opened))
            size = _size(opened)
            width, height = max(width, size[0]), max(height, size[1])
    return sorted(pixels), (width, height)


def _open_target(arguments: Namespace, task: FileTask, stack: ExitStack) -> Photo | VideoReader:
    """Open a target whose output can be written; the stack closes it."""
    if _is_photo(task.target) or arguments.at is not None:
        check_photo_output(task.output)
    else:
        check_video_output(task.output, encoding(arguments))
    opened = _open(arguments, task.target, stack)
    if isinstance(opened, Photo):
        tell(describe_losses(opened, task.output))
    return opened


def _open(arguments: Namespace, target: Target, stack: ExitStack) -> Photo | VideoReader:
    if isinstance(target, Path) and _is_photo(target):
        return open_photo(target)
    return stack.enter_context(VideoReader(target, read_options(arguments)))


def _is_photo(path: Target) -> bool:
    return not isinstance(path, Url) and not is_standard(path) and is_photo(path)


def _pixel(opened: Photo | VideoReader) -> FrameFormat:
    return "bgr" if isinstance(opened, Photo) else "i420"


def _size(opened: Photo | VideoReader) -> tuple[int, int]:
    """Width and height, pixels."""
    if isinstance(opened, Photo):
        return opened.image.shape[1], opened.image.shape[0]
    return opened.width, opened.height


def _swap_file(
    arguments: Namespace,
    swapper: FaceSwapper,
    casting: Casting,
    opened: Photo | VideoReader,
    output: Path,
) -> int:
    """Swap one opened file, with its progress and its summary; returns the exit code."""
    if not isinstance(opened, Photo):
        return _swap_video_file(arguments, swapper, casting, opened, output)
    progress = Progress(1, sys.stderr, form=arguments.progress)
    tally = swap_photo(
        swapper, opened, casting, face_options(arguments), output, force=arguments.force,
        quality=arguments.quality, search=picture_search(arguments),
    )  # fmt: skip
    return _summarise(arguments, output, tally, progress.elapsed_s)


def _swap_one_frame(
    arguments: Namespace,
    swapper: FaceSwapper,
    casting: Casting,
    opened: Photo | VideoReader,
    output: Path,
) -> int:
    assert isinstance(opened, VideoReader)  # `_check_usage` has seen to it
    progress = Progress(1, sys.stderr, form=arguments.progress)
    tally = swap_frame_at(
        swapper, opened, arguments.at, casting, face_options(arguments), output,
        force=arguments.force, search=picture_search(arguments),
    )  # fmt: skip
    return _summarise(arguments, output, tally, progress.elapsed_s)


def _swap_video_file(
    arguments: Namespace,
    swapper: FaceSwapper,
    casting: Casting,
    reader: VideoReader,
    output: Path,
) -> int:
    progress = Progress(reader.frame_count, sys.stderr, form=arguments.progress)
    options = replace(
        face_options(arguments),
        color_matrix=reader.tags.color_matrix,
        color_range=reader.tags.color_range,
        chroma_location=reader.chroma_location,
    )
    control = JobControl()
    preview = None if arguments.preview is None else Preview(arguments.preview)
    try:
        with end_early_at_interrupt(control):
            tally = swap_video(
                swapper, reader, casting, options, output, force=arguments.force,
                steady=steadiness(arguments),
                encoding=encoding(arguments), audio=arguments.audio, on_notes=tell,
                on_frame=progress.update, journaling=journaling(arguments), control=control,
                report=report_path(arguments, output), preview=preview,
            )  # fmt: skip
    except JobStopped:
        raise KeyboardInterrupt from None
    finally:
        progress.clear()
    code = _summarise(arguments, output, tally, progress.elapsed_s)
    if control.ends_early:
        tell([describe_early_end(output)])
        return _INTERRUPTED
    return code


def _encode(arguments: Namespace, swapper: FaceSwapper, cast: CastPhotos) -> Casting:
    order = arguments.source_face
    return cast.encode(
        swapper,
        face=None if order is None else ORDERS[order],
        score_threshold=arguments.score_threshold,
    )


def _summarise(arguments: Namespace, output: Path, tally: Tally, elapsed_s: float) -> int:
    """Say what was done; returns the exit code."""
    rate = (tally.frames - tally.resumed_at) / elapsed_s if elapsed_s > 0 else 0.0
    dropped = f", {_count(tally.drop_outs, 'drop-out')}" if tally.drop_outs else ""
    print(
        f"{output}: {_count(tally.frames, 'frame')} in {format_duration(elapsed_s)} "
        f"({rate:.1f} frames/s), {_count(tally.faces, 'face')} found, "
        f"{_count(tally.frames_without_face, 'frame')} without a face{dropped}",
        # Standard output may be the video.
        file=sys.stderr if is_standard(output) else sys.stdout,
    )
    if left := describe_left(tally):
        print(left, file=sys.stderr if is_standard(output) else sys.stdout)
    if tally.faces == 0:
        tell(["no face was found: the output shows what the input shows"])
        return 1 if arguments.require_face else 0
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
