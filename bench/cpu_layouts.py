"""How a CPU's server is best laid out: a process a step, or all steps in one, and how many.

    python -m bench.cpu_layouts                  every layout, size, K and number of clients
    python -m bench.cpu_layouts --sizes 720p --seconds 5

All servers are up at once (one that is not asked costs nothing), and each cell's runs go from
layout to layout and round again, so that whatever else a machine does hits all of them.
"stream" is the client library alone: frames that are there already, answers that are dropped,
shared memory. "job" is `frameswap swap`: decoding, swapping, encoding. Rates are frames a second
of all clients together, the median of the rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from frameswap.arguments import HelpFormatter, WholeNumber, seconds

from bench.cpu_compare import SERVED, SIZES, SOURCE, TARGET
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path
from engines.samples import bgr_to_i420
from server.launcher import EmbeddedServer

ROOT: Final = Path(__file__).resolve().parent.parent
ENSEMBLE: Final = SERVED[0]
CLIP_FRAMES: Final = 120

STREAMER: Final = """
import sys, time
import numpy as np
from frameswap import FaceSwapper
from frameswap.allocation import keep_large_buffers
from demo.photos import read_photo

url, frames, faces, seconds, photo = sys.argv[1:]
keep_large_buffers()
frames = list(np.load(frames))
with FaceSwapper(url) as swapper:
    source = swapper.encode_source(read_photo(photo))

    def endless(until):
        while time.monotonic() < until:
            yield from frames

    def count(seconds):
        return sum(1 for _ in swapper.stream(endless(time.monotonic() + seconds),
                                             [source] * int(faces)))

    count(0.5)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    done = count(float(seconds))
    print(done / (time.monotonic() - start), flush=True)
"""


@dataclass(frozen=True)
class Layout:
    """One way to lay a server out. instances: of the ensemble; None: a process for each step."""

    name: str
    instances: int | None

    def server(self, repository: Path) -> EmbeddedServer:
        counts = {} if self.instances is None else {ENSEMBLE: self.instances}
        return EmbeddedServer(
            repository,
            models=SERVED,
            one_process=self.instances is not None,
            instance_counts=counts,
        )


LAYOUTS: Final = (
    Layout("a process a step", None),
    Layout("one process, 1 instance", 1),
    Layout("one process, 2 instances", 2),
    Layout("one process, 3 instances", 3),
)


@dataclass(frozen=True)
class Cell:
    """One kind of load. kind: "stream" or "job". faces: K."""

    kind: str
    size: str
    faces: int
    clients: int

    def __str__(self) -> str:
        many = "client" if self.clients == 1 else "clients"
        return f"{self.kind} {self.size}, K = {self.faces}, {self.clients} {many}"


def all_cells(sizes: Sequence[str], faces: Sequence[int], clients: Sequence[int]) -> list[Cell]:
    streams = [
        Cell("stream", size, slots, count) for size in sizes for slots in faces for count in clients
    ]
    return [*streams, *(Cell("job", size, 1, 1) for size in sizes)]


def run_streams(url: str, frames: Path, cell: Cell, seconds: float) -> float:
    """Frames a second of all clients, each a process, that begin together.

    Args:
        frames: .npy file of I420 frames [n, H*3/2, W] uint8.
    """
    told = [url, str(frames), str(cell.faces), str(seconds), SOURCE]
    command = [sys.executable, "-c", STREAMER, *told]
    with ExitStack() as stack:
        clients = []
        for _ in range(cell.clients):
            client = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(client.wait)
            stack.callback(client.kill)
            clients.append(client)
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline().strip() != "ready":
                raise RuntimeError("a streaming client ended before it was ready; see above")
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()
        rates = [float(client.communicate()[0]) for client in clients]
    return sum(rates)


def run_job(url: str, clip: Path, folder: Path, *options: str) -> float:
    """Frames a second of one `frameswap swap` against a server that runs."""
    output = folder / "job.mp4"
    command = [
        sys.executable, "-m", "frameswap", "swap", "--source", str(photo_path(SOURCE)),
        "--target", str(clip), "--output", str(output), "--server", url, "--force",
        "--steady", "off", *options,
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    output.unlink()
    return CLIP_FRAMES / seconds


def memory_mib(server: EmbeddedServer) -> float:
    """Proportional memory of the server and its processes: what is shared counts once."""
    root = psutil.Process(server.pid)
    processes = (root, *root.children(recursive=True))
    return sum(process.memory_full_info().pss for process in processes) / 2**20


def measure(
    repository: Path, cells: Sequence[Cell], *, rounds: int, seconds: float
) -> Iterator[str]:
    """The table, line by line as it is measured: frames a second of each layout."""
    yield "| | " + " | ".join(layout.name for layout in LAYOUTS) + " |"
    yield "|---" * (len(LAYOUTS) + 1) + "|"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(layout.server(repository)) for layout in LAYOUTS]
        for size in dict.fromkeys(cell.size for cell in cells):
            width, height = SIZES[size]
            clip = clip_of(TARGET, width=width, height=height, frames=CLIP_FRAMES)
            write_clip(folder / f"{size}.mp4", clip, audio=False)
            np.save(folder / f"{size}.npy", [bgr_to_i420(clip.frame(i)) for i in range(24)])
        for cell in cells:
            rates: list[list[float]] = [[] for _ in servers]
            for _ in range(rounds):
                for server, found in zip(servers, rates, strict=True):
                    if cell.kind == "stream":
                        frames = folder / f"{cell.size}.npy"
                        rate = run_streams(server.grpc_url, frames, cell, seconds)
                    else:
                        rate = run_job(server.grpc_url, folder / f"{cell.size}.mp4", folder)
                    found.append(rate)
            yield f"| {cell} | " + " | ".join(f"{np.median(r):.1f}" for r in rates) + " |"
        sizes = " | ".join(f"{memory_mib(server):.0f}" for server in servers)
        yield f"| memory after it, MiB | {sizes} |"


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu_layouts",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--faces", nargs="+", type=WholeNumber(1), default=[1, 4])
    parser.add_argument("--clients", nargs="+", type=WholeNumber(1), default=[1, 3])
    parser.add_argument("--rounds", type=WholeNumber(1), default=3)
    parser.add_argument("--seconds", type=seconds, default=3.0, help="of each streaming run")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = read_arguments(argv)
    cells = all_cells(arguments.sizes, arguments.faces, arguments.clients)
    lines = measure(
        arguments.repository, cells, rounds=arguments.rounds, seconds=arguments.seconds
    )
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
