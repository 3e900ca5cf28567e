"""What the figures are measured on: a table of one machine's figures must not mix two."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import onnxruntime

from bench.gpu.results import NotRun
from bench.gpu_repository import made_of
from engines.devices import visible_gpus

PACKAGES: Final = ("torch", "tritonclient", "numpy")
DRIVER_FILE: Final = Path("/proc/driver/nvidia/version")


def describe_host() -> dict[str, Any]:
    """GPU, driver, cores and versions.

    Raises:
        NotRun: there is no NVIDIA GPU.
    """
    gpus = visible_gpus()
    if not gpus:
        raise NotRun("no NVIDIA GPU is visible here; --list and --report-only need none.")
    if len(gpus) > 1:
        # Triton would use all of them, and the engine, the matrices and the peers' way one.
        raise NotRun(
            f"{len(gpus)} GPUs are visible, and the figures are of one: set CUDA_VISIBLE_DEVICES=0."
        )
    return {
        "GPU": gpus[0].name,
        "driver": _driver(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "graphs": made_of()[:12],
        # What is imported, whichever package brought it.
        "onnxruntime": onnxruntime.__version__,
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def _driver() -> str:
    binary = shutil.which("nvidia-smi")
    if binary:
        done = subprocess.run(
            [binary, "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        if done.returncode == 0:
            return done.stdout.strip()
    if DRIVER_FILE.exists():
        return DRIVER_FILE.read_text().splitlines()[0].split("Kernel Module")[-1].split()[0]
    return "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
