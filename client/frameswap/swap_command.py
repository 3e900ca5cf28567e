"""`frameswap swap`: flags in, one job, a summary out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frameswap.arguments import (
    HelpFormatter,
    WholeNumber,
    frame_rate,
    seconds,
    seconds_or_zero,
    share,
    time_of,
)
from frameswap.contract import ENCODE_MODEL, MAX_DETECTIONS, SWAP_MODELS, FaceOrder, FrameFormat
from frameswap.embedded import embedded_server
from frameswap.encoders import CODECS, Encoding
from frameswap.errors import UnreadableFile
from frameswap.options import SwapOptions
from frameswap.output_file import check_output
from frameswap.photo import (
    Photo,
    check_photo_output,
    describe_losses,
    is_photo,
    open_photo,
    read_photo,
)
from frameswap.progress import Progress, format_duration
from frameswap.read_options import CORRUPT_MODES, DECODERS, HDR_MODES, ReadOptions
from frameswap.sources import Source
from frameswap.swap_job import Tally, encode_sources, swap_photo, swap_video
from frameswap.swapper import DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, FaceSwapper
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
ORDERS: Final = {order.name.lower().replace("_", "-"): order for order in FaceOrder}


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
    files.add_argument("--force", action="store_true", help="overwrite the output if it exists")
    _add_faces(parser)
    _add_encoding(parser)
    _add_reading(parser)
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


def _add_encoding(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("encoding")
    group.add_argument(
        "--codec",
        choices=CODECS,
        metavar="NAME",
        help=f"of a video: {', '.join(CODECS)} (default: what the file usually holds); "
        "`frameswap codecs` says which work here",
    )
    group.add_argument(
        "--quality",
        "--crf",
        type=WholeNumber(0, 100),
        metavar="N",
        help="in the codec's own terms (default: 18 for x264, the input's for a JPEG photo)",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="the codec's speed, in its own terms (default: veryfast for x264)",
    )
    group.add_argument(
        "--audio",
        choices=AUDIO_MODES,
        default="auto",
        help="copy what the file can hold and make the rest anew, insist on copying, make all of "
        "it anew, or leave it out",
    )


def _add_reading(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("reading of a video")
    group.add_argument(
        "--from", dest="start", type=time_of, metavar="TIME",
        help="where the part begins that is swapped and written: seconds, MM:SS or HH:MM:SS",
    )  # fmt: skip
    group.add_argument("--to", dest="end", type=time_of, metavar="TIME", help="where it ends")
    group.add_argument(
        "--rate",
        type=frame_rate,
        default=ReadOptions().rate,
        metavar="N[/D]",
        help="frames a second of numbered pictures (frame_%%04d.png)",
    )
    group.add_argument(
        "--hdr", choices=HDR_MODES, default="refuse", help="refuse HDR video, or map it to SDR"
    )
    group.add_argument(
        "--corrupt",
        choices=CORRUPT_MODES,
        default="keep",
        help="go on with frames that are damaged and count them, or end the job at the first",
    )
    group.add_argument(
        "--decoder",
        choices=DECODERS,
        default="auto",
        help="decode on the CPU, or insist on an NVIDIA GPU's decoder",
    )


def _read_options(arguments: Namespace) -> ReadOptions:
    return ReadOptions(
        hdr=arguments.hdr,
        corrupt=arguments.corrupt,
        decoder=arguments.decoder,
        start_s=arguments.start,
        end_s=arguments.end,
        rate=arguments.rate,
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
    check_output(arguments.output, force=arguments.force)
    photos = [(path, read_photo(path)) for path in arguments.source]
    if not arguments.target.exists():
        raise UnreadableFile(f"there is no file {arguments.target}")
    if is_photo(arguments.target):
        check_photo_output(arguments.output)
        photo = open_photo(arguments.target)
        _tell(describe_losses(photo, arguments.output))
        return _run_photo(arguments, photos, photo)
    check_video_output(arguments.output)
    with VideoReader(arguments.target) as reader:
        return _run_video(arguments, photos, reader)


def _run_photo(
    arguments: Namespace,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
    photo: Photo,
) -> int:
    image = photo.image
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, "bgr", (image.shape[1], image.shape[0]))
        sources = _sources(arguments, swapper, photos)
        progress = Progress(1, sys.stderr)
        tally = swap_photo(
            swapper, photo, sources, _options(arguments), arguments.output, force=arguments.force
        )
        _summarise(arguments.output, tally, progress.elapsed_s)
    return 0


def _run_video(
    arguments: Namespace,
    photos: Sequence[tuple[Path, NDArray[np.uint8]]],
    reader: VideoReader,
) -> int:
    with ExitStack() as stack:
        swapper = _connect(arguments, stack, "i420", (reader.width, reader.height))
        sources = _sources(arguments, swapper, photos)
        options = replace(
            _options(arguments),
            color_matrix=reader.tags.color_matrix,
            color_range=reader.tags.color_range,
            chroma_location=reader.chroma_location,
        )
        progress = Progress(reader.frame_count, sys.stderr)
        stack.callback(progress.clear)
        tally = swap_video(
            swapper,
            reader,
            sources,
            options,
            arguments.output,
            force=arguments.force,
            encoding=_encoding(arguments),
            audio=arguments.audio,
            on_notes=_tell,
            on_frame=progress.update,
        )
        progress.clear()
        _summarise(arguments.output, tally, progress.elapsed_s)
    return 0


def _connect(
    arguments: Namespace, stack: ExitStack, pixel: FrameFormat, frame_size: tuple[int, int]
) -> FaceSwapper:
    address = arguments.server
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


def _encoding(arguments: Namespace) -> Encoding:
    return Encoding(arguments.codec, arguments.quality, arguments.preset)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"frameswap: {note}", file=sys.stderr, flush=True)


def _summarise(output: Path, tally: Tally, elapsed_s: float) -> None:
    rate = tally.frames / elapsed_s if elapsed_s > 0 else 0.0
    print(
        f"{output}: {_count(tally.frames, 'frame')} in {format_duration(elapsed_s)} "
        f"({rate:.1f} frames/s), {_count(tally.faces, 'face')} found, "
        f"{_count(tally.frames_without_face, 'frame')} without a face"
    )
    if tally.faces == 0:
        _tell(["no face was found: the output shows what the input shows"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
