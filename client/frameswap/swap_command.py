"""`frameswap swap`: flags in, one job, a summary out."""

from __future__ import annotations

import os
import sys
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frameswap.arguments import (
    HelpFormatter,
    WholeNumber,
    seconds,
    seconds_or_zero,
    time_of,
)
from frameswap.contract import ENCODE_MODEL, SWAP_MODELS, FrameFormat
from frameswap.embedded import embedded_server
from frameswap.errors import BadOptions, UnreadableFile
from frameswap.face_flags import ORDERS, add_face_flags, face_options
from frameswap.job_control import JobControl, JobStopped, describe_early_end, end_early_at_interrupt
from frameswap.journal import is_unfinished
from frameswap.one_frame import swap_frame_at
from frameswap.output_file import check_output
from frameswap.photo import check_photo_output, describe_losses, is_photo, read_photo
from frameswap.preview import Preview
from frameswap.progress import PROGRESS_FORMS, Progress, format_duration
from frameswap.report import Tally, describe_left
from frameswap.segmented_job import Journaling
from frameswap.segments import SEGMENT_FRAMES
from frameswap.server_settings import add_security, read_server
from frameswap.sources import Source
from frameswap.swap_job import encode_sources, swap_photo, swap_video
from frameswap.swapper import (
    DEFAULT_IN_FLIGHT,
    DEFAULT_RECONNECT_S,
    DEFAULT_TIMEOUT_S,
    FaceSwapper,
)
from frameswap.transport import TRANSPORT_NAMES
from frameswap.video import VideoReader
from frameswap.video_writer import AUDIO_MODES, check_video_output

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    import numpy as np
    from numpy.typing import NDArray

    Subparsers = _SubParsersAction[ArgumentParser]

__all__ = ["register"]

_EMBEDDED_IN_FLIGHT: Final = 6
"""One for each of the three steps of the ensemble and one that waits for it; more would only make
Ctrl-C wait on a machine without a GPU."""


def register(subparsers: Subparsers) -> None:
    """Add the verb `swap` to the command line."""
    parser = subparsers.add_parser(
        "swap",
        help="put the face of a photo into a video or photo",
        description="Put the face of a photo into a video or photo.",
        formatter_class=HelpFormatter,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--source",
        type=Path,
        action="append",
        required=True,
        metavar="PHOTO",
        help="whose face; several photos of one person are averaged (identity swappers only)",
    )
    files.add_argument(
        "--target", type=Path, required=True, metavar="FILE", help="the video or photo to change"
    )
    files.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where the result goes"
    )
    files.add_argument(
        "--at",
        type=time_of,
        metavar="TIME",
        help="swap the one frame of the video that is shown then, SECONDS or HH:MM:SS, and write a "
        "photo: a quick look before the job",
    )
    files.add_argument("--force", action="store_true", help="overwrite the output if it exists")
    add_face_flags(parser)
    _add_encoding(parser)
    _add_job(parser)
    _add_server(parser)
    add_security(parser)
    parser.set_defaults(run=run)


def _add_encoding(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("encoding of a video")
    group.add_argument(
        "--crf", type=WholeNumber(0, 51), default=18, metavar="N",
        help="x264 quality, 0 (lossless) to 51",
    )  # fmt: skip
    group.add_argument(
        "--preset", default="veryfast", choices=_PRESETS, metavar="NAME",
        help=f"x264 speed, one of {', '.join(_PRESETS)}",
    )  # fmt: skip
    group.add_argument(
        "--audio",
        choices=AUDIO_MODES,
        default="copy",
        help="copy the audio as it is, make AAC of it, or leave it out",
    )


def _add_job(parser: ArgumentParser) -> None:
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
        "--report", type=Path, metavar="FILE", help="a line of JSON for each frame, and a summary"
    )
    group.add_argument(
        "--require-face", action="store_true", help="end with 1 when no frame had a face"
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


def _add_server(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT,...",
        help="gRPC endpoints of running servers, or dns:///HOST:PORT; without one an embedded "
        "server is started",
    )
    group.add_argument(
        "--timeout-s",
        type=seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="time limit of a request, seconds",
    )
    group.add_argument(
        "--reconnect-s",
        type=seconds_or_zero,
        default=DEFAULT_RECONNECT_S,
        metavar="SECONDS",
        help="seconds to wait for a lost server to come back before the job fails",
    )
    group.add_argument(
        "--window",
        type=WholeNumber(1, 1024),
        metavar="N",
        help=f"frames in flight at each server, at most (default: {DEFAULT_IN_FLIGHT}, and "
        f"{_EMBEDDED_IN_FLIGHT} with an embedded server)",
    )
    group.add_argument(
        "--transport", choices=TRANSPORT_NAMES, default="auto", help="how frames are sent"
    )
    group.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="model repository of the embedded server (default: the checkout's)",
    )
    # `--target` is the file to change.
    group.add_argument(
        "--server-target",
        "--variant",
        default="cpu",
        metavar="TARGET",
        help="the target of build_engines.py whose models the embedded server loads",
    )


_PRESETS: Final = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip


def run(arguments: Namespace) -> int:
    """Do the job; returns the exit code.

    Raises:
        FrameswapError: what went wrong.
    """
    # All that can fail without a server fails before one is started.
    force = arguments.force or is_unfinished(arguments.output)
    check_output(arguments.output, force=force)
    if arguments.report is not None:
        check_output(arguments.report, force=True)
    photos = [(path, read_photo(path)) for path in arguments.source]
    if not arguments.target.exists():
        raise UnreadableFile(f"there is no file {arguments.target}")
    if arguments.at is not None:
        return _run_at(arguments, photos)
    if is_photo(arguments.target):
        check_photo_output(arguments.output)
        image = read_photo(arguments.target)
        _tell(describe_losses(arguments.target))
        return _run_photo(arguments, photos, image)
    check_video_output(arguments.output)
    with VideoReader(arguments.target) as reader:
        return _run_video(arguments, photos, reader)


def _run_photo(
    arguments: Namespace,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
    image: NDArray[np.uint8],
) -> int:
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, "bgr", (image.shape[1], image.shape[0]))
        sources = _sources(arguments, swapper, photos)
        progress = _progress(arguments, 1)
        tally = swap_photo(
            swapper, image, sources, face_options(arguments), arguments.output,
            force=arguments.force,
        )  # fmt: skip
        return _summarise(arguments, tally, progress)


def _run_at(arguments: Namespace, photos: Sequence[tuple[Path, NDArray[np.uint8]]]) -> int:
    if is_photo(arguments.target):
        raise BadOptions(f"--at is a moment of a video, and {arguments.target} is a photo")
    check_photo_output(arguments.output)
    with VideoReader(arguments.target) as reader, ExitStack() as stack:
        swapper = _connect(arguments, stack, "i420", (reader.width, reader.height))
        sources = _sources(arguments, swapper, photos)
        progress = _progress(arguments, 1)
        tally = swap_frame_at(
            swapper, reader, arguments.at, sources, face_options(arguments), arguments.output,
            force=arguments.force,
        )  # fmt: skip
        return _summarise(arguments, tally, progress)


def _run_video(
    arguments: Namespace,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
    reader: VideoReader,
) -> int:
    preview = None if arguments.preview is None else Preview(arguments.preview)
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, "i420", (reader.width, reader.height))
        sources = _sources(arguments, swapper, photos)
        options = replace(
            face_options(arguments),
            color_matrix=reader.tags.color_matrix,
            color_range=reader.tags.color_range,
            chroma_location=reader.chroma_location,
        )
        progress = _progress(arguments, reader.frame_count)
        stack.callback(progress.clear)
        control = JobControl()
        stack.enter_context(end_early_at_interrupt(control))
        try:
            tally = swap_video(
                swapper,
                reader,
                sources,
                options,
                arguments.output,
                force=arguments.force,
                crf=arguments.crf,
                preset=arguments.preset,
                audio=arguments.audio,
                on_notes=_tell,
                on_frame=progress.update,
                journaling=Journaling(
                    segment_frames=arguments.segment_frames, resume=arguments.resume
                ),
                control=control,
                report=arguments.report,
                preview=preview,
            )
        except JobStopped:
            raise KeyboardInterrupt from None
        code = _summarise(arguments, tally, progress)
        if control.ends_early:
            _tell([describe_early_end(arguments.output)])
            return 130
        return code


def _connect(
    arguments: Namespace, stack: ExitStack, pixel: FrameFormat, frame_size: tuple[int, int]
) -> FaceSwapper:
    address, security = read_server(arguments, os.environ, home=Path.home())
    in_flight = arguments.window or (_EMBEDDED_IN_FLIGHT if address is None else DEFAULT_IN_FLIGHT)
    if address is None:
        address = stack.enter_context(
            embedded_server(
                arguments.repository,
                target=arguments.server_target,
                models=[SWAP_MODELS[pixel], ENCODE_MODEL],
                frame_size=frame_size,
                requests_in_flight=in_flight,
                on_start=lambda: _tell(["starting the embedded server"]),
                on_trouble=lambda note: _tell([note]),
            )
        )
    swapper = stack.enter_context(
        FaceSwapper(
            address,
            timeout_s=arguments.timeout_s,
            transport=arguments.transport,
            in_flight=in_flight,
            reconnect_s=arguments.reconnect_s,
            security=security,
        )
    )
    swapper.check_model(pixel)
    return swapper


def _sources(
    arguments: Namespace,
    swapper: FaceSwapper,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
) -> list[Source]:
    order = arguments.source_face
    source = encode_sources(
        swapper,
        photos,
        face=None if order is None else ORDERS[order],
        score_threshold=arguments.score_threshold,
    )
    return [source] * int(arguments.faces)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"frameswap: {note}", file=sys.stderr, flush=True)


def _progress(arguments: Namespace, total: int | None) -> Progress:
    return Progress(total, sys.stderr, form=arguments.progress)


def _summarise(arguments: Namespace, tally: Tally, progress: Progress) -> int:
    """Say what was done; returns the exit code."""
    progress.clear()
    elapsed_s = progress.elapsed_s
    rate = (tally.frames - tally.resumed_at) / elapsed_s if elapsed_s > 0 else 0.0
    dropped = f", {_count(tally.drop_outs, 'drop-out')}" if tally.drop_outs else ""
    print(
        f"{arguments.output}: {_count(tally.frames, 'frame')} in {format_duration(elapsed_s)} "
        f"({rate:.1f} frames/s), {_count(tally.faces, 'face')} found, "
        f"{_count(tally.frames_without_face, 'frame')} without a face{dropped}"
    )
    if left := describe_left(tally):
        print(left)
    if tally.faces == 0:
        _tell(["no face was found: the output shows what the input shows"])
        return 1 if arguments.require_face else 0
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
