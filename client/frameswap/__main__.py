"""`frameswap`, `python -m frameswap`: flags in, exit code out.

Exit codes: 0 done, 1 it could not be done (one sentence says why), 2 wrong usage, 130 stopped by
Ctrl-C, 143 stopped by SIGTERM. An error of the program itself keeps its traceback.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, Final

import cv2

from frameswap import codecs_command, faces_command, swap_command
from frameswap.allocation import keep_large_buffers
from frameswap.arguments import HelpFormatter
from frameswap.errors import FrameswapError

__all__ = ["main"]

COMMANDS_GROUP: Final = "frameswap.commands"
"""Entry points of this group are functions `register(subparsers)`; `run` of their arguments takes
the arguments and returns the exit code."""
_WHOLE_PROJECT: Final = (
    "belongs to the deployment side, which is not installed: install the whole project from its "
    "checkout"
)
_ELSEWHERE: Final = {
    "serve": _WHOLE_PROJECT,
    "models": _WHOLE_PROJECT,
    "gateway": "is a package of its own, which is not installed: from the checkout, "
    "`pip install ./gateway`",
}
"""Commands that are not the client's own, and what to say where they are missing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # A damaged photo is our one sentence, not OpenCV's as well.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    logging.basicConfig(format="frameswap: %(message)s", level=logging.INFO, stream=sys.stderr)
    keep_large_buffers()
    words = list(sys.argv[1:] if argv is None else argv)
    installed = {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}
    if words and words[0] in _ELSEWHERE and words[0] not in installed:
        print(f"frameswap: `frameswap {words[0]}` {_ELSEWHERE[words[0]]}", file=sys.stderr)
        return 1
    arguments = _parser(installed).parse_args(words)
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough; Python's own flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FrameswapError as error:
        print(f"frameswap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("frameswap: stopped", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(number: int, frame: Any) -> None:
    """End through the ordinary way, so that temporary files, memory and servers are cleared."""
    raise SystemExit(128 + number)


def _parser(installed: Mapping[str, EntryPoint]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="frameswap",
        description="Swap faces in photos and video with NVIDIA Triton.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"frameswap {version('frameswap')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    swap_command.register(subparsers)
    faces_command.register(subparsers)
    codecs_command.register(subparsers)
    for name in sorted(installed):
        installed[name].load()(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
