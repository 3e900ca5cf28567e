"""How steady a swap is, and who becomes whom: both chains, on clips whose truth is known.

    python -m bench.quality                          # all rows, with an embedded server
    python -m bench.quality jitter lag --pictures out/quality
    python -m bench.quality cost --server localhost:8001 --sizes 1080p --frames 2000 --window 64

`--steady off` and `on` run with the same server, swapper and frames. The faces are paintings, and
four physicists of 1927.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from frameswap import FaceSwapper
from frameswap.arguments import HelpFormatter, WholeNumber

from bench.quality.chains import SIZES, Bench, Row
from bench.quality.cost import cost
from bench.quality.rows import ROWS
from server.launcher import EmbeddedServer

MODELS = (
    "swap_faces_i420", "find_faces_i420", "find_faces_bgr", "swap_found_faces_i420",
    "encode_source_bgr", "embed_face_bgr",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"which rows: {', '.join(ROWS)} (default: all)")
    add("--server", metavar="HOST:PORT", help="a running server (default: an embedded one)")
    add("--pictures", type=Path, metavar="FOLDER", help="write frames to look at there")
    add("--window", type=WholeNumber(1), default=6, metavar="N", help="frames in flight")
    add("--sizes", nargs="+", choices=SIZES, default=["720p", "1080p"], metavar="SIZE",
        help=f"of the row cost: {', '.join(SIZES)}")  # fmt: skip
    add("--frames", type=WholeNumber(24), default=96, metavar="N", help="frames of the row cost")
    given = parser.parse_args(arguments)
    unknown = set(given.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    missed = 0
    with ExitStack() as stack:
        address = (
            given.server
            or stack.enter_context(
                EmbeddedServer(
                    models=MODELS, frame_size=(3840, 2160), requests_in_flight=given.window
                )
            ).grpc_url
        )
        swapper = stack.enter_context(FaceSwapper(address, in_flight=given.window))
        bench = Bench(swapper, given.pictures)
        print("| what | off | on | bar | |\n|---|---|---|---|---|", flush=True)
        for name in given.rows or ROWS:
            lines = (
                cost(bench, sizes=given.sizes, frames=given.frames)
                if name == "cost"
                else ROWS[name](bench)
            )
            for row in lines:
                print(_line(row), flush=True)
                missed += row.holds is False
    return 1 if missed else 0


def _line(row: Row) -> str:
    mark = {True: "holds", False: "MISSED", None: ""}[row.holds]
    return f"| {row.what} | {row.off} | {row.on} | {row.bar} | {mark} |"


if __name__ == "__main__":
    sys.exit(main())
