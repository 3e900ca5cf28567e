r"""The served chain on a CPU beside an earlier checkout's, and beside itself with empty slots.

    python -m bench.contract_compare --other ../frameswap-1.0      720p and 1080p, in turn
    python -m bench.contract_compare --other ../frameswap-1.0 \
        --flags="--one-process --instances swap_faces_i420=2"      the steps in one process
    python -m bench.contract_compare --other ../frameswap-1.0 \
        --also face_landmarker_v2=out/v2       and another repository of this checkout's

Both checkouts have their environment in `.venv` and their CPU models built. Each serves its own
models and is asked by its own client, through shared memory, with the same decoded frames: no codec
is in the figures. Runs alternate, so that whatever else a machine does hits all of them; a ratio is
the median over rounds. A run's processor time is its client's and its server's.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import psutil

from bench.cpu_compare import ROOT, SIZES, SOURCE, TARGET
from demo.make_clip import clip_of
from demo.photos import photo_path

UNIQUE_FRAMES: Final = 24
START_S: Final = 120.0
EMPTY_SLOTS: Final = 8
MODELS: Final = ("swap_faces_i420", "encode_source_bgr")

_CLIENT: Final = """
import json, sys, time
from itertools import cycle, islice
import cv2, numpy as np
from frameswap import FaceSwapper
url, photo, frames, count, slots = sys.argv[1:]
frames = np.load(frames)
with FaceSwapper(url, transport="system", in_flight=6) as swapper:
    sources = [swapper.encode_source(cv2.imread(photo))] * int(slots)
    def run(number):
        stream = swapper.stream(islice(cycle(frames), number), sources, reuse_buffers=True)
        return sum(len(swapped.faces) for swapped in stream)
    run(12)
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    faces = run(int(count))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "faces": faces}), flush=True)
"""
"""Runs in either checkout: it uses what both clients have."""


@dataclass(frozen=True)
class Side:
    """What is measured: a checkout's server, asked for so many slots."""

    name: str
    python: Path
    url: str
    server: psutil.Process
    slots: int


@dataclass(frozen=True)
class Run:
    """Frames a second, and milliseconds of processor time a frame."""

    rate: float
    cpu_ms: float


@contextmanager
def serving(
    checkout: Path, flags: Sequence[str] = (), repository: Path | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """Serve a checkout's CPU models on a port of its own.

    Args:
        flags: more of `frameswap serve`. repository: another than the checkout's own.

    Raises:
        TimeoutError: it did not come up.
    """
    ports = []
    with ExitStack() as stack:
        for _ in range(3):
            free = stack.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    command = [
        str(checkout / ".venv" / "bin" / "frameswap"), "serve", "--variant", "cpu",
        "--models", *MODELS, "--grpc-port", ports[0], "--http-port", ports[1],
        "--metrics-port", ports[2], *flags,
    ]  # fmt: skip
    if repository is not None:
        command += ["--repository", str(repository.resolve())]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL) as process:
        try:
            _await_ready(int(ports[1]), process)
            yield f"127.0.0.1:{ports[0]}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                probe.sendall(b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
                if b" 200 " in probe.recv(64):
                    return
        time.sleep(0.2)
    raise TimeoutError(f"no server came up on port {port}")


def cpu_s(server: psutil.Process) -> float:
    """Processor time of a server and all its processes so far, seconds."""
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def measure(side: Side, frames: Path, count: int) -> Run:
    """Stream `count` frames.

    Raises:
        ValueError: the faces found are not one a frame.
    """
    command = [
        str(side.python), "-c", _CLIENT, side.url, str(photo_path(SOURCE)), str(frames),
        str(count), str(side.slots),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        before_s = cpu_s(side.server)
        answer, _ = client.communicate("\n")
        served_s = cpu_s(side.server) - before_s
    result = json.loads(answer)
    if result["faces"] != count:
        raise ValueError(f"{side.name} found {result['faces']} faces in {count} frames")
    return Run(count / result["seconds"], 1e3 * (result["cpu_s"] + served_s) / count)


def write_frames(path: Path, size: str) -> None:
    """I420 frames of the moving picture of Gauss, uint8 (N, H*3/2, W)."""
    width, height = SIZES[size]
    clip = clip_of(TARGET, width=width, height=height, frames=UNIQUE_FRAMES)
    np.save(path, np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420) for frame in clip]))


def describe(size: str, runs: dict[str, list[Run]]) -> str:
    """A line a side: medians, and the median ratio of its rate to the first side's."""
    base = next(iter(runs.values()))
    lines = []
    for name, own in runs.items():
        ratio = np.median([run.rate / first.rate for run, first in zip(own, base, strict=True)])
        rate, cpu = np.median([(run.rate, run.cpu_ms) for run in own], axis=0)
        lines.append(f"{size:>6s} {name:30s} {rate:9.1f} {cpu:15.1f} {ratio:7.2f}")
    return "\n".join(lines)


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=REPOSITORY, got {text!r}")
    return name, Path(path)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["720p", "1080p"])
    parser.add_argument(
        "--flags", default="", help="more flags of `frameswap serve`, for this checkout only"
    )
    parser.add_argument(
        "--also", type=_named, nargs="*", default=[], metavar="NAME=REPOSITORY",
        help="serve it too, with the same flags and K = 1",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, default=120, help="of a run")
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frameswap-bench-")))
        sides = []
        other_url, other = stack.enter_context(serving(args.other.resolve()))
        url, server = stack.enter_context(serving(ROOT, args.flags.split()))
        python = args.other.resolve() / ".venv" / "bin" / "python"
        sides.append(Side("the other checkout, K = 1", python, other_url, other, 1))
        here = Path(sys.executable)
        sides.append(Side("this checkout, K = 1", here, url, server, 1))
        name = f"this checkout, K = {EMPTY_SLOTS}, one face"
        sides.append(Side(name, here, url, server, EMPTY_SLOTS))
        for label, repository in args.also:
            where = stack.enter_context(serving(ROOT, args.flags.split(), repository))
            sides.append(Side(f"{label}, K = 1", here, *where, 1))
        print(f"{'size':>6s} {'':30s} {'frames/s':>9s} {'CPU-ms a frame':>15s} {'ratio':>7s}")
        for size in args.sizes:
            frames = folder / f"{size}.npy"
            write_frames(frames, size)
            runs: dict[str, list[Run]] = {side.name: [] for side in sides}
            for _ in range(args.rounds):
                for side in sides:
                    runs[side.name].append(measure(side, frames, args.frames))
            print(describe(size, runs), flush=True)
            frames.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
