"""GPU use, memory and clock while a load runs: NVML's word, nvidia-smi's, the server's metrics'.

NVML's utilisation is the share of its last sample period (a sixth of a second to a second) in which
at least one kernel ran: it tells idle from busy, not how much of the GPU a kernel fills. The clock
of its multiprocessors tells a GPU that was slowed down, by heat or for want of power, from a slow
server. Source: NVML API reference, device queries.
"""

from __future__ import annotations

import functools
import math
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any, Final

PERIOD_S: Final = 0.1
METRICS_PERIOD_S: Final = 1.0
IDLE_BELOW: Final = 50.0
NO_SAMPLER: Final = (
    "GPU use is not sampled: neither pynvml (nvidia-ml-py) nor nvidia-smi is on this machine"
)
NO_GPU_METRICS: Final = "the metrics endpoint names no GPU"
_METRIC: Final = re.compile(r"^(nv_\w+)(?:\{[^}]*\})?\s+(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """seconds since the start, utilisation in percent, memory in use in bytes, clock in MHz."""

    seconds: float
    busy: float
    memory: float
    clock: float


Probe = Callable[[], tuple[float, float, float]]
"""Utilisation in percent, bytes in use, the multiprocessors' clock in MHz (nan: not told), now."""


def nvml_probe(nvml: Any) -> Probe:
    """Reads GPU 0 through NVML's bindings."""

    @functools.cache
    def device() -> Any:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByIndex(0)

    def read() -> tuple[float, float, float]:
        busy = nvml.nvmlDeviceGetUtilizationRates(device()).gpu
        memory = nvml.nvmlDeviceGetMemoryInfo(device()).used
        try:
            clock = nvml.nvmlDeviceGetClockInfo(device(), nvml.NVML_CLOCK_SM)
        except nvml.NVMLError:
            # Virtual GPUs do not tell theirs.
            clock = math.nan
        return float(busy), float(memory), float(clock)

    return read


def smi_probe(binary: str) -> Probe:
    """Reads GPU 0 through nvidia-smi, a process each time."""
    command = [
        binary, "--id=0", "--query-gpu=utilization.gpu,memory.used,clocks.sm",
        "--format=csv,noheader,nounits",
    ]  # fmt: skip

    def read() -> tuple[float, float, float]:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
        busy, memory, clock = (part.strip() for part in done.stdout.splitlines()[0].split(","))
        told = float(clock) if clock.isdecimal() else math.nan  # "[N/A]" of a virtual GPU
        return float(busy), float(memory) * 2**20, told

    return read


def find_probe() -> Probe | None:
    """NVML where its bindings are, else nvidia-smi, else None."""
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError:
        binary = shutil.which("nvidia-smi")
        return smi_probe(binary) if binary else None
    return nvml_probe(pynvml)


def metrics_probe(url: str) -> Probe:
    """Reads the metrics endpoint; nan where it names no GPU.

    Args:
        url: HOST:PORT.
    """

    def read() -> tuple[float, float, float]:
        with urllib.request.urlopen(f"http://{url}/metrics", timeout=5) as answer:
            values = parse_metrics(answer.read().decode())
        busy = values.get("nv_gpu_utilization", [math.nan])[0]
        memory = values.get("nv_gpu_memory_used_bytes", [math.nan])[0]
        return 100 * busy, memory, math.nan

    return read


def parse_metrics(text: str) -> dict[str, list[float]]:
    """Values of every metric in Prometheus' text form, in the order of the text."""
    values: dict[str, list[float]] = {}
    for name, value in _METRIC.findall(text):
        values.setdefault(name, []).append(float(value))
    return values


class Sampler:
    """Asks a probe again and again while a block runs, in a thread of its own."""

    def __init__(self, probe: Probe | None, period_s: float = PERIOD_S) -> None:
        self._probe = probe
        self._period_s = period_s
        self._stop = Event()
        self.samples: list[Sample] = []
        self.error = ""

    def __enter__(self) -> Sampler:
        self._start = time.monotonic()
        self._thread = Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while self._probe is not None and not self._stop.wait(self._period_s):
            try:
                told = self._probe()
            except Exception as error:
                # NVML and nvidia-smi have error types of their own: said in the facts.
                self.error = f"GPU use is not sampled: {error}"
                return
            self.samples.append(Sample(time.monotonic() - self._start, *told))


def loaded_part(samples: Sequence[Sample]) -> list[Sample]:
    """From the first sample of at least half the median to the last, less a tenth at each end.

    The median is that of the samples that are not 0. A load generator starts up, sends a few
    requests to try the server, and tells its figures while the GPU rests or nearly so; a gap
    between two loaded samples counts.
    """
    busy = sorted(sample.busy for sample in samples if sample.busy > 0)
    half = busy[len(busy) // 2] / 2 if busy else 0.0
    loaded = [index for index, sample in enumerate(samples) if sample.busy >= half > 0]
    if not loaded:
        return list(samples)
    part = list(samples[loaded[0] : loaded[-1] + 1])
    cut = len(part) // 10
    return part[cut : len(part) - cut]


def gpu_facts(sampler: Sampler) -> dict[str, Any]:
    """Mean use, idle share, memory and lowest clock, with the series; a sentence without any."""
    if not sampler.samples:
        return {"gpu": sampler.error or NO_SAMPLER}
    part = loaded_part(sampler.samples)
    below = sum(sample.busy < IDLE_BELOW for sample in part)
    clocks = [sample.clock for sample in part if not math.isnan(sample.clock)]
    return {
        "gpu busy %": round(sum(sample.busy for sample in part) / len(part), 1),
        "gpu samples": len(part),
        "gpu samples below 50 %": round(100 * below / len(part), 1),
        "gpu memory GiB": round(max(sample.memory for sample in part) / 2**30, 2),
        **({"gpu lowest MHz": round(min(clocks))} if clocks else {}),
        "gpu series": [[round(s.seconds, 2), s.busy] for s in sampler.samples],
    }


def endpoint_facts(sampler: Sampler) -> dict[str, Any]:
    """What the server's metrics said of the GPU over the same time."""
    named = [sample for sample in sampler.samples if sample.busy == sample.busy]
    if not named:
        return {"endpoint": sampler.error or NO_GPU_METRICS}
    part = loaded_part(named)
    return {
        "endpoint busy %": round(sum(sample.busy for sample in part) / len(part), 1),
        "endpoint memory GiB": round(max(sample.memory for sample in part) / 2**30, 2),
    }
