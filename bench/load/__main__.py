"""Load on any endpoint: real frames, perf_analyzer, its table.

    python -m bench.load --server HOST:PORT --frame 1920x1080 --concurrency 1 8 32

The frames are a scene with a real face (Gauss, painted) at the asked-for size, with the source that
this server made of another (Newton). perf_analyzer reads the server's statistics, which a container
keeps closed: serve with `--open statistics`, or `open: [statistics]` in the chart.
`--write-only FOLDER` writes inputs and command and stops, for a container that has perf_analyzer
and nothing of ours: `sh FOLDER/run.sh`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from frameswap import FaceSwapper, FrameswapError
from frameswap.arguments import HelpFormatter, WholeNumber, frame_size, seconds
from frameswap.server_settings import add_security, read_named_server

from bench.load.command import make_command, write_run
from bench.load.inputs import make_scene, write_inputs
from server.errors import ServerError
from server.perf_analyzer import prepare_perf_analyzer


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or write what measures; the exit status is perf_analyzer's."""
    given = make_parser().parse_args(arguments)
    width, height = given.frame
    try:
        server, security = read_named_server(given, os.environ, home=Path.home())
        with FaceSwapper(
            server, transport="grpc", reconnect_s=60, security=security
        ) as swapper:
            scene = make_scene(swapper, width, height, faces=given.faces)
        with tempfile.TemporaryDirectory(prefix="frameswap-load-") as scratch:
            folder = given.write_only or Path(scratch)
            inputs = write_inputs(scene, folder / "inputs")
            command = make_command(
                server, inputs, given.concurrency, seconds=given.seconds,
                security=security, token_file=given.token_file,
            )  # fmt: skip
            write_run(command, folder / "run.sh")
            if given.write_only is not None:
                print(f"wrote {folder / 'run.sh'}")
                return 0
            analyzer = prepare_perf_analyzer()
            for line in command.with_binary(str(analyzer.binary)):
                status = subprocess.run(line, cwd=folder, env=analyzer.environment).returncode
                if status:
                    return status
            return 0
    except (FrameswapError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", help="gRPC endpoint of it")
    add("--frame", type=_frame_size, default="1920x1080", metavar="WIDTHxHEIGHT", help="of frames")
    add("--faces", type=WholeNumber(1, 4), default=1, metavar="K", help="face slots of a request")
    add(
        "--concurrency", type=WholeNumber(1), nargs="+", default=[1, 8, 32], metavar="N",
        help="requests in flight (default: 1 8 32)",
    )  # fmt: skip
    add("--seconds", type=seconds, default=10.0, metavar="SECONDS", help="of each measurement")
    add("--write-only", type=Path, metavar="FOLDER", help="write inputs and run.sh, run nothing")
    add_security(parser)
    return parser


def _frame_size(text: str) -> tuple[int, int]:
    width, height = frame_size(text)
    if width % 2 or height % 2:
        raise argparse.ArgumentTypeError(f"I420 frames are of even sizes, not {text!r}")
    return width, height


if __name__ == "__main__":
    sys.exit(main())
