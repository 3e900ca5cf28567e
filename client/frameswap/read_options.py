"""How a video is read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from frameswap.errors import BadOptions

__all__ = [
    "CORRUPT_MODES",
    "DECODERS",
    "HDR_MODES",
    "CorruptMode",
    "Decoder",
    "HdrMode",
    "ReadOptions",
]

HdrMode = Literal["refuse", "tonemap"]
CorruptMode = Literal["keep", "refuse"]
Decoder = Literal["auto", "cuda"]
HDR_MODES: Final[tuple[HdrMode, ...]] = ("refuse", "tonemap")
CORRUPT_MODES: Final[tuple[CorruptMode, ...]] = ("keep", "refuse")
DECODERS: Final[tuple[Decoder, ...]] = ("auto", "cuda")


@dataclass(frozen=True)
class ReadOptions:
    """How a video is read.

    hdr: "refuse" raises for HDR video, "tonemap" maps it to SDR.
    corrupt: "keep" goes on with damaged frames as the decoder shows them, "refuse" raises.
    decoder: "auto" decodes on the CPU, "cuda" with an NVIDIA GPU's own decoder.
    start_s, end_s: the part that is read, [start, end) seconds; None is the file's own end.
    rate: frames a second of numbered pictures.
    playlists: whether a playlist or script may open what it names: files and addresses where it is
        a file, addresses where it was fetched.

    Raises:
        BadOptions: a part without a length, a rate that is none.
    """

    hdr: HdrMode = "refuse"
    corrupt: CorruptMode = "keep"
    decoder: Decoder = "auto"
    start_s: Fraction | None = None
    end_s: Fraction | None = None
    rate: Fraction = Fraction(25)
    playlists: bool = False

    def __post_init__(self) -> None:
        for name, known in (("hdr", HDR_MODES), ("corrupt", CORRUPT_MODES), ("decoder", DECODERS)):
            if getattr(self, name) not in known:
                raise BadOptions(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        if self.rate <= 0:
            raise BadOptions(f"a rate is above 0 frames a second, not {self.rate}")
        if (self.start_s or 0) < 0:
            raise BadOptions(f"a part begins at 0 s or later, not at {float(self.start_s or 0):g}")
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise BadOptions(
                f"a part ends after its beginning, not at {float(self.end_s):g} s when it begins "
                f"at {float(self.start_s or 0):g} s"
            )
