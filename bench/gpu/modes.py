"""How the ensemble's steps are laid out on the GPU, and NVIDIA's Multi-Process Service."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bench.gpu.results import NotRun
from bench.gpu_repository import MODELS
from server.launcher import EmbeddedServer

ENSEMBLE: Final = "swap_faces_i420"


@dataclass(frozen=True)
class Mode:
    """One way to run the steps.

    arguments: of `EmbeddedServer`. instances: of every model, or of the one that they are.
    environment: of server and clients.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    instances: int = 1
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
            if (mode.arguments, mode.instances) == (self.arguments, 1)
        )  # fmt: skip


_ONE: Final = {"one_process": True}
_MPS: Final = {"mps": True}
MODES: Final = {
    mode.name: mode
    for mode in (
        Mode("three processes"),
        Mode("three processes, MPS", _MPS),
        Mode("one process", _ONE),
        Mode("one process, 2 instances", _ONE, instances=2),
        Mode("one process, 3 instances", _ONE, instances=3),
        Mode("one process, MPS", _ONE | _MPS),
        Mode("one process, 2 instances, MPS", _ONE | _MPS, instances=2),
        Mode("one process, 3 instances, MPS", _ONE | _MPS, instances=3),
        Mode("one process, 4 instances, MPS", _ONE | _MPS, instances=4),
        Mode("one process, 5 instances, MPS", _ONE | _MPS, instances=5),
        Mode("three processes, 2 instances", instances=2),
    )
}
DEFAULT_MODE: Final = "one process, 5 instances, MPS"
DEFAULT_DELAY_US: Final = 8000


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
