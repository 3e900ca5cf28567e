"""What a job asks for, from plain JSON to the client's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from frameswap import AreaFlag, Encoding, FaceOrder, KeepFlag, MaskFlag, ReadOptions, SwapOptions
from frameswap.video_writer import AudioMode
from numpy.typing import NDArray

__all__ = ["AREAS", "KEEPS", "MASKS", "ORDERS", "WantedSource", "Wishes", "read_wishes"]

MASKS: Final = {
    "box": MaskFlag.BOX, "hull": MaskFlag.HULL, "own": MaskFlag.SWAPPER, "none": MaskFlag.NONE,
}  # fmt: skip
KEEPS: Final = {
    "mouth": KeepFlag.MOUTH, "lips": KeepFlag.LIPS, "eyes": KeepFlag.EYES, "brows": KeepFlag.BROWS,
}  # fmt: skip
AREAS: Final = {
    "upper-face": AreaFlag.UPPER_FACE, "lower-face": AreaFlag.LOWER_FACE, "mouth": AreaFlag.MOUTH,
}  # fmt: skip
ORDERS: Final = {order.name.lower().replace("_", "-"): order for order in FaceOrder}


@dataclass(frozen=True, eq=False)
class WantedSource:
    """Whose face: photos of one person, and who gets it.

    face: which face of the photos, None where each has one.
    reference: (E,) float32, whom it replaces; None is by place.
    """

    paths: tuple[str, ...]
    face: FaceOrder | None = None
    reference: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Wishes:
    """What `tasks` go by; see `job_requests.JobRequest`, where each is explained."""

    sources: tuple[WantedSource, ...]
    options: SwapOptions
    encoding: Encoding
    audio: AudioMode
    reading: ReadOptions
    require_face: bool
    steady: bool


def read_wishes(wishes: Mapping[str, Any]) -> Wishes:
    """Raises BadOptions for what the client does not know."""
    options, output, part = wishes["options"], wishes["output"], wishes["part"]
    return Wishes(
        sources=tuple(_source(each) for each in wishes["sources"]),
        options=SwapOptions(
            face_order=ORDERS[options["face_order"]],
            score_threshold=options["score_threshold"],
            masks=MaskFlag(sum(MASKS[name] for name in set(options["masks"]))),
            keep=KeepFlag(sum(KEEPS[name] for name in set(options["keep"]))),
            areas=AreaFlag(sum(AREAS[name] for name in set(options["areas"]))),
            weight=options["weight"],
            pose_limit=options["pose_limit"],
        ),
        encoding=Encoding(output["codec"], output["quality"], output["preset"]),
        audio=output["audio"],
        reading=ReadOptions(
            hdr="tonemap", start_s=_time(part["start_s"]), end_s=_time(part["end_s"])
        ),
        require_face=wishes["require_face"],
        steady=options["steady"],
    )


def _source(wanted: Mapping[str, Any]) -> WantedSource:
    face, reference = wanted["face"], wanted.get("reference")
    return WantedSource(
        tuple(wanted["paths"]),
        None if face is None else ORDERS[face],
        None if reference is None else np.asarray(reference, np.float32),
    )


def _time(seconds: float | None) -> Fraction | None:
    return None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)
