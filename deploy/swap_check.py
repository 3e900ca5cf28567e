"""Swap one frame through a server and look at its pixels: what `helm test` runs.

    python -m deploy.swap_check --server frameswap-main:8001

Newton's face is put on Gauss, two paintings. Right is: one face found where it is, pixels changed
there and, in the same place, none left as they were all over; every pixel away from the face equal
to the bit; the same frame again gives the same picture. Which swapper it is makes no difference.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from frameswap import FaceSwapper, FrameswapError
from frameswap.arguments import HelpFormatter
from frameswap.server_settings import add_security, read_named_server

from demo.photos import read_photo

Image = npt.NDArray[np.uint8]

LEAST_CHANGED = 0.2
"""Share of the face's box that has to change: the middle of a face is more than that."""
LEAST_STEP = 3.0
"""By how much it has to change on average there, of 255."""
MOST_APART = 4
"""Between two answers to one frame, of 255: what came meanwhile may run in one batch with it, whose
sums a GPU makes in another order, in half precision."""
MARGIN = 1.0
"""The blend reaches beyond the box by less than its size on each side."""


def judge(frame: Image, swapped: Image, faces: npt.NDArray[np.float32]) -> str | None:
    """One sentence that says what is wrong with a swapped frame; None where nothing is.

    Args:
        frame, swapped: (H, W, 3) uint8. faces: (F, 15), boxes first.
    """
    if len(faces) != 1:
        return f"{len(faces)} faces were found where there is one"
    x1, y1, x2, y2 = (float(value) for value in faces[0, :4])
    height, width = frame.shape[:2]
    difference = np.abs(frame.astype(np.int16) - swapped.astype(np.int16)).max(axis=2)
    box = difference[_inside(y1, y2, height), _inside(x1, x2, width)]
    if box.size == 0 or (box > 0).mean() < LEAST_CHANGED or box.mean() < LEAST_STEP:
        return "the face was not changed"
    away = np.ones(difference.shape, bool)
    grow_y, grow_x = MARGIN * (y2 - y1), MARGIN * (x2 - x1)
    away[_inside(y1 - grow_y, y2 + grow_y, height), _inside(x1 - grow_x, x2 + grow_x, width)] = (
        False
    )
    if difference[away].any():
        return "pixels away from the face were changed"
    return None


def compare(first: Image, second: Image) -> str | None:
    """One sentence where two answers to the same frame, (H, W, 3) uint8, are not the same."""
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16)).max()
    return f"the same frame came {apart} levels apart" if apart > MOST_APART else None


def _inside(low: float, high: float, size: int) -> slice:
    return slice(max(0, int(low)), min(size, int(high) + 1))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.swap_check", description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="its gRPC endpoint")
    add_security(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was seen; 1 where it is not right."""
    given = make_parser().parse_args(arguments)
    frame = read_photo("gauss")
    try:
        server, security = read_named_server(given, os.environ, home=Path.home())
        with FaceSwapper(
            server, transport="grpc", reconnect_s=30, security=security
        ) as swapper:
            source = swapper.encode_source(read_photo("newton"))
            results = [swapper.swap(frame, source) for _ in range(2)]
            reason = judge(frame, results[0].frame, results[0].faces)
            if reason is None:
                reason = compare(results[0].frame, results[1].frame)
            name = swapper.swapper
    except FrameswapError as error:
        reason, name = str(error), ""
    if reason is not None:
        print(f"frameswap: error: {reason}", file=sys.stderr)
        return 1
    print(f"frameswap: {given.server} swaps faces with {name}; pixels away from the face are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
