"""Two persons who cross, leave, come back and change places: nobody is given the other's face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from frameswap import Casting, Placement

from bench.quality.chains import SIZES, Bench, Row
from bench.quality.scenes import Pose, as_i420, scene


def persons(bench: Bench) -> Iterator[Row]:
    """Two who cross, leave and come back, and change places at a cut."""
    gauss, newton = bench.heads["gauss"], bench.heads["newton"]
    (width, height), side = SIZES["360p"], 190
    cross = [(Pose(100 + 440 * k / 71, 175, side), Pose(540 - 440 * k / 71, 190, side))
             for k in range(72)]  # fmt: skip
    leave = [(Pose(200, 180, side), Pose(430 + 300 * abs(np.sin(np.pi * k / 71)), 185, side))
             for k in range(72)]  # fmt: skip
    cut = [(Pose(190, 180, side), Pose(450, 180, side)) if k < 24
           else (Pose(450, 180, side), Pose(190, 180, side)) for k in range(48)]  # fmt: skip
    casting = Casting.by_reference([
        (bench.swapper.embed(gauss.image), bench.sources["newton"]),
        (bench.swapper.embed(newton.image), bench.sources["gauss"]),
    ])  # fmt: skip
    for name, places in (("cross", cross), ("leave and come back", leave), ("cut", cut)):
        frames = [
            as_i420(scene(width, height, [(newton, second), (gauss, first)], noise=k))
            for k, (first, second) in enumerate(places)
        ]
        run, placed = bench.cast(frames, casting)
        bench.show(f"persons-{name.split()[0]}", run)
        wrong, missing = _count_wrong(placed, places, side, width)
        yield Row(f"two {name}: wrong frames; whole faces not swapped, of {2 * len(places)}", "-",
                  f"{wrong}; {missing}", "0; 0", wrong == 0 and missing == 0)  # fmt: skip


def _count_wrong(
    placed: Sequence[Placement], places: Sequence[tuple[Pose, Pose]], side: float, width: int
) -> tuple[int, int]:
    """Frames in which somebody has another one's new face, and faces in full view without any."""
    wrong = missing = 0
    for each, (first, second) in zip(placed, places, strict=True):
        apart, is_wrong = np.hypot(first.x - second.x, first.y - second.y), False
        for row, own, other in zip(each.faces, (first, second), (second, first), strict=False):
            if row[4] <= 0:
                in_view = 0.4 * side < own.x < width - 0.4 * side
                # The first stands in front.
                missing += bool(in_view and (own is first or apart > 0.75 * side))
                continue
            x = row[5::2].mean()
            is_wrong |= bool(abs(x - own.x) > abs(x - other.x) and apart > 0.2 * side)
        wrong += is_wrong
    return wrong, missing
