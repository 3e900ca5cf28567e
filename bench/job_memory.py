"""Memory over one job: of the client and of the server, sampled, told and drawn."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from server.launcher import EmbeddedServer

SAMPLE_S: Final = 1.0
LEAST_SAMPLES: Final = 10
"""Under the line that tells growth."""


@dataclass(frozen=True)
class MemorySample:
    """Resident memory at `seconds` into a job, in MiB: the client's, and the server's tree."""

    seconds: float
    client_mib: float
    server_mib: float


def resident_mib(process: psutil.Process, *, tree: bool) -> float:
    """Resident memory of a process, with its children when `tree`; 0 once it is gone."""
    try:
        processes = [process, *(process.children(recursive=True) if tree else [])]
        return sum(p.memory_info().rss for p in processes) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def measure_memory(
    server: EmbeddedServer, source: Path, target: Path, output: Path
) -> list[MemorySample]:
    """Run `frameswap swap` as a process of its own and sample memory every SAMPLE_S seconds.

    Raises:
        subprocess.CalledProcessError: the job failed; it has said why.
    """
    command = [
        sys.executable, "-m", "frameswap", "swap", "--server", server.grpc_url, "--source",
        str(source), "--target", str(target), "--output", str(output), "--force", "--steady", "off",
    ]  # fmt: skip
    samples = []
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
        client, tree = psutil.Process(job.pid), psutil.Process(server.pid)
        while job.poll() is None:
            samples.append(
                MemorySample(
                    time.perf_counter() - start,
                    resident_mib(client, tree=False),
                    resident_mib(tree, tree=True),
                )
            )
            time.sleep(SAMPLE_S)
    if job.returncode != 0:
        raise subprocess.CalledProcessError(job.returncode, command)
    return [sample for sample in samples if sample.client_mib > 0]


def describe_memory(samples: list[MemorySample], rows: int = 20) -> str:
    """The curve as `rows` lines: seconds, client and server memory, each with a bar."""
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, rows).round().astype(int)]
    most = max(max(s.client_mib, s.server_mib) for s in chosen)
    lines = [f"{'seconds':>8s} {'client MiB':>11s} {'server MiB':>11s}"]
    for sample in chosen:
        bars = ["#" * round(20 * value / most) for value in (sample.client_mib, sample.server_mib)]
        lines.append(
            f"{sample.seconds:8.0f} {sample.client_mib:11.0f} {sample.server_mib:11.0f}"
            f"  {bars[0]:20s}  {bars[1]}"
        )
    half = samples[len(samples) // 2 :]
    if len(half) < LEAST_SAMPLES:
        lines.append(f"growth: the job was too short to tell, {len(samples)} samples")
        return "\n".join(lines)
    client, server = (
        np.polyfit([s.seconds for s in half], [getattr(s, name) for s in half], 1)[0] * 60
        for name in ("client_mib", "server_mib")
    )
    lines.append(
        f"growth over the second half, MiB a minute: client {client:+.2f}, server {server:+.2f}"
    )
    return "\n".join(lines)


def plot_memory(samples: list[MemorySample], path: Path) -> None:
    """Resident memory over time, to a picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    seconds = [sample.seconds for sample in samples]
    axes.plot(seconds, [sample.client_mib for sample in samples], label="client")
    axes.plot(seconds, [sample.server_mib for sample in samples], label="server, all processes")
    axes.set_xlabel("seconds")
    axes.set_ylabel("resident MiB")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path)
