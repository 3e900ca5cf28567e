"""Opening what a video is read from: a file, numbered pictures, a pipe, an animated picture."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import ExitStack
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
from av.codec.hwaccel import HWAccel

from frameswap.addresses import Target, Url
from frameswap.animated_webp import write_as_video
from frameswap.errors import UnreadableFile
from frameswap.file_kinds import is_sequence, is_standard
from frameswap.input_file import check_file
from frameswap.photo_metadata import is_animated
from frameswap.read_options import ReadOptions

__all__ = ["choose_decoder", "choose_stream", "open_video", "stated_rate"]

_OPEN_OPTIONS: Final[dict[str, Any]] = (
    # Up to version 18 a title that is not UTF-8 is an exception unless this is said; since 19
    # PyAV reads it anyway and the argument is gone.
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


_BARE_FORMATS: Final = ("h264", "hevc", "mpegvideo", "m4v", "obu")
_PLAYLISTS: Final = frozenset({"concat", "dash", "hls", "imf"})
_FORMATS_OF_OTHER_FILES: Final = _PLAYLISTS | {
    "image2", "rtp", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest",
}  # fmt: skip
"""Scripts and playlists, told by their content: under any name they make FFmpeg open other files
and addresses."""
_OVER_NETWORK: Final = "http,https,httpproxy,tcp,tls,crypto,data"
"""FFmpeg's protocols that a fetched file, where it leads elsewhere, may lead to: never `file`."""
_FILE: Final = "file:"
_PATIENCE_S: Final = 30.0
"""How long an address may take to answer, each time."""

MOST_PIXELS: Final = 1 << 26
"""Of a video's frame: 8192 x 8192, and a few kB can claim any size."""


@cache
def _read_formats(playlists: bool = False) -> str:
    """FFmpeg's list of formats that may be read: those that read the file which was named."""
    closed = _FORMATS_OF_OTHER_FILES - (_PLAYLISTS if playlists else frozenset())
    return ",".join(sorted(name for name in av.formats_available if name not in closed))


def open_video(path: Target, options: ReadOptions, stack: ExitStack) -> Any:
    """Open a container; the stack closes it, and removes what was made for it.

    Raises:
        UnreadableFile: missing, empty, damaged, of an unknown format, an address that does not
            answer.
    """
    more = dict(_OPEN_OPTIONS)
    if options.decoder == "cuda":
        more["hwaccel"] = HWAccel("cuda", allow_software_fallback=False)
    try:
        settings = {"format_whitelist": _read_formats(options.playlists)}
        if isinstance(path, Url):
            return _open_address(path, settings, more, stack)
        if is_standard(path):
            return stack.enter_context(av.open(sys.stdin.buffer, options=settings, **more))
        if is_sequence(path):
            first = _first_number(path)
            settings = {"framerate": str(options.rate), "start_number": str(first)}
            return stack.enter_context(
                av.open(f"file:{path}", format="image2", options=settings, **more)
            )
        check_file(path, "video")
        # The protocol is named: `concat:x.mp4` is a file's name here, and nothing else.
        name = f"{_FILE}{_readable(path, stack)}"
        # While FFmpeg looks what there is, it decodes.
        settings["max_pixels"] = str(MOST_PIXELS)
        if options.playlists:
            settings["protocol_whitelist"] = f"file,{_OVER_NETWORK}"
        return stack.enter_context(av.open(name, options=settings, **more))
    except PermissionError as error:
        if options.decoder == "cuda" and isinstance(error, av.error.FFmpegError):
            # What the driver's absence is to FFmpeg; the file itself was read before.
            raise _no_gpu_decoder(path, error) from error
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
    except av.error.ArgumentError as error:
        raise UnreadableFile(
            f"{path} is damaged, or a playlist or script that names other files, which are not "
            f"opened: join them to one file first, with ffmpeg, or allow it with --open-playlists"
        ) from error
    except av.error.FFmpegError as error:
        raise UnreadableFile(
            f"{path} is no video that FFmpeg reads, or is damaged or cut off ({error.strerror})"
        ) from error
    except (RuntimeError, NotImplementedError) as error:
        # What PyAV raises where there is no such device.
        raise _no_gpu_decoder(path, error) from error


def _open_address(
    url: Url, settings: dict[str, str], more: dict[str, Any], stack: ExitStack
) -> Any:
    url.check()
    # Without `multiple_requests` FFmpeg asks that a connection be closed, and yet uses it again
    # where the server did not say that it closes it: streams are described wrongly then.
    given = {
        **settings, "protocol_whitelist": _OVER_NETWORK, "reconnect": "1", "multiple_requests": "1",
    }  # fmt: skip
    try:
        container: Any = av.open(url.text, options=given, timeout=_PATIENCE_S, **more)
    except (av.error.ArgumentError, av.error.InvalidDataError):
        raise
    except av.error.FFmpegError as error:
        late = isinstance(error, av.error.ExitError)
        reason = f"no answer for {_PATIENCE_S:g} s" if late else error.strerror
        raise UnreadableFile(f"{url} cannot be fetched ({reason}): download it first") from error
    stack.enter_context(container)
    if container.format.name.endswith("_pipe"):
        raise UnreadableFile(f"{url} is a picture: download it, and give its file")
    return container


def _no_gpu_decoder(path: Target, error: Exception) -> UnreadableFile:
    reason = error.strerror if isinstance(error, OSError) else error
    return UnreadableFile(
        f"{path} cannot be decoded on an NVIDIA GPU here ({reason}): leave --decoder cuda out"
    )


def choose_stream(container: Any, path: Target) -> Any:
    """The first video stream that is no cover picture.

    Raises:
        UnreadableFile: there is none, or its frames are too large.
    """
    pictures = [
        stream
        for stream in container.streams.video
        # A cover picture is a video stream of one frame.
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not pictures:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise UnreadableFile(f"{path} has no video stream (it has {', '.join(kinds)})")
    # An animated AVIF begins with a still picture, which stands for the rest.
    still = pictures[0].frames == 1 and pictures[0].duration is None
    chosen = next((stream for stream in pictures if stream.frames != 1), pictures[0])
    chosen = chosen if still else pictures[0]
    if chosen.codec_context is None:
        raise UnreadableFile(f"{path} has video of a codec that FFmpeg does not know")
    width, height = _stated_size(container, chosen)
    if width * height > MOST_PIXELS:
        raise UnreadableFile(
            f"{path} says that its frames have {width} x {height} pixels, and frames of up to "
            f"{MOST_PIXELS / 1e6:.0f} million are read: scale it down"
        )
    codec = chosen.codec_context
    codec.options = {"max_pixels": str(MOST_PIXELS)}
    return chosen


def _stated_size(container: Any, stream: Any) -> tuple[int, int]:
    """Width and height of a stream's frames, pixels; 0 where nothing says so."""
    codec = stream.codec_context
    if codec.width * codec.height or not container.name.startswith(_FILE):
        return codec.width, codec.height
    # FFmpeg forgets a size that it refuses to decode: without any decoder it is the container's.
    settings = {"format_whitelist": _read_formats(), "codec_whitelist": "none"}
    try:
        with av.open(container.name, options=settings, **_OPEN_OPTIONS) as looked:
            stated: Any = looked.streams[stream.index].codec_context
            return (0, 0) if stated is None else (stated.width, stated.height)
    except av.error.FFmpegError:
        return 0, 0  # a playlist, which is not opened without leave; its decoder refuses


def stated_rate(container: Any, stream: Any) -> Fraction | None:
    """Frames a second, as well as a container knows them; None when it does not."""
    rates = [stream.average_rate, stream.guessed_rate]
    # A bare stream has no times, and FFmpeg counts 25 a second; what it says itself is right.
    if container.format.name in _BARE_FORMATS:
        rates.reverse()
    known = [rate for rate in rates if rate]
    return Fraction(known[0].numerator, known[0].denominator) if known else None


def choose_decoder(stream: Any) -> Any:
    """The stream's own; for VP8 and VP9 with alpha libvpx's, as FFmpeg's leaves alpha out."""
    codec = stream.codec_context
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    if tags.get("alpha_mode") != "1" or codec.name not in ("vp8", "vp9"):
        return codec
    decoder = av.CodecContext.create(f"libvpx{'-vp9' if codec.name == 'vp9' else ''}", "r")
    decoder.thread_type = "AUTO"
    return decoder


def _readable(path: Path, stack: ExitStack) -> Path:
    """The file itself, or one made of an animated WebP, which FFmpeg does not read."""
    with path.open("rb") as file:
        if is_animated(file.read(64)) != "WebP":
            return path
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="frameswap-"))
    made = Path(folder) / "animation.mkv"
    write_as_video(path, made)
    return made


def _first_number(path: Path) -> int:
    """The lowest number of the pictures that a pattern names."""
    before, after = re.split(r"%0?\d*d", path.name, maxsplit=1)
    named = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError as error:
        raise UnreadableFile(f"{path.parent} cannot be read: {error.strerror}") from error
    numbers = [int(found[1]) for name in names if (found := named.fullmatch(name))]
    if not numbers:
        raise UnreadableFile(f"there is no picture whose name {path.name} stands for")
    return min(numbers)
