"""A video's colour tags, and what they mean for the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from frameswap.contract import ChromaLocation, ColorMatrix, ColorRange

__all__ = ["FULL_RANGE", "HDR_TRANSFERS", "ColorTags", "is_rgb", "read_tags"]

_MATRICES: Final = {
    # AVColorSpace (libavutil/pixfmt.h) -> the contract's. FCC's coefficients are BT.601's but for
    # the third digit, SMPTE 240M's are nearest BT.709's.
    1: ColorMatrix.BT709,
    2: ColorMatrix.AUTO,
    4: ColorMatrix.BT601,
    5: ColorMatrix.BT601,
    6: ColorMatrix.BT601,
    7: ColorMatrix.BT709,
    9: ColorMatrix.BT2020,
    10: ColorMatrix.BT2020,
}
_RGB_SPACE: Final = 0
FULL_RANGE: Final = 2
HDR_TRANSFERS: Final = {16: "PQ (HDR10)", 18: "HLG"}
"""AVColorTransferCharacteristic: 8-bit 4:2:0 cannot carry these without visible banding."""
_CHROMA_LOCATIONS: Final = {
    1: ChromaLocation.LEFT,
    2: ChromaLocation.CENTER,
    3: ChromaLocation.TOP_LEFT,
}


@dataclass(frozen=True)
class ColorTags:
    """A stream's colour tags, as FFmpeg's codes (ITU-T H.273); 2 is "unspecified"."""

    matrix: int
    range: int
    primaries: int
    transfer: int
    chroma: int

    @property
    def color_matrix(self) -> ColorMatrix:
        return _MATRICES.get(self.matrix, ColorMatrix.AUTO)

    @property
    def color_range(self) -> ColorRange:
        return ColorRange.FULL if self.range == FULL_RANGE else ColorRange.LIMITED

    @property
    def chroma_location(self) -> ChromaLocation:
        return _CHROMA_LOCATIONS.get(self.chroma, ChromaLocation.LEFT)


def read_tags(frame: Any, codec: str) -> ColorTags:
    """Read a decoded frame's tags, or what they will be once it is 8-bit 4:2:0.

    Args:
        codec: the decoder's name.
    """
    tags = ColorTags(
        matrix=int(frame.colorspace),
        range=int(frame.color_range),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        # PyAV 18 does not tell; MPEG's left is then the rule, and JPEG's centre for JPEG.
        chroma=int(getattr(frame, "chroma_location", 0)),
    )
    is_full = tags.range == FULL_RANGE or frame.format.name.startswith("yuvj")
    is_jpeg = codec == "mjpeg"
    return ColorTags(
        # RGB becomes YUV by BT.709's matrix from 720 rows up, BT.601's below.
        matrix=(1 if frame.height >= 720 else 6) if is_rgb(frame) else tags.matrix,
        range=1 if is_rgb(frame) else FULL_RANGE if is_full else tags.range,
        primaries=tags.primaries,
        transfer=tags.transfer,
        chroma=tags.chroma or (2 if is_jpeg else 0),
    )


def is_rgb(frame: Any) -> bool:
    """Whether a decoded frame is of RGB colours and becomes YUV here."""
    # A palette has no components of its own, and is of RGB colours.
    return bool(frame.format.is_rgb or frame.format.has_palette) or (
        frame.colorspace == _RGB_SPACE and frame.format.name.startswith("gbr")
    )
