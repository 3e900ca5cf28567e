"""Whole video jobs on a CPU: `frameswap swap` with the embedded server beside the classic way.

    python -m bench.cpu_compare                  360p, 720p and 1080p, alternating, best of three
    python -m bench.cpu_compare --soak           memory over one job of 10,000 frames

Both sides swap Newton's face onto a moving picture of Gauss with the same networks, decoder and
encoder. A job's time runs from opening the video to closing the result; loading networks and
starting the server are not in it. Runs alternate, so that whatever else a machine does hits both.
Per-stage times are the pipeline's own for the classic way; for the server they are Triton's
statistics (they overlap with each other and with the client's decoding and encoding).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import av
import numpy as np
import psutil
from frameswap import FaceSwapper, FrameswapError, SwapOptions
from frameswap.encoders import Encoding
from frameswap.swap_job import swap_video as swap_on_server
from frameswap.video import VideoReader
from tritonclient import grpc as triton_grpc

from bench import classic_pipeline
from bench.classic_pipeline import CRF, PRESET, JobReport, describe_report
from bench.job_memory import describe_memory, measure_memory, plot_memory
from demo.make_clip import clip_of, write_clip
from demo.photos import photo_path, read_photo
from fetching.weights import WeightsError
from graphs.contract import models_of
from server.errors import ServerError
from server.launcher import EmbeddedServer

ROOT: Final = Path(__file__).resolve().parent.parent
SIZES: Final = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
SERVED: Final = ("swap_faces_i420", "encode_source_bgr")
LAST_STEP: Final = models_of(SERVED[0])[-1]
STATISTICS_S: Final = 5.0
SOAK_FRAMES: Final = 10_000
SOAK_CLIP_FRAMES: Final = 250
SOURCE, TARGET = "newton", "gauss"
SWAPPER: Final = "image_swapper_256"
"""What the classic way does, too."""


@dataclass(frozen=True)
class Comparison:
    """One size: the best run of each side, and every run's rate in the order they ran."""

    size: str
    frameswap: JobReport
    classic: JobReport
    frameswap_rates: list[float]
    classic_rates: list[float]

    @property
    def ratio(self) -> float:
        """Median over the pairs of runs that stand next to each other in time."""
        pairs = zip(self.frameswap_rates, self.classic_rates, strict=True)
        return float(np.median([ours / theirs for ours, theirs in pairs]))


class ServerStages:
    """What Triton spent in each model since this was made, from its statistics.

    Where one process runs all steps of an ensemble, Triton knows the ensemble alone.
    """

    def __init__(self, url: str) -> None:
        self._client = triton_grpc.InferenceServerClient(url)
        self._before = self._read()

    def _read(self) -> dict[str, tuple[int, int, int]]:
        """Model to (rows inferred, executions, nanoseconds of them); a batch counts once."""
        found = {
            model.name: (
                int(model.inference_count),
                int(model.execution_count),
                sum(int(batch.compute_infer.ns) for batch in model.batch_stats),
            )
            for model in self._client.get_inference_statistics().model_stats
        }
        steps = {name: counts for name, counts in found.items() if name not in SERVED}
        return steps or found

    def seconds(self, frames: int) -> dict[str, float]:
        """Seconds of inference of each model that ran; its name tells the mean batch as well.

        Triton counts a request a moment after it has answered it: this waits, for STATISTICS_S at
        most, until the ensemble's last step has counted `frames` rows.
        """
        deadline = time.monotonic() + STATISTICS_S
        last = LAST_STEP if LAST_STEP in self._before else SERVED[0]
        before = self._before.get(last, (0, 0, 0))[0]
        while (after := self._read()).get(last, (0, 0, 0))[0] - before < frames:
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        stages = {}
        for name, (rows, executions, nanoseconds) in sorted(after.items()):
            old_rows, old_executions, old_nanoseconds = self._before.get(name, (0, 0, 0))
            if executions > old_executions:
                batch = (rows - old_rows) / (executions - old_executions)
                stages[f"{name}, mean batch {batch:.1f}"] = (nanoseconds - old_nanoseconds) / 1e9
        return stages


def cpu_seconds(server: EmbeddedServer) -> float:
    """Processor time so far of this process and of the server with the models' processes."""
    root = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return time.process_time() + sum(spent.user + spent.system for spent in times)


def run_frameswap(server: EmbeddedServer, target: Path, output: Path) -> JobReport:
    """One job through the client library, exactly as `frameswap swap` does it."""
    with FaceSwapper(server.grpc_url) as swapper:
        source = swapper.encode_source(read_photo(SOURCE))
        stages = ServerStages(server.grpc_url)
        start, cpu_start = time.perf_counter(), cpu_seconds(server)
        with VideoReader(target) as reader:
            options = replace(
                SwapOptions(),
                color_matrix=reader.tags.color_matrix,
                color_range=reader.tags.color_range,
                chroma_location=reader.chroma_location,
            )
            tally = swap_on_server(
                swapper, reader, [source], options, output, force=True,
                encoding=Encoding("x264", CRF, PRESET), audio="copy",
                on_notes=lambda notes: None, on_frame=lambda done: None,
            )  # fmt: skip
        seconds, cpu_spent = time.perf_counter() - start, cpu_seconds(server) - cpu_start
    return JobReport(tally.frames, tally.faces, seconds, cpu_spent, stages.seconds(tally.frames))


def run_classic(target: Path, output: Path, detector: str, threads: int) -> JobReport:
    """One job of the classic way."""
    return classic_pipeline.swap_video(
        read_photo(SOURCE), target, output, detector=detector, threads=threads
    )


def compare(
    size: str, rounds: int, ours: Callable[[], JobReport], classic: Callable[[], JobReport]
) -> Comparison:
    """Run both sides in turn, `rounds` times after one run of each that does not count."""
    ours()
    classic()
    reports = [(ours(), classic()) for _ in range(rounds)]
    best = [min(side, key=lambda report: report.seconds) for side in zip(*reports, strict=True)]
    rates = [[report.frame_rate for report in side] for side in zip(*reports, strict=True)]
    return Comparison(size, best[0], best[1], rates[0], rates[1])


def make_clip(folder: Path, size: str, frames: int) -> Path:
    """The moving picture of Gauss at `size`."""
    width, height = SIZES[size]
    path = folder / f"{size}.mp4"
    write_clip(path, clip_of(TARGET, width=width, height=height, frames=frames))
    return path


def repeat_clip(clip: Path, times: int, output: Path) -> None:
    """Write `clip`'s video `times` times in a row, without decoding it."""
    with ExitStack() as stack:
        written = stack.enter_context(av.open(str(output), "w"))
        first = stack.enter_context(av.open(str(clip)))
        target = written.add_stream_from_template(first.streams.video[0])
        for turn in range(times):
            with av.open(str(clip)) as read:
                stream = read.streams.video[0]
                assert stream.average_rate is not None
                assert stream.time_base is not None
                step = round(1 / (Fraction(stream.average_rate) * Fraction(stream.time_base)))
                for packet in read.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue  # the empty packet at the end
                    shift = turn * stream.frames * step
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = target
                    written.mux(packet)


def describe_table(comparisons: list[Comparison]) -> str:
    """Rates and processor time of both sides, and the ratio of the rates, one line a size."""
    lines = [f"{'':7s} {'frames/s':^22s} {'':7s} {'CPU-ms a frame':^22s}"]
    sides = f"{'frameswap':>11s} {'classic':>10s}"
    lines.append(f"{'size':>7s} {sides} {'ratio':>7s} {sides}")
    for row in comparisons:
        ours, classic = row.frameswap, row.classic
        lines.append(
            f"{row.size:>7s} {ours.frame_rate:11.1f} {classic.frame_rate:10.1f} {row.ratio:7.2f} "
            f"{ours.cpu_ms_per_frame:11.1f} {classic.cpu_ms_per_frame:10.1f}"
        )
    return "\n".join(lines)


def plot_comparisons(comparisons: list[Comparison], path: Path) -> None:
    """Frames a second of both sides as bars, to a picture file."""
    from matplotlib.figure import Figure  # only here: nothing else needs it

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(comparisons))
    sides = ("frameswap", "classic")
    for side, shift in zip(sides, (-0.2, 0.2), strict=True):
        rates = [getattr(row, side).frame_rate for row in comparisons]
        axes.bar(places + shift, rates, 0.4, label=side)
    axes.set_xticks(places, [row.size for row in comparisons])
    axes.set_ylabel("frames a second")
    axes.legend()
    figure.savefig(path)


def _compare_sizes(args: argparse.Namespace, server: EmbeddedServer, folder: Path) -> None:
    comparisons = []
    for size in args.sizes:
        clip = make_clip(folder, size, args.frames)
        row = compare(
            size,
            args.rounds,
            partial(run_frameswap, server, clip, folder / "ours.mp4"),
            partial(run_classic, clip, folder / "classic.mp4", args.detector, args.threads),
        )
        comparisons.append(row)
        for name, report in (("frameswap", row.frameswap), ("classic", row.classic)):
            print(f"\n{size} {name}: {describe_report(report)}", flush=True)
    print(f"\n{describe_table(comparisons)}")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in comparisons], indent=1))
    if args.plot is not None:
        plot_comparisons(comparisons, args.plot)


def _soak(args: argparse.Namespace, server: EmbeddedServer, folder: Path) -> None:
    length = min(SOAK_CLIP_FRAMES, args.soak_frames)
    target = folder / "long.mp4"
    repeat_clip(
        make_clip(folder, args.sizes[0], length), math.ceil(args.soak_frames / length), target
    )
    samples = measure_memory(server, photo_path(SOURCE), target, folder / "soaked.mp4")
    print(describe_memory(samples))
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))
    if args.plot is not None:
        plot_memory(samples, args.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--frames", type=int, default=120, help="of each clip")
    parser.add_argument("--rounds", type=int, default=3, help="counted runs of each side")
    parser.add_argument("--threads", type=int, default=0, help="of the classic way's sessions")
    parser.add_argument(
        "--detector", choices=classic_pipeline.CLASSIC_DETECTORS, default="yunet",
        help="of both sides",
    )  # fmt: skip
    parser.add_argument(
        "--accept-licence", action="store_true",
        help="the licence of that detector's weights fits your use: fetch what is missing",
    )  # fmt: skip
    parser.add_argument("--soak", action="store_true", help="memory over one long job instead")
    parser.add_argument("--soak-frames", type=int, default=SOAK_FRAMES)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--plot", type=Path, help="also draw them there, as PNG, SVG or PDF")
    return parser


def _build(args: argparse.Namespace, repository: Path) -> None:
    command = [
        "build_engines.py", "--target", "cpu", "--swapper", SWAPPER, "--detector", args.detector,
        "--repository", str(repository), *(["--accept-licence"] * args.accept_licence),
        "--models", *models_of(*SERVED),
    ]  # fmt: skip
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's head. 0, or 1 after one sentence."""
    args = _parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            scratch = tempfile.TemporaryDirectory(prefix="frameswap-bench-")
            folder = Path(stack.enter_context(scratch))
            repository = folder / "model_repository"
            _build(args, repository)
            server = stack.enter_context(EmbeddedServer(repository, target="cpu", models=SERVED))
            if args.soak:
                _soak(args, server, folder)
            else:
                _compare_sizes(args, server, folder)
    except subprocess.CalledProcessError as error:
        program = next(word for word in error.cmd[1:] if not word.startswith("-"))
        print(f"bench: {program} exited with {error.returncode}", file=sys.stderr)
        return 1
    except (ServerError, FrameswapError, WeightsError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
