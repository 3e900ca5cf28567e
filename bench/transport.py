"""What a frame costs on its way: the client's transports beside a plain loop and perf_analyzer.

    python -m bench.transport --rounds 5
    python -m bench.transport --rounds 5 --one-process

All of them talk to one server, in one run, with the same 1080p I420 frames, through an ensemble of
the deployed contract whose models only copy (`bench/copy_repository.py`). They take turns, and
each figure is the median of its rounds: what else the machine does meets all of them.

Through shared memory perf_analyzer touches no frame: it fills its memory once. "In place" is the
same with the client: a source whose frame lies in the slots already. "Touched once" is a loop
around tritonclient that writes each frame into shared memory and reads each result, as whoever has
frames must; "read" is the client doing that.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import tritonclient.grpc as triton_grpc
from frameswap import FaceSwapper, Source, TransportUnavailable
from frameswap.allocation import keep_large_buffers
from frameswap.frames import Frame
from frameswap.transport import TransportName, as_array
from numpy.typing import NDArray

from bench.copy_repository import MODELS, SWAPPER, write_copy_repository
from bench.perf_windows import WINDOWS, read_table, window_words
from bench.touched_once import TouchedOnce
from graphs.contract import MODEL_SPECS
from server.errors import ServerError
from server.launcher import EmbeddedServer
from server.perf_analyzer import prepare_perf_analyzer

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
MODEL: Final = "swap_faces_i420"
STEPS: Final = tuple(name for name in MODELS if name in MODEL_SPECS)
SOURCE_LENGTH: Final = 512
DISTINCT_FRAMES: Final = 8
"""So that no cache of the machine holds the one frame that is always sent."""


@dataclass(frozen=True)
class Figures:
    """Frames a second, and milliseconds of the client's and of the server's CPU for each."""

    frames_per_s: float
    client_ms: float
    server_ms: float


@dataclass(frozen=True)
class Row:
    """One way to send frames.

    copies: that the client's own code makes of a frame, out and in. like: the row of another client
    that does the same, "" where none does. figures: of each round.
    """

    name: str
    copies: str
    like: str
    figures: Sequence[Figures]

    def median(self, name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in self.figures))

    def share_of(self, other: Row) -> float:
        """The median over rounds of its rate to another's in the same round."""
        pairs = zip(self.figures, other.figures, strict=True)
        return statistics.median(ours.frames_per_s / its.frames_per_s for ours, its in pairs)


@dataclass(frozen=True)
class Way:
    """How a row is measured, again in each round."""

    name: str
    copies: str
    like: str
    measure: Callable[[], Figures]


@dataclass(frozen=True)
class Server:
    """Where requests go, and whose CPU time they cost."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Of all its processes so far: models' processes are its children."""
        server = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def answered(self) -> int:
        """Frames through the ensemble so far."""
        with triton_grpc.InferenceServerClient(self.address) as client:
            (model,) = client.get_inference_statistics(MODEL).model_stats
        return int(model.inference_count)


def make_frames(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Random (H*3/2, W) uint8 frames: copying does not depend on what is in them."""
    generator = np.random.default_rng(1)
    return [
        generator.integers(0, 256, (height * 3 // 2, width), np.uint8)
        for _ in range(DISTINCT_FRAMES)
    ]


def measure(server: Server, run: Callable[[int], None], count: int) -> Figures:
    """Time `run(count)` after a tenth of it unmeasured; the client is this process."""
    run(max(1, count // 10))
    served, cpu, started = server.cpu_s(), time.process_time(), time.monotonic()
    run(count)
    elapsed, cpu = time.monotonic() - started, time.process_time() - cpu
    served = server.cpu_s() - served
    return Figures(count / elapsed, cpu / count * 1e3, served / count * 1e3)


def plain_loop(address: str, frames: list[NDArray[np.uint8]]) -> Callable[[int], None]:
    """What tritonclient's own examples do: one request, its answer, the next one."""
    client = triton_grpc.InferenceServerClient(address)
    outputs = [triton_grpc.InferRequestedOutput(name) for name in ("swapped_frame", "faces")]

    def run(count: int) -> None:
        for index in range(count):
            frame = frames[index % len(frames)][None]
            tensors: list[tuple[str, str, NDArray[Any]]] = [
                ("frame", "UINT8", frame),
                ("source", "FP32", np.zeros((1, 1, SOURCE_LENGTH), np.float32)),
                ("options", "FP32", np.zeros((1, 16), np.float32)),
            ]
            inputs = []
            for name, datatype, array in tensors:
                tensor = triton_grpc.InferInput(name, list(array.shape), datatype)
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            answer = client.infer(MODEL, inputs, outputs=outputs)
            assert answer.as_numpy("swapped_frame").shape == frame.shape

    return run


class InPlace:
    """A source whose frame is made in the memory that is sent, once for each such memory."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self.shape = frame.shape
        self._frame = frame
        self._filled: set[int] = set()

    def copy_to(self, out: NDArray[np.uint8]) -> None:
        """Write the frame, unless it is there."""
        if out.ctypes.data not in self._filled:
            self._filled.add(out.ctypes.data)
            out[...] = self._frame


def our_stream(
    swapper: FaceSwapper,
    frames: Sequence[Frame],
    *,
    reuse_buffers: bool = False,
    read: bool = False,
) -> Callable[[int], None]:
    """The client's stream; of every result a few bytes are compared with the frame that was sent.

    Args:
        read: all bytes of it are read.
    """
    vector = np.zeros(SOURCE_LENGTH, np.float32)
    source = Source(vector, "identity", SWAPPER, np.zeros((0, 15), np.float32))

    samples = [as_array(frame)[::400, ::400].copy() for frame in frames]

    def several(count: int) -> Iterator[Frame]:
        for index in range(count):
            yield frames[index % len(frames)]

    def run(count: int) -> None:
        done = 0
        for swapped in swapper.stream(several(count), source, reuse_buffers=reuse_buffers):
            # A few bytes: comparing all would be measured as well.
            assert (swapped.frame[::400, ::400] == samples[done % len(samples)]).all()
            if read:
                swapped.frame.reshape(-1).view(np.uint64).max()
            done += 1
        assert done == count

    return run


def measure_perf_analyzer(
    server: Server, shape: tuple[int, int], in_flight: int, options: list[str], window: float
) -> Figures:
    """NVIDIA's load generator, which writes its frame once and reads no answer.

    CPU is that of its whole run, start and warm-up too, over all frames that the server counted.
    """
    tool = prepare_perf_analyzer()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        before, served, count = _children_s(), server.cpu_s(), server.answered()
        subprocess.run(
            [
                tool.binary, "-m", MODEL, "-i", "grpc", "-u", server.address,
                "--input-data=zero", f"--shape=frame:{shape[0]},{shape[1]}",
                f"--shape=source:1,{SOURCE_LENGTH}", f"--concurrency-range={in_flight}",
                *window_words(window), "-f", report, *options,
            ],
            env=tool.environment, capture_output=True, check=True,
        )  # fmt: skip
        cpu, served, count = (
            _children_s() - before, server.cpu_s() - served, server.answered() - count,
        )  # fmt: skip
        rate = read_table(report.read_text())["per second"]
    return Figures(rate, cpu / count * 1e3, served / count * 1e3)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def find_ways(server: Server, arguments: argparse.Namespace, stack: ExitStack) -> list[Way]:
    """Every way that works on this machine; its connections live as long as the stack."""
    width, height, in_flight = arguments.width, arguments.height, arguments.in_flight
    frames = make_frames(height, width)

    def ours(run: Callable[[int], None]) -> Callable[[], Figures]:
        return lambda: measure(server, run, arguments.frames)

    plain = plain_loop(server.address, frames)
    ways = [Way("tritonclient, one at a time", "3 + 2", "", ours(plain))]

    def connect(name: TransportName) -> FaceSwapper:
        swapper = FaceSwapper(server.address, transport=name, in_flight=in_flight)
        return stack.enter_context(swapper)

    names: tuple[TransportName, ...] = ("grpc", "system", "cuda")
    for name in names:
        try:
            swapper = connect(name)
        except TransportUnavailable as error:
            print(f"not run: {name}: {error}", file=sys.stderr)
            continue
        stream = our_stream(swapper, frames)
        copies = "1 + 1" if name == "grpc" else "1 + 0"
        ways.append(Way(f"frameswap, {name}", copies, _like(name), ours(stream)))
        if name == "grpc":
            stream = our_stream(swapper, frames, reuse_buffers=True)
            ways.append(Way("frameswap, grpc, reuse_buffers", "1 + 0", _like(name), ours(stream)))
        else:
            # With slots of its own: the others write over what lies in theirs.
            stream = our_stream(connect(name), [InPlace(frames[0])])
            ways.append(Way(f"frameswap, {name}, in place", "0 + 0", _like(name), ours(stream)))
            stream = our_stream(swapper, frames, read=True)
            ways.append(Way(f"frameswap, {name}, read", "1 + 0", _TOUCHED, ours(stream)))
    touched = stack.enter_context(closing(TouchedOnce(server.address, MODEL, frames, in_flight)))
    ways.append(Way(_TOUCHED, "1 + 0", "", ours(touched.run)))
    shape = (height * 3 // 2, width)
    shared = ["--shared-memory=system", f"--output-shared-memory-size={shape[0] * shape[1]}"]
    kinds: tuple[tuple[TransportName, list[str]], ...] = (("grpc", []), ("system", shared))
    for name, options in kinds:

        def generated(options: list[str] = options) -> Figures:
            window = arguments.seconds / WINDOWS
            return measure_perf_analyzer(server, shape, in_flight, options, window)

        copies = "0 + 0" if name == "system" else "not counted"
        ways.append(Way(_like(name), copies, "", generated))
    # The first one is what all are compared with.
    return [ways[0], *(way for way in ways[1:] if arguments.only in way.name)]


_TOUCHED: Final = "tritonclient, system, touched once"


def _like(transport: TransportName) -> str:
    return f"perf_analyzer, {transport}"


def run_all(server: Server, arguments: argparse.Namespace) -> list[Row]:
    """Measure every way, in turn, `arguments.rounds` times."""
    with ExitStack() as stack:
        ways = find_ways(server, arguments, stack)
        rounds = [[way.measure() for way in ways] for _ in range(arguments.rounds)]
    return [
        Row(way.name, way.copies, way.like, figures)
        for way, figures in zip(ways, zip(*rounds, strict=True), strict=True)
    ]


def format_table(rows: list[Row], arguments: argparse.Namespace) -> str:
    """A Markdown table: the plain loop is the first row."""
    lines = [
        f"{arguments.width}x{arguments.height} I420, {arguments.in_flight} in flight, "
        f"{'one process' if arguments.one_process else 'a process a step'}, "
        f"instances: {arguments.instances}, "
        f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), "
        f"medians of {arguments.rounds}",
        "",
        "| client | copies out + in | frames/s (least, most) | client CPU-ms a frame | "
        "server CPU-ms a frame | times the plain loop | of its like |",
        "|---|---|---|---|---|---|---|",
    ]
    rates = {row.name: row.median("frames_per_s") for row in rows}
    by_name = {row.name: row for row in rows}
    for row in rows:
        spread = [figures.frames_per_s for figures in row.figures]
        share = f"{100 * row.share_of(by_name[row.like]):.0f} %" if row.like in by_name else ""
        lines.append(
            f"| {row.name} | {row.copies} | {rates[row.name]:.0f} ({min(spread):.0f}, "
            f"{max(spread):.0f}) | {row.median('client_ms'):.2f} | "
            f"{row.median('server_ms'):.2f} | {rates[row.name] / rates[rows[0].name]:.1f} | "
            f"{share} |"
        )
    return "\n".join(lines)


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=300, help="frames a measurement")
    parser.add_argument("--seconds", type=float, default=4.0, help="of perf_analyzer's windows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--one-process", action="store_true", help="the ensemble's steps in one process"
    )
    parser.add_argument(
        "--instances", type=int, default=1, help="of that one process; of each step without it"
    )
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--only", default="", help="beside the plain loop, ways that hold this")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    arguments = read_arguments(argv)
    size = (arguments.width, arguments.height)
    # As the command line does; the plain loop gains as much by it.
    keep_large_buffers()
    with tempfile.TemporaryDirectory() as folder:
        write_copy_repository(Path(folder), COMMITTED)
        try:
            with EmbeddedServer(
                Path(folder), models=[MODEL], frame_size=size,
                requests_in_flight=arguments.in_flight, one_process=arguments.one_process,
                instance_counts=dict.fromkeys(
                    [MODEL] if arguments.one_process else STEPS, arguments.instances
                ),
            ) as server:  # fmt: skip
                rows = run_all(Server(server.grpc_url, server.pid), arguments)
        except ServerError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(format_table(rows, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
