"""Command line and environment of the embedded tritonserver, with the reason for each choice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frameswap.keys import SHARED_MEMORY_KEY

from server.distribution import Distribution
from server.doors import Doors
from server.memory_plan import MemoryPlan
from server.repository import Repository

KEY_NAME: Final = "frameswap-key"
GRPC_KEY_HEADER: Final = f"triton-grpc-protocol-{KEY_NAME}"
HTTP_RESTRICTED: Final = (
    "inference,metadata,model-repository,model-config,shared-memory,statistics,trace,logging"
)
GRPC_RESTRICTED: Final = "model-repository,trace,logging"
"""Statistics and model configs stay open: clients and perf_analyzer need them. So does shared
memory on the socket; over TCP it takes a key of its own."""


@dataclass(frozen=True)
class Keys:
    """What calls need that change the server (`admin`), or make it map memory over TCP."""

    admin: str
    shared_memory: str


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
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
"""Frames are larger than malloc's threshold for giving memory back to the system, which then hands
out fresh pages for each frame: a 1080p frame then costs the server twice the processor's time.

With malloc's caches of small blocks, which are never joined, what a million one-byte chunks took
(over HTTP, where it is open) is kept for good, near a gibibyte; so too with a threshold above the
64 MiB of an arena's heap. Without them it is 16 MiB, and a frame costs the same
(bench/malloc_settings.py)."""


def server_command(
    distribution: Distribution,
    repository: Repository,
    plan: MemoryPlan,
    backends: Path,
    doors: Doors,
    *,
    region_prefix: str,
    name: str,
    verbose: bool,
) -> list[str]:
    """Return the arguments that start the server.

    Args:
        backends: the folder of `write_backends`.
        doors: where it listens.
        region_prefix: what the names of its shared memory regions start with.
        name: by which it can be told from another server.
        verbose: log every request.
    """
    interval_ms = GPU_METRICS_INTERVAL_MS if plan.cuda_pool else CPU_METRICS_INTERVAL_MS
    python = {
        "shm-region-prefix-name": region_prefix,
        "shm-default-byte-size": plan.region_start,
        "shm-growth-byte-size": plan.region_growth,
    }
    return [
        str(distribution.binary),
        f"--model-repository={repository.folder.absolute()}",
        f"--backend-directory={backends}",
        f"--model-config-name={repository.target}",
        # The configs are complete; completing them would start each model's process twice.
        "--disable-auto-complete-config",
        # Explicit, so that one dead model can be loaded again while the others go on.
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in repository.asked),
        *(f"--backend-config=python,{name}={value}" for name, value in python.items()),
        f"--id={name}",
        *doors.arguments(),
        *(f"@{variable}" for variable in key_arguments(Keys("", ""), doors)),
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--pinned-memory-pool-byte-size={plan.pinned_pool}",
        *([f"--cuda-memory-pool-byte-size=0:{plan.cuda_pool}"] if plan.cuda_pool else []),
        f"--allow-gpu-metrics={str(bool(plan.cuda_pool)).lower()}",
        f"--metrics-interval-ms={interval_ms}",
        "--allow-sagemaker=false", "--allow-vertex-ai=false",
        f"--log-info={str(verbose).lower()}", f"--log-verbose={int(verbose)}",
    ]  # fmt: skip


def key_arguments(keys: Keys, doors: Doors) -> dict[str, str]:
    """The arguments that hold keys, by the variables that the keeper hands them over in."""
    arguments = [f"--grpc-restricted-protocol={GRPC_RESTRICTED}:{KEY_NAME}={keys.admin}"]
    if doors.http_port is not None:
        arguments.append(f"--http-restricted-api={HTTP_RESTRICTED}:{KEY_NAME}={keys.admin}")
    if doors.grpc_port is not None:
        arguments.append(
            f"--grpc-restricted-protocol=shared-memory:{SHARED_MEMORY_KEY}={keys.shared_memory}"
        )
    return {f"FRAMESWAP_KEY_{position}": text for position, text in enumerate(arguments)}


def server_environment(distribution: Distribution, keys: Keys, doors: Doors) -> dict[str, str]:
    """Return the environment of the server process."""
    environment = {**os.environ, **MALLOC, **key_arguments(keys, doors)}
    for key, folders in (
        ("PATH", [distribution.python_home]),
        ("LD_LIBRARY_PATH", distribution.libraries),
    ):
        present = [environment[key]] if environment.get(key) else []
        environment[key] = os.pathsep.join([*map(str, folders), *present])
    return environment
