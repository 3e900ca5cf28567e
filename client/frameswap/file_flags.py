"""The flags of `frameswap swap` that say which files, which part, and how they are coded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from frameswap.addresses import as_target
from frameswap.arguments import WholeNumber, frame_rate, time_of
from frameswap.encoders import CODECS, Encoding
from frameswap.errors import BadOptions
from frameswap.file_tasks import FolderPlan, is_folder_job, plan_folder
from frameswap.read_options import CORRUPT_MODES, DECODERS, HDR_MODES, ReadOptions
from frameswap.video_writer import AUDIO_MODES

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = [
    "add_encoding_flags",
    "add_file_flags",
    "add_reading_flags",
    "encoding",
    "folder_plan",
    "read_options",
    "report_path",
]


def add_file_flags(parser: ArgumentParser) -> None:
    """Add the group "files"."""
    group = parser.add_argument_group("files")
    group.add_argument(
        "--source",
        type=Path,
        action="append",
        metavar="PHOTO",
        help="whose face; several photos of one person are averaged (identity swappers only)",
    )
    group.add_argument(
        "--target",
        type=as_target,
        action="extend",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the video or photo to change; several, or a folder, whose results go into the folder "
        "--output; numbered pictures, as frame_%%04d.png; http:// or https://; - is standard input",
    )
    group.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the result goes; its suffix says as what; - is standard output, Matroska or "
        "with --codec y4m",
    )
    group.add_argument(
        "--at",
        type=time_of,
        metavar="TIME",
        help="swap the one frame of the video that is shown then, SECONDS or HH:MM:SS, and write a "
        "photo: a quick look before the job",
    )
    group.add_argument("--force", action="store_true", help="overwrite the output if it exists")


def add_encoding_flags(parser: ArgumentParser) -> None:
    """Add the group "encoding"."""
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


def add_reading_flags(parser: ArgumentParser) -> None:
    """Add the group "reading of a video"."""
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
        "--open-playlists",
        action="store_true",
        help="let a playlist or script (HLS, DASH, ffconcat) open the files or addresses that it "
        "names",
    )
    group.add_argument(
        "--decoder",
        choices=DECODERS,
        default="auto",
        help="decode on the CPU, or insist on an NVIDIA GPU's decoder",
    )


def read_options(arguments: Namespace) -> ReadOptions:
    """How videos are read, by the flags of `add_reading_flags`."""
    return ReadOptions(
        hdr=arguments.hdr,
        corrupt=arguments.corrupt,
        decoder=arguments.decoder,
        start_s=arguments.start,
        end_s=arguments.end,
        rate=arguments.rate,
        playlists=arguments.open_playlists,
    )


def encoding(arguments: Namespace) -> Encoding:
    """How a video is encoded, by the flags of `add_encoding_flags`."""
    return Encoding(arguments.codec, arguments.quality, arguments.preset)


def folder_plan(arguments: Namespace) -> FolderPlan | None:
    """What is to be done with many files; None for one.

    Raises:
        BadOptions: flags that contradict each other.
        UnreadableFile, UnwritableFile: as `plan_folder`.
    """
    if not is_folder_job(arguments.target, arguments.output):
        return None
    if arguments.report is not None and arguments.report.is_file():
        raise BadOptions(
            f"the reports of several files go into a folder, and {arguments.report} is a file"
        )
    return plan_folder(arguments.target, arguments.output)


def report_path(arguments: Namespace, output: Path) -> Path | None:
    """Where the report of an output goes: one of several has its own, in a folder of them."""
    report: Path | None = arguments.report
    if report is None or not is_folder_job(arguments.target, arguments.output):
        return report
    place = output.relative_to(arguments.output)
    return report / place.with_name(f"{place.name}.jsonl")
