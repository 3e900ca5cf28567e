"""What a frame costs on its way: the client's transports beside a plain loop and perf_analyzer.

    python -m bench.transport --frames 300

All of them talk to one server, in one run, with the same 1080p I420 frames, through an ensemble of
the deployed contract whose models only copy (`bench/copy_repository.py`).
"""

from __future__ import annotations

import argparse
import csv
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import tritonclient.grpc as triton_grpc
from frameswap import FaceSwapper, Source, TransportUnavailable
from frameswap.allocation import keep_large_buffers
from frameswap.transport import TransportName
from numpy.typing import NDArray

from bench.copy_repository import SWAPPER, write_copy_repository
from server.errors import ServerError
from server.launcher import EmbeddedServer
from server.perf_analyzer import prepare_perf_analyzer

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
MODEL: Final = "swap_faces_i420"
SOURCE_LENGTH: Final = 512
DISTINCT_FRAMES: Final = 8
"""So that no cache of the machine holds the one frame that is always sent."""


@dataclass(frozen=True)
class Row:
    """One way to send frames: how many a second, and milliseconds of its CPU for each."""

    name: str
    frames_per_s: float
    cpu_ms: float


def make_frames(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Random (H*3/2, W) uint8 frames: copying does not depend on what is in them."""
    generator = np.random.default_rng(1)
    return [
        generator.integers(0, 256, (height * 3 // 2, width), np.uint8)
        for _ in range(DISTINCT_FRAMES)
    ]


def measure(name: str, run: Callable[[int], None], count: int) -> Row:
    """Time `run(count)` after a tenth of it unmeasured; CPU is that of this process."""
    run(max(1, count // 10))
    cpu, started = time.process_time(), time.monotonic()
    run(count)
    elapsed, cpu = time.monotonic() - started, time.process_time() - cpu
    return Row(name, count / elapsed, cpu / count * 1e3)


def plain_loop(address: str, frames: list[NDArray[np.uint8]]) -> Callable[[int], None]:
    """What tritonclient's own examples do: one request, its answer, the next one."""
    client = triton_grpc.InferenceServerClient(address)
    outputs = [triton_grpc.InferRequestedOutput(name) for name in ("swapped_frame", "faces")]

    def run(count: int) -> None:
        for index in range(count):
            frame = frames[index % len(frames)][None]
            tensors = [
                ("frame", "UINT8", frame),
                ("source", "FP32", np.zeros((1, 1, SOURCE_LENGTH), np.float32)),
                ("options", "FP32", np.zeros((1, 8), np.float32)),
            ]
            inputs = []
            for name, datatype, array in tensors:
                tensor = triton_grpc.InferInput(name, list(array.shape), datatype)
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            answer = client.infer(MODEL, inputs, outputs=outputs)
            assert answer.as_numpy("swapped_frame").shape == frame.shape

    return run


def our_stream(
    swapper: FaceSwapper, frames: list[NDArray[np.uint8]], *, reuse_buffers: bool
) -> Callable[[int], None]:
    """The client's stream; every result is checked to be the frame that was sent."""
    vector = np.zeros(SOURCE_LENGTH, np.float32)
    source = Source(vector, "identity", SWAPPER, np.zeros((0, 15), np.float32))

    def several(count: int) -> Iterator[NDArray[np.uint8]]:
        for index in range(count):
            yield frames[index % len(frames)]

    def run(count: int) -> None:
        done = 0
        for swapped in swapper.stream(several(count), source, reuse_buffers=reuse_buffers):
            # A few bytes: comparing all would be measured as well.
            assert (swapped.frame[::400, ::400] == swapped.original[::400, ::400]).all()
            done += 1
        assert done == count

    return run


def perf_analyzer_row(
    name: str, address: str, shape: tuple[int, int], in_flight: int, options: list[str], count: int
) -> Row:
    """NVIDIA's load generator, which writes its frame once and reads no answer."""
    tool = prepare_perf_analyzer()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [
                tool.binary, "-m", MODEL, "-i", "grpc", "-u", address, "--input-data=zero",
                f"--shape=frame:{shape[0]},{shape[1]}", f"--shape=source:1,{SOURCE_LENGTH}",
                f"--concurrency-range={in_flight}", f"--request-count={count}", "-f", report,
                *options,
            ],
            env=tool.environment, capture_output=True, check=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (line,) = csv.DictReader(report.read_text().splitlines())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Row(name, float(line["Inferences/Second"]), cpu / count * 1e3)


def run_all(address: str, count: int, in_flight: int, size: tuple[int, int]) -> list[Row]:
    """Measure every way that works on this machine."""
    width, height = size
    frames = make_frames(height, width)
    rows = [measure("tritonclient, one at a time", plain_loop(address, frames), count)]
    names: tuple[TransportName, ...] = ("grpc", "system", "cuda")
    for name in names:
        try:
            swapper = FaceSwapper(address, transport=name, in_flight=in_flight)
        except TransportUnavailable as error:
            print(f"not run: {name}: {error}", file=sys.stderr)
            continue
        with swapper:
            for reuse, text in ((False, ""), (True, ", reuse_buffers")):
                stream = our_stream(swapper, frames, reuse_buffers=reuse)
                rows.append(measure(f"frameswap, {name}{text}", stream, count))
    bytes_out = height * 3 // 2 * width
    for text, options in (
        ("gRPC", []),
        ("system", ["--shared-memory=system", f"--output-shared-memory-size={bytes_out}"]),
    ):
        shape = (height * 3 // 2, width)
        label = f"perf_analyzer, {text}"
        rows.append(perf_analyzer_row(label, address, shape, in_flight, options, count))
    return rows


def format_table(rows: list[Row], in_flight: int, size: tuple[int, int]) -> str:
    """A Markdown table; the last column is against the first row."""
    lines = [
        f"{size[0]}x{size[1]} I420, {in_flight} in flight, {platform.machine()}",
        "",
        "| client | frames/s | client CPU-ms a frame | times the plain loop |",
        "|---|---|---|---|",
    ]
    for row in rows:
        times = row.frames_per_s / rows[0].frames_per_s
        lines.append(f"| {row.name} | {row.frames_per_s:.0f} | {row.cpu_ms:.2f} | {times:.1f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=300, help="frames a measurement")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    arguments = parser.parse_args(argv)
    size = (arguments.width, arguments.height)
    # As the command line does; the plain loop gains as much by it.
    keep_large_buffers()
    with tempfile.TemporaryDirectory() as folder:
        write_copy_repository(Path(folder), COMMITTED)
        try:
            with EmbeddedServer(
                Path(folder), models=[MODEL], frame_size=size,
                requests_in_flight=arguments.in_flight,
            ) as server:  # fmt: skip
                rows = run_all(server.grpc_url, arguments.frames, arguments.in_flight, size)
        except ServerError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(format_table(rows, arguments.in_flight, size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
