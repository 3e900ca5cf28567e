"""Frames in, swapped frames out, with the faces followed in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from frameswap.answers import SwappedFrame
from frameswap.contract import EMBED_MODEL, FIND_MODELS, SWAP_FOUND_MODELS, FrameFormat
from frameswap.errors import ContractMismatch
from frameswap.frames import Frame
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting
from frameswap.persons.eyes import Tape
from frameswap.persons.looking import ServerLooker
from frameswap.persons.plan import SteadyPlan, finding_options
from frameswap.persons.search import Search
from frameswap.swapper import FaceSwapper

__all__ = ["check_followed", "follow", "models_to_find", "models_to_follow"]


def models_to_find(pixel: FrameFormat, *, knows_persons: bool) -> list[str]:
    """The ensembles that it takes to look for faces in frames of that format."""
    return [FIND_MODELS[pixel], *([EMBED_MODEL] if knows_persons else [])]


def models_to_follow(pixel: FrameFormat, *, knows_persons: bool) -> list[str]:
    """The ensembles that it takes to follow faces, and to swap them."""
    return [*models_to_find(pixel, knows_persons=knows_persons), SWAP_FOUND_MODELS[pixel]]


def check_followed(swapper: FaceSwapper, pixel: FrameFormat, *, knows_persons: bool) -> None:
    """Raise ContractMismatch or ServerNotReady unless the server has what it takes."""
    try:
        swapper.check_models(models_to_follow(pixel, knows_persons=knows_persons))
    except ContractMismatch as error:
        other = "" if knows_persons else ", or swap each frame by itself (--steady off)"
        raise ContractMismatch(f"faces cannot be followed: {error}{other}") from error


def follow(
    swapper: FaceSwapper,
    frames: Iterable[Frame],
    casting: Casting,
    options: SwapOptions | None = None,
    *,
    pixel: FrameFormat,
    ahead: int,
    frame_rate: Fraction | float,
    search: Search = Search.OFF,
    known: Iterable[Sequence[NDArray[np.float32]]] = (),
    tape: Tape | None = None,
    reuse_buffers: bool = False,
) -> Iterator[SwappedFrame]:
    """Swap frames that follow each other.

    Args:
        pixel: their format.
        ahead: as `Steadiness.frames_ahead` says; 0: live.
        search: what is looked at once more.
        known: the answers about frames in front of these, as a `Tape` gives them.
        tape: gets the answers about these.
        reuse_buffers: as in `FaceSwapper.stream`.

    Raises:
        As `FaceSwapper.stream_found`.
    """
    options = options or SwapOptions()
    check_followed(swapper, pixel, knows_persons=casting.knows_persons)
    finding = replace(finding_options(options), face_order=casting.order)
    plan = SteadyPlan(
        casting, ahead=ahead, options=options, looker=ServerLooker(swapper, finding),
        mesh_rows=swapper.mesh_rows(pixel), frame_rate=frame_rate, search=search,
        known=known, tape=tape,
    )  # fmt: skip
    return swapper.stream_found(
        frames, plan,
        # Whether a face is one, its track says.
        replace(options, score_threshold=None),
        finding=finding, persons=len(casting.roles),
        ahead=max(ahead + 1, swapper.in_flight), reuse_buffers=reuse_buffers,
    )  # fmt: skip
