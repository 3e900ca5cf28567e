"""One picture: a photo, or a frame by itself."""

from __future__ import annotations

from dataclasses import replace

from frameswap.answers import SwappedFrame
from frameswap.frames import Frame, frame_format
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting
from frameswap.persons.following import follow
from frameswap.persons.search import Search
from frameswap.swapper import FaceSwapper

__all__ = ["swap_one"]

_ANY_RATE = 25
"""Frames a second of a film of one frame."""


def swap_one(
    swapper: FaceSwapper,
    frame: Frame,
    casting: Casting,
    options: SwapOptions | None = None,
    *,
    search: Search = Search.OFF,
) -> SwappedFrame:
    """Swap the faces of one picture, as it is cast.

    Raises:
        As `FaceSwapper.swap`; ContractMismatch: the server lacks what it takes to know persons, or
        to search.
    """
    options = options or SwapOptions()
    if casting.knows_persons or search is not Search.OFF:
        pictures = follow(
            swapper, [frame], casting, options, pixel=frame_format(frame), ahead=0,
            frame_rate=_ANY_RATE, search=search,
        )  # fmt: skip
        return next(pictures)
    sources = [role.source for role in casting.roles]
    return swapper.swap(frame, sources, replace(options, face_order=casting.order))
