"""Pictures on their way through FFmpeg's filters: colours, palettes, tone mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av

__all__ = ["PictureGraph", "conversion"]


class PictureGraph:
    """A chain of filters that takes one picture and gives one back.

    Args:
        filters: FFmpeg's text of each, with its arguments.
    """

    def __init__(self, filters: Sequence[tuple[str, str]]) -> None:
        self._filters = list(filters)
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None

    def convert(self, picture: Any) -> Any:
        """Send a picture through; its time stays. It is described to the graph when first seen."""
        shape = picture.width, picture.height, picture.format.name
        if self._graph is None or shape != self._shape:
            self._build(picture)
            self._shape = shape
        self._graph.push(picture)
        made = self._graph.pull()
        made.pts, made.time_base = picture.pts, picture.time_base
        return made

    def _build(self, picture: Any) -> None:
        graph = av.filter.Graph()
        # Time does not matter here: each picture is answered at once.
        last = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, name="in",
            time_base=picture.time_base,
        )  # fmt: skip
        for name, text in self._filters:
            if name == "palette":
                last = _add_palette(graph, last)
                continue
            step = graph.add(name, text) if text else graph.add(name)
            last.link_to(step)
            last = step
        last.link_to(graph.add("buffersink"))
        graph.configure()
        self._graph = graph


def _add_palette(graph: Any, last: Any) -> Any:
    """256 colours chosen for each picture, as GIF wants them."""
    split = graph.add("split")
    choose = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    last.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(choose, 1, 0)
    choose.link_to(use, 0, 1)
    return use


def conversion(matrix: int, full_range: bool, target: str) -> list[tuple[str, str]]:
    """Filters from YUV of a matrix (ITU-T H.273) and range to RGB of a pixel format."""
    name = {1: "bt709", 9: "bt2020", 10: "bt2020", 7: "smpte240m", 4: "fcc"}.get(matrix, "bt601")
    color_range = "full" if full_range else "limited"
    return [
        ("scale", f"in_color_matrix={name}:in_range={color_range}:out_range=full:flags=bicubic"
         "+accurate_rnd+full_chroma_int"),
        ("format", f"pix_fmts={target}"),
    ]  # fmt: skip
