"""What a journal costs: whole jobs in segments beside jobs that are written as they come.

    python -m bench.journal --rounds 5

Both swap the same clip through a server whose models only copy (`bench/copy_repository.py`), with
decoding and encoding. They take turns, and each figure is the median of its rounds. Beside the time
stands the client's processor time, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from frameswap import Encoding, FaceSwapper, Source, SwapOptions, swap_job
from frameswap.allocation import keep_large_buffers
from frameswap.job_control import JobControl
from frameswap.persons.casting import Casting
from frameswap.report import Tally
from frameswap.segmented_job import Journaling
from frameswap.video import VideoReader

from bench.copy_repository import SWAPPER, write_copy_repository
from demo.make_clip import clip_of, write_clip
from server.launcher import EmbeddedServer

COMMITTED: Final = Path(__file__).resolve().parent.parent / "model_repository"
WAYS: Final[dict[str, Callable[[swap_job.VideoTask], Tally]]] = {
    "as it comes": swap_job._swap_as_it_comes,
    "in segments": swap_job._swap_in_segments,
}


@dataclass(frozen=True)
class Run:
    """One whole job; cpu_s: the client's processor time. size: bytes of what it made."""

    seconds: float
    cpu_s: float
    size: int


def run_job(name: str, swapper: FaceSwapper, clip: Path, folder: Path) -> Run:
    """Run one job to its end."""
    source = Source(np.ones(512, np.float32), "identity", SWAPPER, np.zeros((0, 15), np.float32))
    output = folder / "out.mp4"
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    with VideoReader(clip) as reader:
        WAYS[name](
            swap_job.VideoTask(
                swapper, reader, Casting.by_place([source]), None, SwapOptions(), output, True,
                Encoding(), "auto", lambda notes: None, lambda done: None, Journaling(),
                JobControl(), None, None,
            )
        )  # fmt: skip
    seconds, cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
    return Run(seconds, cpu_s, output.stat().st_size)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=750)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    arguments = parser.parse_args()
    keep_large_buffers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "in.mp4"
        size = {"width": arguments.width, "height": arguments.height}
        write_clip(clip, clip_of("gauss", frames=arguments.frames, **size), audio=True)
        write_copy_repository(folder / "models", COMMITTED)
        with (
            EmbeddedServer(folder / "models", models=["swap_faces_i420"]) as server,
            FaceSwapper(server.grpc_url, in_flight=6) as swapper,
        ):
            runs: dict[str, list[Run]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way, found in runs.items():
                    found.append(run_job(way, swapper, clip, folder))
    report(runs, arguments.frames)


def report(runs: dict[str, list[Run]], frames: int) -> None:
    """Print a line a way, and what the second costs beside the first."""
    medians = {
        way: Run(
            statistics.median(run.seconds for run in found),
            statistics.median(run.cpu_s for run in found),
            found[0].size,
        )
        for way, found in runs.items()
    }
    for way, run in medians.items():
        rate, cpu_ms = frames / run.seconds, 1000 * run.cpu_s / frames
        print(f"{way:12} {rate:7.1f} frames/s {cpu_ms:7.2f} CPU-ms a frame {run.size:10} bytes")
    plain, journaled = medians.values()
    for what in ("seconds", "cpu_s", "size"):
        ratio = getattr(journaled, what) / getattr(plain, what)
        print(f"{what} {100 * (ratio - 1):+.1f} %")


if __name__ == "__main__":
    main()
