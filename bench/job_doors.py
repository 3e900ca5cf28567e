"""Whole jobs through the embedded server's socket beside the same jobs over TCP.

    python -m bench.job_doors --rounds 5

"a running server": `frameswap swap` against one of two that are up. "its own server": with the
server's start and stop, as `frameswap swap` without `--server` and `make demo` have it. The ways
take turns, and which one goes first does, too; a ratio is the median over pairs of neighbouring
runs, of the socket's frames a second to TCP's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frameswap.arguments import HelpFormatter, WholeNumber

from bench.cpu_compare import SERVED, SIZES, TARGET
from bench.cpu_layouts import CLIP_FRAMES, ROOT, run_job
from demo.make_clip import clip_of, write_clip
from server.launcher import EmbeddedServer

DOORS: Final[dict[str, int | None]] = {"socket": None, "TCP": 0}
"""Name to the port that is asked for."""
TRANSPORTS: Final = {"shared memory": "system", "gRPC bytes": "grpc"}


@dataclass(frozen=True)
class Row:
    """Frames a second of the jobs of each round."""

    name: str
    socket: Sequence[float]
    tcp: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.median(a / b for a, b in zip(self.socket, self.tcp, strict=True))

    def __str__(self) -> str:
        socket, tcp = statistics.median(self.socket), statistics.median(self.tcp)
        return f"| {self.name} | {socket:.1f} | {tcp:.1f} | {self.ratio:.2f} |"


def serve(repository: Path, port: int | None) -> EmbeddedServer:
    return EmbeddedServer(repository, models=SERVED, grpc_port=port)


def compare(name: str, job: Callable[[str], float], rounds: int) -> Row:
    """Run `job` with each door's name, in turn."""
    rates: dict[str, list[float]] = {door: [] for door in DOORS}
    for turn in range(rounds):
        for door in sorted(DOORS, reverse=bool(turn % 2)):
            rates[door].append(job(door))
    return Row(name, rates["socket"], rates["TCP"])


def run(repository: Path, size: str, rounds: int) -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        width, height = SIZES[size]
        clip = folder / "clip.mp4"
        write_clip(
            clip, clip_of(TARGET, width=width, height=height, frames=CLIP_FRAMES), audio=False
        )

        def with_its_server(door: str) -> float:
            begun = time.perf_counter()
            with serve(repository, DOORS[door]) as server:
                run_job(server.grpc_url, clip, folder)
            return CLIP_FRAMES / (time.perf_counter() - begun)

        rows = [compare("its own server", with_its_server, rounds)]
        servers = {
            door: stack.enter_context(serve(repository, port)) for door, port in DOORS.items()
        }
        for name, transport in TRANSPORTS.items():

            def against(door: str, transport: str = transport) -> float:
                url = servers[door].grpc_url
                return run_job(url, clip, folder, "--transport", transport)

            for door in DOORS:
                against(door)  # the first job fills pools
            rows.append(compare(f"a running server, {name}", against, rounds))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.job_doors",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--size", choices=list(SIZES), default="720p")
    parser.add_argument("--rounds", type=WholeNumber(1), default=5)
    arguments = parser.parse_args(argv)
    print("| | frames/s, socket | TCP | ratio |")
    print("|---|---|---|---|")
    for row in run(arguments.repository, arguments.size, arguments.rounds):
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
