"""`frameswap swap`: flags in, one job, a summary out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frameswap.arguments import HelpFormatter, WholeNumber, seconds, seconds_or_zero, share
from frameswap.contract import ENCODE_MODEL, MAX_DETECTIONS, SWAP_MODELS, FaceOrder, FrameFormat
from frameswap.embedded import embedded_server
from frameswap.encoders import check_options
from frameswap.errors import (
    BadOptions,
    ContractMismatch,
    FrameswapError,
    ServerNotReady,
    ServerUnreachable,
    TransportUnavailable,
    UnwritableFile,
)
from frameswap.file_flags import (
    add_encoding_flags,
    add_file_flags,
    add_reading_flags,
    encoding,
    read_options,
)
from frameswap.file_kinds import check_source_kind, check_target_kind, is_sequence, is_standard
from frameswap.file_tasks import FileTask, FolderPlan, is_folder_job, plan_folder
from frameswap.options import SwapOptions
from frameswap.output_file import check_output, explain_failure
from frameswap.photo import (
    Photo,
    check_photo_output,
    describe_losses,
    is_photo,
    open_photo,
    read_photo,
)
from frameswap.progress import Progress, format_duration
from frameswap.sources import Source
from frameswap.swap_job import Tally, encode_sources, swap_photo, swap_video
from frameswap.swapper import DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, FaceSwapper
from frameswap.transport import TRANSPORT_NAMES
from frameswap.video import VideoReader
from frameswap.video_writer import check_video_output

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    import numpy as np
    from numpy.typing import NDArray

    Subparsers = _SubParsersAction[ArgumentParser]

__all__ = ["register"]

_EMBEDDED_IN_FLIGHT: Final = 6
"""One for each of the three steps of the ensemble and one that waits for it; more would only make
Ctrl-C wait on a machine without a GPU."""
_SERVER_ERRORS: Final = (
    ServerUnreachable, ServerNotReady, ContractMismatch, TransportUnavailable,
)  # fmt: skip
"""What ends a job of many files: it is not about one of them."""
ORDERS: Final = {order.name.lower().replace("_", "-"): order for order in FaceOrder}


def register(subparsers: Subparsers) -> None:
    """Add the verb `swap` to the command line."""
    parser = subparsers.add_parser(
        "swap",
        help="put the face of a photo into a video or photo",
        description="Put the face of a photo into a video or photo.",
        formatter_class=HelpFormatter,
    )
    add_file_flags(parser)
    _add_faces(parser)
    add_encoding_flags(parser)
    add_reading_flags(parser)
    _add_server(parser)
    parser.set_defaults(run=run)


def _add_faces(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("faces")
    group.add_argument(
        "--source-face",
        choices=ORDERS,
        metavar="ORDER",
        help=f"which face of a source photo, when it has several: {', '.join(ORDERS)} "
        "(default: it must have one)",
    )
    group.add_argument(
        "--face-order",
        choices=ORDERS,
        metavar="ORDER",
        default="largest-first",
        help="order in which the target's faces are given the source, the first K of them; choices "
        "as for --source-face",
    )
    group.add_argument(
        "--faces",
        type=WholeNumber(1, MAX_DETECTIONS),
        default=1,
        metavar="K",
        help="how many faces of each frame are swapped, at most",
    )
    group.add_argument(
        "--score-threshold",
        type=share,
        metavar="SCORE",
        help="how sure the detector must be of a face, above 0 to 1 (default: the server's)",
    )


def _add_server(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="gRPC endpoint of a running server; without it an embedded one is started",
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
        default=0.0,
        metavar="SECONDS",
        help="seconds to wait for a lost server to come back before the job fails",
    )
    group.add_argument(
        "--window",
        type=WholeNumber(1, 1024),
        metavar="N",
        help=f"frames in flight, at most (default: {DEFAULT_IN_FLIGHT}, and {_EMBEDDED_IN_FLIGHT} "
        "with an embedded server)",
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


def run(arguments: Namespace) -> int:
    """Do the job; returns the exit code.

    Raises:
        FrameswapError: what went wrong.
    """
    # All that can fail without a server fails before one is started.
    try:
        _check_usage(arguments)
    except BadOptions as error:
        _tell([str(error)])
        return 2
    for path in arguments.source:
        check_source_kind(path)
    if is_folder_job(arguments.target, arguments.output):
        plan = plan_folder(arguments.target, arguments.output)
        return _run_folder(arguments, plan, [(path, read_photo(path)) for path in arguments.source])
    task = FileTask(arguments.target[0], arguments.output)
    if not (is_standard(task.output) or is_sequence(task.output)):
        check_output(task.output, force=arguments.force)
    photos = [(path, read_photo(path)) for path in arguments.source]
    check_target_kind(task.target)
    with ExitStack() as stack:
        opened = _open_target(arguments, task, stack)
        swapper = _connect(arguments, stack, [_pixel(opened)], _size(opened))
        sources = _sources(arguments, swapper, photos)
        _swap_file(arguments, swapper, sources, opened, task.output)
    return 0


def _check_usage(arguments: Namespace) -> None:
    """Raise BadOptions for flags that contradict each other or the encoder."""
    read_options(arguments)
    if arguments.codec is not None:
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


def _run_folder(
    arguments: Namespace, plan: FolderPlan, photos: Sequence[tuple[Path, NDArray[np.uint8]]]
) -> int:
    """Swap many files with one connection; an error of one is kept for the summary."""
    pixels, size = _probe(arguments, plan)
    failed: dict[Path, FrameswapError] = {}
    done = 0
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, pixels, size)
        sources = _sources(arguments, swapper, photos)
        for task in plan.tasks:
            try:
                task.output.parent.mkdir(parents=True, exist_ok=True)
                check_output(task.output, force=arguments.force)
                with ExitStack() as files:
                    opened = _open_target(arguments, task, files)
                    _swap_file(arguments, swapper, sources, opened, task.output)
                done += 1
            except OSError as error:
                reason = explain_failure(error.errno, error.strerror, task.output)
                failed[task.target] = UnwritableFile(reason)
            except _SERVER_ERRORS as error:
                # Every other file would end the same way.
                failed[task.target] = error
                break
            except FrameswapError as error:
                _tell([str(error)])
                failed[task.target] = error
    _summarise_folder(plan, done, failed)
    return 1 if failed else 0


def _summarise_folder(plan: FolderPlan, done: int, failed: Mapping[Path, FrameswapError]) -> None:
    missing = len(plan.tasks) - done - len(failed)
    parts = [f"{_count(len(plan.tasks), 'file')}: {done} done"]
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{missing} not tried"] if missing else []
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
    if _is_photo(task.target):
        check_photo_output(task.output)
    else:
        check_video_output(task.output, encoding(arguments))
    opened = _open(arguments, task.target, stack)
    if isinstance(opened, Photo):
        _tell(describe_losses(opened, task.output))
    return opened


def _open(arguments: Namespace, target: Path, stack: ExitStack) -> Photo | VideoReader:
    if _is_photo(target):
        return open_photo(target)
    return stack.enter_context(VideoReader(target, read_options(arguments)))


def _is_photo(path: Path) -> bool:
    return not is_standard(path) and is_photo(path)


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
    sources: Sequence[Source],
    opened: Photo | VideoReader,
    output: Path,
) -> None:
    """Swap one opened file, with its progress and its summary."""
    force = arguments.force
    if isinstance(opened, Photo):
        progress = Progress(1, sys.stderr)
        options = _options(arguments)
        tally = swap_photo(
            swapper, opened, sources, options, output, force=force, quality=arguments.quality
        )
    else:
        progress = Progress(opened.frame_count, sys.stderr)
        options = replace(
            _options(arguments),
            color_matrix=opened.tags.color_matrix,
            color_range=opened.tags.color_range,
            chroma_location=opened.chroma_location,
        )
        try:
            tally = swap_video(
                swapper,
                opened,
                sources,
                options,
                output,
                force=force,
                encoding=encoding(arguments),
                audio=arguments.audio,
                on_notes=_tell,
                on_frame=progress.update,
            )
        finally:
            progress.clear()
    _summarise(output, tally, progress.elapsed_s)


def _connect(
    arguments: Namespace,
    stack: ExitStack,
    pixels: Sequence[FrameFormat],
    frame_size: tuple[int, int],
) -> FaceSwapper:
    address = arguments.server
    in_flight = arguments.window or (_EMBEDDED_IN_FLIGHT if address is None else DEFAULT_IN_FLIGHT)
    if address is None:
        address = stack.enter_context(
            embedded_server(
                arguments.repository,
                target=arguments.server_target,
                models=[*(SWAP_MODELS[pixel] for pixel in pixels), ENCODE_MODEL],
                frame_size=frame_size,
                requests_in_flight=in_flight,
                on_start=lambda: _tell(["starting the embedded server"]),
            )
        )
    swapper = stack.enter_context(
        FaceSwapper(
            address,
            timeout_s=arguments.timeout_s,
            transport=arguments.transport,
            in_flight=in_flight,
            reconnect_s=arguments.reconnect_s,
        )
    )
    for pixel in pixels:
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


def _options(arguments: Namespace) -> SwapOptions:
    return SwapOptions(
        face_order=ORDERS[arguments.face_order], score_threshold=arguments.score_threshold
    )


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"frameswap: {note}", file=sys.stderr, flush=True)


def _summarise(output: Path, tally: Tally, elapsed_s: float) -> None:
    rate = tally.frames / elapsed_s if elapsed_s > 0 else 0.0
    print(
        f"{output}: {_count(tally.frames, 'frame')} in {format_duration(elapsed_s)} "
        f"({rate:.1f} frames/s), {_count(tally.faces, 'face')} found, "
        f"{_count(tally.frames_without_face, 'frame')} without a face",
        # Standard output may be the video.
        file=sys.stderr if is_standard(output) else sys.stdout,
    )
    if tally.faces == 0:
        _tell(["no face was found: the output shows what the input shows"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
