"""NVIDIA's Multi-Process Service for one server: processes share the GPU instead of taking turns.

Without it a GPU runs one process's kernels at a time, and a process that waits for its own next
launch leaves the GPU idle for its turn. The service is a daemon of one user, found by the folder of
its socket; this one is the server's own. A process that shares CUDA memory with the server has to
join it too (`EmbeddedServer.client_environment`).

Source: NVIDIA Multi-Process Service documentation (starting and stopping, environment variables).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from server.errors import MpsError

CONTROL_NAME: Final = "nvidia-cuda-mps-control"
DRIVER_TOOLS: Final = Path("/usr/local/nvidia/bin")
"""Where container runtimes mount the driver's programs, which is not always on PATH."""
CONTROL_VARIABLE: Final = "FRAMESWAP_MPS_CONTROL"
"""Tells the keeper which program ends the daemon."""
LONGEST_PATH: Final = 90
"""Of the pipe folder: a socket's path may have 108 characters."""
START_S: Final = 30.0


def find_control() -> Path | None:
    """The control program, on PATH or beside the driver's other tools."""
    found = shutil.which(CONTROL_NAME) or shutil.which(CONTROL_NAME, path=str(DRIVER_TOOLS))
    return Path(found) if found else None


def start_daemon(folder: Path, control: Path | None) -> dict[str, str]:
    """Start the daemon with its files in `folder`; the environment that joins it.

    The environment names the control program as well: the keeper ends the daemon with it, after
    the server and whoever else joined.

    Raises:
        MpsError: there is no control program, the folder's path is too long, or it does not start.
    """
    if control is None:
        raise MpsError(
            f"there is no {CONTROL_NAME} on PATH or in {DRIVER_TOOLS}; it comes with NVIDIA's "
            "driver: install it, or serve without MPS"
        )
    joined = {
        "CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"),
        "CUDA_MPS_LOG_DIRECTORY": str(folder / "log"),
    }
    if len(joined["CUDA_MPS_PIPE_DIRECTORY"]) > LONGEST_PATH:
        raise MpsError(f"{folder} is too long a path for the MPS daemon's socket; set TMPDIR")
    for path in joined.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    environment = {**joined, CONTROL_VARIABLE: str(control)}
    try:
        started = subprocess.run(
            [control, "-d"], env={**os.environ, **joined},
            capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        end_daemon(environment)
        raise MpsError(f"the MPS daemon does not start: {error}") from error
    if started.returncode:
        said = " ".join((started.stderr or started.stdout).split())[-200:]
        raise MpsError(f"the MPS daemon does not start: {said or 'it gave no reason'}")
    return environment


def end_daemon(environment: dict[str, str]) -> None:
    """End a daemon whose server was never started; harmless when it has ended."""
    # Whatever goes wrong: the server is down, and its folders are still to be removed.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [environment[CONTROL_VARIABLE]], input="quit -t 5\n",
            env={**os.environ, **environment},
            capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
