"""Command line and environment of the embedded tritonserver, with the reason for each choice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from server.distribution import Distribution
from server.memory_plan import MemoryPlan
from server.repository import Repository

KEY_NAME: Final = "frameswap-key"
GRPC_KEY_HEADER: Final = f"triton-grpc-protocol-{KEY_NAME}"
HTTP_RESTRICTED: Final = (
    "inference,metadata,model-repository,model-config,shared-memory,statistics,trace,logging"
)
GRPC_RESTRICTED: Final = "model-repository,trace,logging"
"""Shared memory, statistics and model configs stay open: clients and perf_analyzer need them."""

EXIT_TIMEOUT_S: Final = 5

GPU_METRICS_INTERVAL_MS: Final = 10_000
"""How often Triton asks the driver for the GPU's use. Requests under way wait meanwhile: sent one
by one to an H100, p99 was 40 ms at Triton's default of two seconds, and 24 ms without GPU metrics.
Counters of requests are always up to date."""

CPU_METRICS_INTERVAL_MS: Final = 500
"""Where there is only the processor's use to read, which costs nothing. The thread that reads it
sleeps for half an interval and is waited for when the server stops: with ten seconds a stop took
three seconds longer."""

MALLOC: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""Frames are larger than malloc's threshold for giving memory back to the system, which then hands
out fresh pages for each frame: at 1080p the page faults cost ten times what the copies do."""


def server_command(
    distribution: Distribution,
    repository: Repository,
    plan: MemoryPlan,
    backends: Path,
    *,
    address: str,
    ports: Sequence[int],
    region_prefix: str,
    key: str,
    verbose: bool,
) -> list[str]:
    """Return the arguments that start the server.

    Args:
        backends: the folder of `write_backends`.
        ports: of gRPC, HTTP and metrics.
        region_prefix: what the names of its shared memory regions start with.
        key: secret that restricted calls need.
        verbose: log every request.
    """
    grpc, http, metrics = ports
    interval_ms = GPU_METRICS_INTERVAL_MS if plan.cuda_pool else CPU_METRICS_INTERVAL_MS
    python = {
        "shm-region-prefix-name": region_prefix,
        "shm-default-byte-size": plan.region_start,
        "shm-growth-byte-size": plan.region_growth,
    }
    return [
        str(distribution.binary),
        f"--model-repository={repository.folder.resolve()}",
        f"--backend-directory={backends}",
        f"--model-config-name={repository.target}",
        # The configs are complete; completing them would start each model's process twice.
        "--disable-auto-complete-config",
        # Explicit, so that one dead model can be loaded again while the others go on.
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in repository.asked),
        *(f"--backend-config=python,{name}={value}" for name, value in python.items()),
        f"--grpc-address={address}", f"--grpc-port={grpc}",
        f"--http-address={address}", f"--http-port={http}",
        f"--metrics-address={address}", f"--metrics-port={metrics}",
        f"--http-restricted-api={HTTP_RESTRICTED}:{KEY_NAME}={key}",
        f"--grpc-restricted-protocol={GRPC_RESTRICTED}:{KEY_NAME}={key}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--pinned-memory-pool-byte-size={plan.pinned_pool}",
        *([f"--cuda-memory-pool-byte-size=0:{plan.cuda_pool}"] if plan.cuda_pool else []),
        f"--allow-gpu-metrics={str(bool(plan.cuda_pool)).lower()}",
        f"--metrics-interval-ms={interval_ms}",
        "--allow-sagemaker=false", "--allow-vertex-ai=false",
        f"--log-info={str(verbose).lower()}", f"--log-verbose={int(verbose)}",
    ]  # fmt: skip


def server_environment(distribution: Distribution) -> dict[str, str]:
    """Return the environment of the server process."""
    environment = {**os.environ, **MALLOC}
    for key, folders in (
        ("PATH", [distribution.python_home]),
        ("LD_LIBRARY_PATH", distribution.libraries),
    ):
        present = [environment[key]] if environment.get(key) else []
        environment[key] = os.pathsep.join([*map(str, folders), *present])
    return environment
