"""The video encoders by the names that people use, and which file each goes into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frameswap.errors import BadOptions, UnwritableFile
from frameswap.file_kinds import is_sequence, is_standard

__all__ = [
    "CODECS",
    "ENCODERS",
    "VIDEO_SUFFIXES",
    "Encoder",
    "Encoding",
    "check_options",
    "check_video_output",
    "choose_encoder",
    "encoder_options",
    "file_suffix",
]

_MPEG: Final = (".mp4", ".m4v", ".mov", ".mkv")
_X26X_PRESETS: Final = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
_NVENC_PRESETS: Final = tuple(f"p{number}" for number in range(1, 8))


@dataclass(frozen=True)
class Encoder:
    """One encoder of FFmpeg.

    library: FFmpeg's name. suffixes: the files that it goes into, its usual one first.
    pixel_format: what it is given; alpha_format: the same with transparency, None when it has none.
    quality_option: FFmpeg's name of the quality; qualities: its range, both ends included, the
    best first. preset_option, presets: the same of its speed.
    odd_sizes: whether it takes an odd width or height.
    """

    library: str
    suffixes: tuple[str, ...]
    pixel_format: str = "yuv420p"
    alpha_format: str | None = None
    quality_option: str | None = None
    qualities: tuple[int, int] = (0, 0)
    quality: int = 0
    preset_option: str | None = None
    presets: tuple[str, ...] = ()
    preset: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    alpha_options: Mapping[str, str] = field(default_factory=dict)
    odd_sizes: bool = False


def _x26x(library: str, suffixes: tuple[str, ...], quality: int, options: Mapping[str, str]) -> (
    Encoder
):  # fmt: skip
    return Encoder(
        library, suffixes, quality_option="crf", qualities=(0, 51), quality=quality,
        preset_option="preset", presets=_X26X_PRESETS, preset="veryfast", options=options,
    )  # fmt: skip


def _nvenc(library: str, suffixes: tuple[str, ...], qualities: tuple[int, int], quality: int) -> (
    Encoder
):  # fmt: skip
    return Encoder(
        library, suffixes, quality_option="cq", qualities=qualities, quality=quality,
        preset_option="preset", presets=_NVENC_PRESETS, preset="p4", options={"rc": "vbr"},
    )  # fmt: skip


ENCODERS: Final[Mapping[str, Encoder]] = {
    "x264": _x26x("libx264", (*_MPEG, ".ts", ".avi"), 18, {}),
    "x265": _x26x("libx265", (*_MPEG, ".ts"), 20, {"x265-params": "log-level=error"}),
    "vp9": Encoder(
        "libvpx-vp9", (".webm", ".mkv", ".mp4"), alpha_format="yuva420p", quality_option="crf",
        qualities=(0, 63), quality=24, preset_option="cpu-used",
        presets=tuple(str(speed) for speed in range(9)), preset="4",
        options={"b": "0", "row-mt": "1", "deadline": "good"},
        # libvpx cannot look ahead in two streams at once.
        alpha_options={"auto-alt-ref": "0"}, odd_sizes=True,
    ),
    "av1": Encoder(
        "libsvtav1", (".mkv", ".mp4", ".webm"), quality_option="crf", qualities=(1, 63), quality=28,
        preset_option="preset", presets=tuple(str(speed) for speed in range(14)), preset="8",
        odd_sizes=True,
    ),
    "ffv1": Encoder(
        "ffv1", (".mkv", ".avi"), alpha_format="yuva420p", options={"level": "3", "slicecrc": "1"},
        odd_sizes=True,
    ),
    "prores": Encoder(
        "prores_ks", (".mov", ".mkv"), "yuv422p10le", "yuva444p10le", preset_option="profile",
        presets=("proxy", "lt", "standard", "hq"), preset="hq", options={"vendor": "apl0"},
        alpha_options={"profile": "4444"}, odd_sizes=True,
    ),
    "gif": Encoder("gif", (".gif",), "pal8", "pal8", odd_sizes=True),
    "webp": Encoder(
        "libwebp_anim", (".webp",), "bgra", "bgra", quality_option="quality", qualities=(100, 1),
        quality=90, odd_sizes=True,
    ),
    "png": Encoder("png", (".png",), "rgb24", "rgba", odd_sizes=True),
    "mjpeg": Encoder(
        "mjpeg", (".jpg", ".jpeg"), "yuvj420p", quality_option="qmin", qualities=(1, 31), quality=2,
        odd_sizes=True,
    ),
    "y4m": Encoder("wrapped_avframe", (".y4m",), odd_sizes=True),
    "h264_nvenc": _nvenc("h264_nvenc", (*_MPEG, ".ts"), (1, 51), 19),
    "hevc_nvenc": _nvenc("hevc_nvenc", (*_MPEG, ".ts"), (1, 51), 21),
    "av1_nvenc": _nvenc("av1_nvenc", (".mkv", ".mp4"), (1, 51), 26),
}  # fmt: skip
"""By the name that `--codec` takes; the first one with a suffix is that file's usual."""
CODECS: Final = tuple(ENCODERS)
_SEQUENCE_SUFFIXES: Final = (".png", ".jpg", ".jpeg")
VIDEO_SUFFIXES: Final = tuple(
    dict.fromkeys(
        suffix
        for encoder in ENCODERS.values()
        for suffix in encoder.suffixes
        if suffix not in _SEQUENCE_SUFFIXES
    )
)
"""The files that hold a video; those of a numbered sequence of pictures are not among them."""


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded.

    codec: of ENCODERS; None is what the file usually holds. quality, preset: in that encoder's own
    terms; None is its usual.
    """

    codec: str | None = None
    quality: int | None = None
    preset: str | None = None


def file_suffix(path: Path) -> str:
    """The suffix that says what a file holds, in lower case; standard output holds Matroska."""
    return ".mkv" if is_standard(path) else path.suffix.lower()


def check_video_output(path: Path, encoding: Encoding | None = None) -> None:
    """Raise UnwritableFile, or BadOptions, unless such a file can be written so."""
    choose_encoder(path, encoding or Encoding())


def choose_encoder(path: Path, encoding: Encoding) -> tuple[str, Encoder]:
    """The encoder for a file, by its name; its options checked.

    Raises:
        UnwritableFile: a file that we do not write, or that does not hold what the codec makes.
        BadOptions: a codec, quality or preset that there is not.
    """
    suffix = file_suffix(path)
    sequence = is_sequence(path)
    if sequence and suffix not in _SEQUENCE_SUFFIXES:
        raise UnwritableFile(
            f"numbered pictures are written as {', '.join(_SEQUENCE_SUFFIXES)}, not {path.name!r}"
        )
    if not sequence and suffix not in VIDEO_SUFFIXES:
        raise UnwritableFile(
            f"a video is written as {', '.join(VIDEO_SUFFIXES)}, as numbered pictures "
            f"(frame_%04d.png), or to standard output (-), not {path.suffix or path.name!r}"
        )
    fitting = [name for name, encoder in ENCODERS.items() if suffix in encoder.suffixes]
    # Standard output in y4m is asked for by the codec's name.
    if is_standard(path):
        fitting.append("y4m")
    name = encoding.codec or fitting[0]
    if name not in ENCODERS:
        raise BadOptions(f"there is no codec {name!r}: choose from {', '.join(CODECS)}")
    encoder = ENCODERS[name]
    if name not in fitting:
        raise UnwritableFile(
            f"{suffix} does not hold {name}: write to {', '.join(encoder.suffixes)}, or choose "
            f"from {', '.join(fitting)}"
        )
    check_options(name, encoding)
    return name, encoder


def check_options(name: str, encoding: Encoding) -> None:
    """Raise BadOptions for a quality or preset that an encoder of ENCODERS has not."""
    encoder = ENCODERS[name]
    least, most = sorted(encoder.qualities)
    if encoding.quality is not None and (
        encoder.quality_option is None or not least <= encoding.quality <= most
    ):
        rule = (
            f"of {name} is {encoder.qualities[0]} (best) to {encoder.qualities[1]}"
            if encoder.quality_option
            else f"is nothing that {name} has"
        )
        raise BadOptions(f"quality {rule}, not {encoding.quality}")
    if encoding.preset is not None and encoding.preset not in encoder.presets:
        rule = (
            f"of {name} is one of {', '.join(encoder.presets)}"
            if encoder.presets
            else f"is nothing that {name} has"
        )
        raise BadOptions(f"preset {rule}, not {encoding.preset!r}")


def encoder_options(encoder: Encoder, encoding: Encoding, *, alpha: bool) -> dict[str, str]:
    """FFmpeg's options for an encoder."""
    options = dict(encoder.options)
    if encoder.quality_option:
        quality = encoder.quality if encoding.quality is None else encoding.quality
        options[encoder.quality_option] = str(quality)
    if encoder.preset_option:
        options[encoder.preset_option] = encoding.preset or encoder.preset
    if encoder.library == "mjpeg":
        options["qmax"] = options["qmin"]
    return {**options, **encoder.alpha_options} if alpha else options
