"""How the ensemble's steps are laid out on the GPU, and NVIDIA's Multi-Process Service."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.gpu.results import NotRun
from bench.gpu_repository import MODELS
from server.launcher import EmbeddedServer

ENSEMBLE: Final = "swap_faces_i420"
MPS_CONTROL: Final = Path("/usr/local/nvidia/bin/nvidia-cuda-mps-control")
NO_MPS: Final = "no MPS control daemon (nvidia-cuda-mps-control) on this machine"


@dataclass(frozen=True)
class Mode:
    """One way to run the steps.

    arguments: of `EmbeddedServer`. instances: of every model, or of the one that they are.
    mps: whether the processes share the GPU through MPS. environment: of server and clients.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    instances: int = 1
    mps: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what this server cannot do.

        Raises:
            NotRun: names the argument.
        """
        known = inspect.signature(EmbeddedServer.__init__).parameters
        missing = [name for name in self.arguments if name not in known]
        if missing:
            raise NotRun(f"this server has no option {', '.join(missing)}")

    @property
    def models(self) -> tuple[str, ...]:
        """What has instances."""
        return (ENSEMBLE,) if self.arguments.get("one_process") else tuple(MODELS)

    def instance_counts(self) -> dict[str, int]:
        return dict.fromkeys(self.models, self.instances) if self.instances > 1 else {}

    def single(self) -> Mode:
        """The mode that differs in nothing but one instance."""
        return next(
            mode for mode in MODES.values()
            if (mode.arguments, mode.mps, mode.instances) == (self.arguments, self.mps, 1)
        )  # fmt: skip


_ONE: Final = {"one_process": True}
MODES: Final = {
    mode.name: mode
    for mode in (
        Mode("three processes"),
        Mode("three processes, MPS", mps=True),
        Mode("one process", _ONE),
        Mode("one process, 2 instances", _ONE, instances=2),
        Mode("one process, 3 instances", _ONE, instances=3),
        Mode("one process, MPS", _ONE, mps=True),
        Mode("one process, 2 instances, MPS", _ONE, instances=2, mps=True),
        Mode("three processes, 2 instances", instances=2),
    )
}
DEFAULT_MODE: Final = "one process, 2 instances"


def find_mps_control() -> str | None:
    """The control program where the driver's container tools put it, or on PATH."""
    return str(MPS_CONTROL) if MPS_CONTROL.exists() else shutil.which(MPS_CONTROL.name)


@contextmanager
def mps_daemon(control: str | None) -> Iterator[dict[str, str]]:
    """Run MPS in folders of its own; yields the environment that joins it. Always ends it.

    Raises:
        NotRun: there is no control program, or it does not start.
    """
    if control is None:
        raise NotRun(NO_MPS)
    # Not under the output folder: a socket's path may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="frameswap-mps-") as folder:
        joined = {
            "CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe",
            "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log",
        }
        for path in joined.values():
            Path(path).mkdir()
        environment = {**os.environ, **joined}
        started = subprocess.run(
            [control, "-d"], env=environment,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if started.returncode:
            said = (started.stderr or started.stdout).strip()[-200:]
            raise NotRun(f"the MPS control daemon does not start: {said}")
        try:
            yield joined
        finally:
            subprocess.run(
                [control], input="quit -t 5\n", env=environment,
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip


@contextmanager
def added_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process for a block: a server takes its environment from it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
