"""The rows of the table: each makes a clip, gives it to both chains, and says how they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bench.quality.chains import Bench, Row
from bench.quality.cost import cost
from bench.quality.people import persons
from bench.quality.searching import nobody, small, turned, turns_away, yaw
from bench.quality.steadiness import drop_outs, flicker, jitter, lag

__all__ = ["ROWS"]

ROWS: Final[dict[str, Callable[[Bench], Iterator[Row]]]] = {
    "jitter": jitter, "lag": lag, "flicker": flicker, "drop-outs": drop_outs, "persons": persons,
    "turned": turned, "yaw": yaw, "turns-away": turns_away, "small": small,
    "nobody": nobody, "cost": cost,
}  # fmt: skip
