"""What the server's malloc settings cost and save: processor time a frame, and memory kept.

    python -m bench.malloc_settings --rounds 5

One server a setting, all up at once, of models that only copy (`bench/copy_repository.py`). Each
round sends the same 1080p frames over gRPC bytes to one after the other; then a million one-byte
chunks go to the HTTP port of each, which is asked for here. Memory is tritonserver's own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from unittest import mock

import psutil
from frameswap import FaceSwapper
from frameswap.arguments import HelpFormatter, WholeNumber

from bench.copy_repository import write_copy_repository
from bench.http_crumbs import post_in_crumbs
from bench.transport import COMMITTED, MODEL, Server, make_frames, measure, our_stream
from server import command_line
from server.launcher import EmbeddedServer

WITHOUT_TUNABLES: Final = {
    name: value for name, value in command_line.MALLOC.items() if name != "GLIBC_TUNABLES"
}
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "the server's": command_line.MALLOC,
    "the same, with caches of small blocks": WITHOUT_TUNABLES,
    "malloc's own": {},
}
CRUMBS: Final = 1_000_000
SETTLED_S: Final = 3.0
"""How long malloc is given to give memory back."""


def start(repository: Path, settings: Mapping[str, str], stack: ExitStack) -> EmbeddedServer:
    with mock.patch.object(command_line, "MALLOC", settings):
        return stack.enter_context(
            EmbeddedServer(repository, models=[MODEL], one_process=False, http_port=0)
        )


def memory_mib(server: EmbeddedServer) -> float:
    return float(psutil.Process(server.pid).memory_info().rss / 2**20)


def run(rounds: int, count: int) -> list[str]:
    """The table's lines.

    Args:
        count: frames a round.
    """
    frames = make_frames(1080, 1920)
    with ExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_copy_repository(repository, COMMITTED)
        servers = {name: start(repository, each, stack) for name, each in SETTINGS.items()}
        swappers = {
            name: stack.enter_context(FaceSwapper(server.grpc_url, transport="grpc", in_flight=8))
            for name, server in servers.items()
        }
        costs: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                stream = our_stream(swappers[name], frames, reuse_buffers=True)
                figures = measure(Server(server.grpc_url, server.pid), stream, count)
                costs[name].append(figures.server_ms)
        lines = [
            "| malloc's settings | server CPU-ms a frame (least, most) | MiB before | after |",
            "|---|---|---|---|",
        ]
        for name, server in servers.items():
            before = memory_mib(server)
            post_in_crumbs(str(server.doors.http_url), CRUMBS)
            time.sleep(SETTLED_S)
            lines.append(
                f"| {name} | {statistics.median(costs[name]):.2f} ({min(costs[name]):.2f}, "
                f"{max(costs[name]):.2f}) | {before:.0f} | {memory_mib(server):.0f} |"
            )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.malloc_settings",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--rounds", type=WholeNumber(1), default=5)
    parser.add_argument("--frames", type=WholeNumber(1), default=300, help="of each round")
    arguments = parser.parse_args(argv)
    print("\n".join(run(arguments.rounds, arguments.frames)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
