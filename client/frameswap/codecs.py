"""Which encoders and decoders this machine has: tried, not read from a list of names."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from frameswap.encoders import ENCODERS, Encoder, Encoding, encoder_options
from frameswap.picture_graph import PictureGraph, conversion

__all__ = ["CodecTrial", "try_decoders", "try_encoders"]

_WIDTH: Final = 256
_HEIGHT: Final = 144
"""Above the smallest size of NVENC, 145 x 49 for HEVC."""
_FRAMES: Final = 5
_DECODED: Final = ("libx264", "libx265", "libsvtav1", "libvpx-vp9")


@dataclass(frozen=True)
class CodecTrial:
    """What came of trying a codec; reason: why it does not work, None where it does."""

    name: str
    reason: str | None

    @property
    def works(self) -> bool:
        return self.reason is None


def try_encoders() -> list[CodecTrial]:
    """Encode a few small frames with every encoder that `--codec` names."""
    trials = []
    for name, encoder in ENCODERS.items():
        try:
            packets = _encode(encoder)
            reason = None if packets else "it gave nothing back"
        except (av.error.FFmpegError, ValueError, OSError, RuntimeError) as error:
            reason = _reason(error)
        trials.append(CodecTrial(name, reason))
    return trials


def try_decoders() -> list[CodecTrial]:
    """Decode a few small frames on the CPU and on an NVIDIA GPU, by the kind of video."""
    trials = []
    for library in _DECODED:
        for device in ("auto", "cuda"):
            try:
                name, reason = _decode(library, device)
            except (
                av.error.FFmpegError, ValueError, OSError, RuntimeError, NotImplementedError
            ) as error:  # fmt: skip
                name, reason = library, _reason(error)
            trials.append(CodecTrial(f"{_KINDS[library]} ({device}: {name})", reason))
    return trials


_KINDS: Final = {
    "libx264": "H.264", "libx265": "HEVC", "libsvtav1": "AV1", "libvpx-vp9": "VP9",
}  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        return str(error.strerror)
    return str(error)


def _picture(index: int) -> Any:
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    luma = ((rows + columns + index * 7) % 220 + 16).astype(np.uint8)
    chroma = np.full((_HEIGHT // 2, _WIDTH), 128, np.uint8)
    picture = av.VideoFrame.from_ndarray(np.vstack([luma, chroma]), format="yuv420p")
    picture.pts, picture.time_base = index, Fraction(1, 25)
    return picture


def _encode(encoder: Encoder) -> list[Any]:
    context: Any = av.CodecContext.create(encoder.library, "w")
    context.width, context.height = _WIDTH, _HEIGHT
    context.pix_fmt, context.time_base = encoder.pixel_format, Fraction(1, 25)
    context.framerate = Fraction(25)
    context.options = encoder_options(encoder, Encoding(), alpha=False)
    graph = None
    if encoder.pixel_format == "pal8":
        graph = PictureGraph([*conversion(6, False, "bgra"), ("palette", "")])
    packets: list[Any] = []
    for index in range(_FRAMES):
        picture = _picture(index)
        packets += context.encode(graph.convert(picture) if graph else picture)
    packets += context.encode(None)
    return packets


def _decode(library: str, device: str) -> tuple[str, str | None]:
    """Returns the decoder's name, and why it does not work."""
    encoder = next(row for row in ENCODERS.values() if row.library == library)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(library, rate=25)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.options = encoder_options(encoder, Encoding(), alpha=False)
        for index in range(_FRAMES):
            container.mux(stream.encode(_picture(index)))
        container.mux(stream.encode(None))
    file.seek(0)
    gpu = HWAccel("cuda", allow_software_fallback=False) if device == "cuda" else None
    readable: Any = av.open(file, hwaccel=gpu)
    with readable:
        video = readable.streams.video[0]
        count = sum(1 for _ in readable.decode(video))
        name = str(video.codec_context.name)
    return name, None if count == _FRAMES else f"{count} of {_FRAMES} frames came back"
