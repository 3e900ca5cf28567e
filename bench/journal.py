"""What a journal costs: whole jobs in segments beside jobs that are written as they come.

    python -m bench.journal --rounds 5

Both swap the same clip through a server whose models only copy (`bench/copy_repository.py`), with
decoding and encoding. They take turns, and each figure is the median of its rounds; what it costs
is the median over pairs of neighbouring runs, which other work on the machine slows alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from frameswap import Encoding, FaceSwapper, Source, SwapOptions, swap_job
from frameswap.allocation import keep_large_buffers
from frameswap.job_control import JobControl
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


def run_job(name: str, swapper: FaceSwapper, clip: Path, folder: Path) -> tuple[float, int]:
    """Seconds of one whole job, and bytes of what it made."""
    source = Source(np.ones(512, np.float32), "identity", SWAPPER, np.zeros((0, 15), np.float32))
    output = folder / "out.mp4"
    started_s = time.monotonic()
    with VideoReader(clip) as reader:
        WAYS[name](
            swap_job.VideoTask(
                swapper, reader, [source], SwapOptions(), output, True, Encoding(), "auto",
                lambda notes: None, lambda done: None, Journaling(), JobControl(), None, None,
            )
        )
    return time.monotonic() - started_s, output.stat().st_size


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
            figures: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way, found in figures.items():
                    found.append(run_job(way, swapper, clip, folder))
    seconds = {way: statistics.median(each[0] for each in found) for way, found in figures.items()}
    sizes = {way: found[0][1] for way, found in figures.items()}
    for way in WAYS:
        print(f"{way:12} {arguments.frames / seconds[way]:7.1f} frames/s {sizes[way]:10} bytes")
    plain, journaled = WAYS
    pairs = zip(figures[plain], figures[journaled], strict=True)
    costs = [100 * (after[0] / before[0] - 1) for before, after in pairs]
    spread = f"{min(costs):+.1f} to {max(costs):+.1f}"
    print(f"time {statistics.median(costs):+.1f} % ({spread}), ", end="")
    print(f"size {100 * (sizes[journaled] / sizes[plain] - 1):+.1f} %")


if __name__ == "__main__":
    main()
