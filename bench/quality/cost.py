"""What steadiness costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import psutil
from frameswap import Steadiness, SwappedFrame
from frameswap.persons import follow

from bench.quality.chains import AHEAD, FPS, SIZES, Bench, Row
from bench.quality.scenes import Image, Pose, as_i420, scene


def cost(
    bench: Bench, *, sizes: Sequence[str] = ("720p", "1080p"), frames: int = 96, rounds: int = 3
) -> Iterator[Row]:
    """Frames a second of both chains, in turn, and the processor time that a frame takes: of this
    process and of those below it, so of an embedded server's, too."""
    head = bench.heads["gauss"]
    for size in sizes:
        width, height = SIZES[size]
        clip = [
            as_i420(scene(width, height, [(head, Pose(width / 2 + k, height / 2, height * 0.5))]))
            for k in range(24)
        ]
        rates: tuple[list[float], list[float]] = ([], [])
        spent: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for which, chain in enumerate((_chain_off(bench), _chain_on(bench))):
                shown = (clip[min(k % 48, 47 - k % 48)] for k in range(frames))
                start_s, start_cpu_s = time.perf_counter(), _processor_s()
                for _each in chain(shown):
                    pass
                rates[which].append(frames / (time.perf_counter() - start_s))
                spent[which].append((_processor_s() - start_cpu_s) / frames * 1e3)
        off, on = (float(np.median(each)) for each in rates)
        ratio = float(np.median(np.divide(rates[1], rates[0])))
        yield Row(f"{size}: frames/s; ratio, median of {rounds}", f"{off:.1f}",
                  f"{on:.1f}; {ratio:.2f}", "0.8", ratio >= 0.8)  # fmt: skip
        off, on = (float(np.median(each)) for each in spent)
        ratio = float(np.median(np.divide(spent[0], spent[1])))
        yield Row(f"{size}: processor time, ms a frame; ratio, median of {rounds}", f"{off:.1f}",
                  f"{on:.1f}; {ratio:.2f}", "-")  # fmt: skip


def _processor_s() -> float:
    """Seconds of processor time of this process and all below it so far."""
    mine = psutil.Process()
    times = [each.cpu_times() for each in (mine, *mine.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


Chain = Callable[[Iterator[Image]], Iterator[SwappedFrame]]


def _chain_off(bench: Bench) -> Chain:
    return lambda frames: bench.swapper.stream(frames, bench.sources["newton"], reuse_buffers=True)


def _chain_on(bench: Bench) -> Chain:
    return lambda frames: follow(
        bench.swapper, frames, bench.everyone, pixel="i420", ahead=AHEAD, frame_rate=FPS,
        search=Steadiness().search, reuse_buffers=True,
    )  # fmt: skip
