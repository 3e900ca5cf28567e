"""Command line and environment of tritonserver in a container, with the reason for each choice."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from deploy.settings import Settings
from server.command_line import CPU_METRICS_INTERVAL_MS, GPU_METRICS_INTERVAL_MS, MALLOC
from server.errors import StartError
from server.memory_plan import MemoryPlan
from server.repository import Repository

KEY_NAME: Final = "frameswap-key"
KEY_HEADER: Final = f"triton-grpc-protocol-{KEY_NAME}"
RESTRICTED: Final = ("model-repository", "trace", "logging", "shared-memory", "statistics")
"""Open are inference, health, metadata and model configs: from these our client reads the
contract's version and the limits, and the repository cannot be written. The key is made at each
start and known to the entry point alone. Keys could be got round before Triton 26.05, so that
network policies and the edge close the same calls once more."""
SHARED_MEMORY_FLAG: Final = "--allow-client-shm"
"""Since Triton 26.05, where it is off unless asked for."""


def triton_command(
    settings: Settings,
    repository: Repository,
    plan: MemoryPlan,
    *,
    grpc_port: int,
    metrics_port: int,
    region_prefix: str,
    key: str,
) -> list[str]:
    """Return the arguments that start the server.

    Args:
        grpc_port: where clients come. metrics_port: on loopback; the entry point hands them on.
        region_prefix: what the names of its shared memory regions start with.
        key: secret that restricted calls need.

    Raises:
        StartError: the server's program cannot be run.
    """
    closed = [name for name in RESTRICTED if name not in settings.opened]
    python = {
        "shm-region-prefix-name": region_prefix,
        "shm-default-byte-size": plan.region_start,
        "shm-growth-byte-size": plan.region_growth,
    }
    interval_ms = GPU_METRICS_INTERVAL_MS if plan.cuda_pool else CPU_METRICS_INTERVAL_MS
    command = [
        settings.binary,
        f"--model-repository={repository.folder.resolve()}",
        f"--model-config-name={repository.target}",
        # The configs are complete; completing them would start each model's process twice.
        "--disable-auto-complete-config",
        # No model is ever loaded or changed over the network: a new one is a new server.
        "--model-control-mode=none",
        *(f"--backend-config=python,{name}={value}" for name, value in python.items()),
        # HTTP is what most of Triton's memory faults came through, and nothing here needs it.
        "--allow-http=false",
        f"--grpc-address={settings.address}", f"--grpc-port={grpc_port}",
        "--metrics-address=127.0.0.1", f"--metrics-port={metrics_port}",
        f"--grpc-restricted-protocol={','.join(closed)}:{KEY_NAME}={key}",
        f"--grpc-infer-allocation-pool-size={settings.requests_in_flight}",
        *_age_words(settings),
        f"--exit-timeout-secs={settings.exit_timeout_s}",
        f"--pinned-memory-pool-byte-size={plan.pinned_pool}",
        *([f"--cuda-memory-pool-byte-size=0:{plan.cuda_pool}"] if plan.cuda_pool else []),
        f"--allow-gpu-metrics={str(bool(plan.cuda_pool)).lower()}",
        # Requests under way wait while Triton asks the driver for the GPU's use.
        f"--metrics-interval-ms={interval_ms}",
        "--allow-sagemaker=false", "--allow-vertex-ai=false",
        "--log-info=false",
    ]  # fmt: skip
    if settings.tls is not None:
        command += [
            "--grpc-use-ssl=true",
            f"--grpc-use-ssl-mutual={str(settings.tls.mutual).lower()}",
            f"--grpc-server-cert={settings.tls.certificate}",
            f"--grpc-server-key={settings.tls.key}",
            f"--grpc-root-cert={settings.tls.authority}",
        ]
    if "shared-memory" in settings.opened and _knows(settings.binary, SHARED_MEMORY_FLAG):
        command.append(f"{SHARED_MEMORY_FLAG}=true")
    return [*command, *settings.extra]


def _age_words(settings: Settings) -> list[str]:
    age_ms = 1000 * settings.max_connection_age_s
    if not age_ms:
        return []
    # What is under way on an old connection may end.
    return [f"--grpc-max-connection-age={age_ms}", f"--grpc-max-connection-age-grace={age_ms}"]


def triton_environment() -> dict[str, str]:
    """Return the environment of the server process."""
    return {**os.environ, **MALLOC}


def _knows(binary: str, flag: str) -> bool:
    """Whether this release of the server has a flag; it ends with an error at unknown ones."""
    try:
        finished = subprocess.run(
            [binary, "--help"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"the server's program {binary} cannot be run: {error}") from error
    return flag in finished.stdout + finished.stderr
