"""A stream's colours, and its frames brought to 8-bit 4:2:0."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.addresses import Target
from frameswap.color_tags import FULL_RANGE, HDR_TRANSFERS, ColorTags, is_rgb, read_tags
from frameswap.errors import UnreadableFile
from frameswap.read_options import HdrMode
from frameswap.tone_mapping import ToneMapper
from frameswap.video_frame import picture_planes

__all__ = ["FrameColors"]

_NATIVE_FORMATS: Final = ("yuv420p", "yuvj420p")
_SDR_TAGS: Final = ColorTags(matrix=1, range=1, primaries=1, transfer=1, chroma=1)


class FrameColors:
    """What the colours of a stream are, by its first frame, and what its frames become.

    Args:
        frame: the first decoded frame.
        codec: the decoder's name.
        stack: closes what is opened here.

    Attributes:
        tags: of the frames as they are handed out.
        has_alpha: whether they have a fourth plane of transparency.
        notes: sentences about what is not kept.

    Raises:
        UnreadableFile: HDR, and it is not to be mapped.
    """

    def __init__(
        self, frame: Any, *, codec: str, path: Target, hdr: HdrMode, stack: ExitStack
    ) -> None:
        self.notes: list[str] = []
        self.tags = read_tags(frame, codec)
        self._mapper: ToneMapper | None = None
        if self.tags.transfer in HDR_TRANSFERS:
            kind = HDR_TRANSFERS[self.tags.transfer]
            if hdr == "refuse":
                raise UnreadableFile(
                    f"{path} is HDR, {kind}: only SDR video is swapped; have it mapped to SDR with "
                    f"--hdr tonemap"
                )
            mapper = ToneMapper(self.tags.transfer, full_range=self.tags.range == FULL_RANGE)
            self._mapper = stack.enter_context(mapper)
            self.tags = _SDR_TAGS
            self.notes.append(f"{kind} video is mapped to SDR (BT.709) of 8 bits")
        components = frame.format.components
        self.has_alpha = self._mapper is None and any(part.is_alpha for part in components)
        self._format = self._choose_format(frame)
        # GIF's pictures come with alpha whether they use it or not.
        self.shows_alpha = self.has_alpha and bool((self.planes(frame)[3] < 255).any())

    def _choose_format(self, frame: Any) -> str:
        """The pixel format that frames are brought to: their own, when it is 8-bit 4:2:0."""
        name = frame.format.name
        if self._mapper is not None or name in _NATIVE_FORMATS:
            return "yuv420p" if self._mapper is not None else str(name)
        if name == "yuva420p":
            return str(name)
        bits = max((component.bits for component in frame.format.components), default=8)
        if bits > 8:
            self.notes.append(f"{bits}-bit video ({name}) is swapped and written with 8 bits")
        elif name not in ("nv12", "nv21"):
            self.notes.append(f"{name} video is swapped and written as 4:2:0")
        if self.has_alpha:
            return "yuva420p"
        # The "j" keeps swscale from squeezing full range to limited.
        return "yuvj420p" if self.tags.range == FULL_RANGE else "yuv420p"

    def planes(self, frame: Any) -> list[NDArray[np.uint8]]:
        """Y, U, V and, where the stream has it, alpha; views of the decoder's buffers."""
        if self._mapper is not None:
            return picture_planes(self._mapper.convert(frame))
        name = frame.format.name
        # The same bytes: only the range tag changed in mid-stream.
        same = name in _NATIVE_FORMATS and self._format in _NATIVE_FORMATS
        if name != self._format and not same:
            kwargs: dict[str, Any] = {}
            if is_rgb(frame):
                # Without a word on it, pictures tagged as full range stay so.
                kwargs = {"src_color_range": "JPEG", "dst_color_range": "MPEG"}
                kwargs["dst_colorspace"] = "ITU709" if self.tags.matrix == 1 else "ITU601"
            elif self._format == "yuva420p" and self.tags.range == FULL_RANGE:
                # Without a "j" of its own, the range is said.
                kwargs = {"src_color_range": "JPEG", "dst_color_range": "JPEG"}
            frame = frame.reformat(format=self._format, **kwargs)
        return picture_planes(frame)
