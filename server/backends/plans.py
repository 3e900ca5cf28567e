"""Which TensorRT plan an instance loads, and which it must not: all of it without a GPU.

A model folder holds one plan, or one for each compute capability, named by `cc_model_filenames`
as NVIDIA's C++ backend reads it. `model.plan` is TensorRT's, `model.rtx.plan` TensorRT-RTX's;
the parameter `engine_flavour` says which library loads it, and the manifest beside the plan says
which library, release and GPU it was made for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from engines.manifest import ServerVersions, manifest_path, read_manifest, refuse_reason
from fetching.files import data_sha256, publish_file
from graphs.contract import PARAMETER_ENGINE_FLAVOUR
from server.backends.common import RequestError

DEFAULT_FILENAMES = {"tensorrt": "model.plan", "tensorrt_rtx": "model.rtx.plan"}

ONNX_FILENAME = "model.cuda.onnx"
"""What is served until there is a plan: the file of `build_engines.py --target cuda`."""

Ranges = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""Input name to the smallest and the largest shape that a plan takes, batch axis first."""


class PlanError(ValueError):
    """One sentence: why an instance cannot load its plan, and what to run."""


class PlanMissing(PlanError):
    """There is no plan yet."""


def read_flavour(parameters: Mapping[str, str], name: str) -> str:
    """The library that loads the plan: `tensorrt` unless the config says `tensorrt_rtx`.

    Raises:
        PlanError: the parameter names neither.
    """
    flavour = parameters.get(PARAMETER_ENGINE_FLAVOUR) or "tensorrt"
    if flavour not in DEFAULT_FILENAMES:
        raise PlanError(
            f"parameter engine_flavour of {name} must be tensorrt or tensorrt_rtx, "
            f"and is {flavour!r}"
        )
    return flavour


def choose_plan(
    folder: Path, config: Mapping[str, Any], flavour: str, compute_capability: str
) -> Path:
    """The plan for a GPU: the one that `cc_model_filenames` names for it, else the default.

    Args:
        folder: the model's version folder.
        config: Triton's model configuration.
        compute_capability: the GPU's, like "8.9".

    Raises:
        PlanMissing: the file is not there.
    """
    named: Mapping[str, str] = config.get("cc_model_filenames") or {}
    default: str = config.get("default_model_filename") or DEFAULT_FILENAMES[flavour]
    path = folder / named.get(compute_capability, default)
    if not path.is_file():
        raise PlanMissing(
            f"{path} is missing: run `python build_engines.py --compute-capability "
            f"{compute_capability}` to compile it"
        )
    return path


class PlanWatch:
    """Looks for a plan that was not there at load, at most once in `every_s` seconds.

    A plan counts once its manifest is beside it: builders write the plan first.
    """

    def __init__(
        self,
        find: Callable[[], Path],
        *,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._every_s = every_s
        self._clock = clock
        self._next_s = clock() + every_s
        self._refused: tuple[Path, int] | None = None

    def appeared(self) -> Path | None:
        """The plan, once it is there; a plan that was `refuse`d counts again when it changes."""
        if self._clock() < self._next_s:
            return None
        self._next_s = self._clock() + self._every_s
        try:
            path = self._find()
            changed = manifest_path(path).stat().st_mtime_ns
        except (PlanError, OSError):
            return None
        return None if self._refused == (path, changed) else path

    def refuse(self, path: Path) -> None:
        """Do not offer this plan again as it is."""
        with contextlib.suppress(OSError):
            self._refused = (path, manifest_path(path).stat().st_mtime_ns)


def check_plan(path: Path, flavour: str, version: str, compute_capability: str) -> None:
    """Refuse a plan of another flavour, release or GPU before the library sees it.

    Args:
        version: of the library that would load it.

    Raises:
        PlanError: it would not load; the sentence says what to run.
    """
    try:
        manifest = read_manifest(path)
    except EngineError as error:
        raise PlanError(str(error)) from error
    server = ServerVersions(
        tensorrt=version if flavour == "tensorrt" else None,
        tensorrt_rtx=version if flavour == "tensorrt_rtx" else None,
        compute_capabilities=(compute_capability,),
    )
    reason = refuse_reason(manifest, server)
    if reason is not None:
        raise PlanError(reason)


def check_shapes(model: str, shapes: Mapping[str, Sequence[int]], ranges: Ranges) -> None:
    """Refuse inputs outside a plan's profile, naming the axis.

    Raises:
        RequestError: an input is missing or one of its axes is outside the profile.
    """
    for name, (low, high) in ranges.items():
        if name not in shapes:
            raise RequestError(f"{model} needs the input {name!r}, and it was not sent")
        shape = tuple(shapes[name])
        inside = len(shape) == len(low) and all(
            least <= size <= most for least, size, most in zip(low, shape, high, strict=True)
        )
        if not inside:
            raise RequestError(
                f"input {name!r} of {model} has the shape {list(shape)}, and its plan takes "
                f"{list(low)} to {list(high)}; send less, or build a plan with larger limits"
            )


def runtime_cache_path(folder: Path, plan: bytes, device_name: str, version: str) -> Path:
    """Where the kernels that TensorRT-RTX made for a plan on one kind of GPU are kept."""
    device = "".join(c if c.isalnum() else "-" for c in device_name).strip("-")
    return folder / f"{data_sha256(plan)[:32]}-{device}-{version}.kernels"


def load_runtime_cache(path: Path) -> bytes:
    """What an earlier load kept; empty when there is nothing."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def save_runtime_cache(path: Path, before: bytes, after: bytes) -> None:
    """Keep new kernels for the next load; a folder that cannot be written costs time only."""
    if after and after != before:
        with contextlib.suppress(OSError):
            publish_file(path, after)
