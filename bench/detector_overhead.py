"""What finding and aligning faces costs beyond the detector's own network, on a CPU.

    python -m bench.detector_overhead --threads 2

For each frame size and pixel format: the time of the whole served graph, of the network alone, and
the difference, which is letterbox, decoding, suppression, alignment and one crop. Times are the
fastest quarter's slowest, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from bench.classic_pipeline import open_session
from fetching import weights
from graphs import face_detector
from graphs.contract import FRAME_FORMATS, OPTION_COUNT, FrameFormat
from networks.detectors import DEFAULT_DETECTOR, DETECTORS
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS

Feeds = dict[str, npt.NDArray[np.generic]]


def measure_ms(run: Callable[[], object], runs: int) -> float:
    """First quartile of `runs` runs, after three that do not count."""
    for _ in range(3):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.quantile(times, 0.25)) * 1e3


def frame_of(frame_format: FrameFormat, height: int, width: int) -> npt.NDArray[np.uint8]:
    shape = (1, height * 3 // 2, width) if frame_format == "i420" else (1, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--detector", choices=sorted(DETECTORS), default=DEFAULT_DETECTOR)
    parser.add_argument("--heights", type=int, nargs="+", default=[360, 720, 1080, 2160])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    chosen = parser.parse_args(arguments)
    detector, landmarker = DETECTORS[chosen.detector], LANDMARKERS[DEFAULT_LANDMARKER]
    weights.fetch(detector.weight)
    network = weights.load_network(detector.weight)
    alone = open_session(network, chosen.threads)
    pixels = np.zeros((1, 3, 640, 640), np.float32)
    network_feeds: Feeds = {network.graph.input[0].name: pixels}
    network_ms = measure_ms(partial(alone.run, None, network_feeds), chosen.runs)
    print(f"{detector.name} alone, {chosen.threads} threads: {network_ms:.1f} ms")
    for frame_format in FRAME_FORMATS:
        session = open_session(
            face_detector.build(
                frame_format, detector, network, landmarker=landmarker, runtime="onnxruntime"
            ),
            chosen.threads,
        )
        for height in chosen.heights:
            feeds: Feeds = {
                "frame": frame_of(frame_format, height, height * 16 // 9 // 2 * 2),
                "options": np.zeros((1, OPTION_COUNT), np.float32),
            }
            whole_ms = measure_ms(partial(session.run, None, feeds), chosen.runs)
            beyond_ms = whole_ms - network_ms
            print(f"{frame_format} {height}p: {whole_ms:.1f} ms, {beyond_ms:.1f} ms beyond it")


if __name__ == "__main__":
    main()
