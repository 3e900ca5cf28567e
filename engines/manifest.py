"""What a plan is, in a JSON file beside it, so that a server can refuse it before loading it.

A plan loads only in the release of the library that made it, on a GPU it was made for. TensorRT
says so with an error code at load; `refuse_reason` says it with the command to run.

Source: NVIDIA's "Engine Compatibility" pages of TensorRT and of TensorRT-RTX.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from engines.devices import visible_gpus
from engines.errors import EngineError
from fetching.files import publish_file

MANIFEST_SUFFIX = ".json"
_FORMAT = 1

# libnvinfer's versions that this project compiles with; the number is in the library's name.
_LIBRARY_MAJORS = (11, 10)


@dataclass(frozen=True)
class Manifest:
    """One plan. Sizes in bytes; `profile` is input name -> {"min", "opt", "max"} -> shape.

    memory: "activation_bytes" (each execution context), "weight_bytes", "io_bytes" at the
        profile's maximum; None where the compiler did not say.
    fidelity: the report of the comparison with fp32, or None when nothing was compared.
    """

    model: str
    plan: str
    flavour: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    precision: str
    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    profile: Mapping[str, Mapping[str, tuple[int, ...]]]
    options: Mapping[str, int | None]
    memory: Mapping[str, int | None]
    contract_version: int
    swapper: str | None = None
    fidelity: Mapping[str, Any] | None = None
    format: int = field(default=_FORMAT)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class ServerVersions:
    """What a server can load: library versions (None: not there) and its GPUs."""

    tensorrt: str | None
    tensorrt_rtx: str | None
    compute_capabilities: tuple[str, ...]


def manifest_path(plan: Path) -> Path:
    """`model.plan` -> `model.plan.json`."""
    return plan.with_name(plan.name + MANIFEST_SUFFIX)


def write_manifest(plan: Path, manifest: Manifest) -> None:
    """Publish `manifest` beside `plan`."""
    publish_file(manifest_path(plan), manifest.to_json().encode())


def read_manifest(plan: Path) -> Manifest:
    """The manifest beside `plan`.

    Raises:
        EngineError: there is none, or it is not one that this version reads.
    """
    path = manifest_path(plan)
    try:
        fields = json.loads(path.read_text())
        if fields.pop("format") != _FORMAT:
            raise ValueError("another format")
        fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
        return Manifest(**fields)
    except FileNotFoundError:
        raise EngineError(
            f"{plan} has no manifest beside it: make both with `python build_engines.py`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{path} is not a manifest of this version ({error}): "
            f"make the plan again with `python build_engines.py`"
        ) from None


def damage_reason(plan: Path, manifest: Manifest) -> str | None:
    """One sentence when the plan file is not the one that the manifest describes."""
    try:
        data = plan.read_bytes()
    except OSError as error:
        return f"{plan} cannot be read ({error.strerror}): run `python build_engines.py`"
    if len(data) != manifest.plan_bytes:
        return (
            f"{plan} has {len(data)} bytes, its manifest says {manifest.plan_bytes}: "
            f"run `python build_engines.py --models {manifest.model}`"
        )
    if hashlib.sha256(data).hexdigest() != manifest.plan_sha256:
        return (
            f"{plan} does not match its manifest's checksum: "
            f"run `python build_engines.py --models {manifest.model}`"
        )
    return None


def refuse_reason(manifest: Manifest, server: ServerVersions) -> str | None:
    """One sentence that says why this server cannot load the plan and what to run; None if it can.

    A server without a visible GPU is not refused for it here: the launcher says that first.
    """
    names = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    name = names.get(manifest.flavour)
    if name is None:
        return f"{manifest.model}: {manifest.plan} is of the unknown flavour {manifest.flavour!r}"
    has = server.tensorrt if manifest.flavour == "tensorrt" else server.tensorrt_rtx
    made = f"{manifest.model}: {manifest.plan} was compiled by {name} {manifest.tensorrt_version}"
    command = f"python build_engines.py --models {manifest.model}"
    if has is None:
        other = server.tensorrt_rtx if manifest.flavour == "tensorrt" else server.tensorrt
        if other is None:
            return f"{made}, and this server has no TensorRT library at all: install {name}"
        there = "TensorRT-RTX" if manifest.flavour == "tensorrt" else "TensorRT"
        return f"{made}, and this server has only {there} {other}: run `{command}` here"
    if _release(has) != _release(manifest.tensorrt_version):
        return f"{made}, and this server has {has}, which cannot load it: run `{command}` here"
    foreign = sorted(set(server.compute_capabilities) - set(manifest.compute_capabilities))
    if foreign:
        wanted = ", ".join(manifest.compute_capabilities)
        return (
            f"{made} for compute capability {wanted}, and this server's GPU has {foreign[0]}: "
            f"run `{command} --compute-capability {foreign[0]}`"
        )
    return None


def server_versions() -> ServerVersions:
    """What can be loaded by a server started in this environment.

    TensorRT's version is asked of its library, because NVIDIA's Triton container has that and no
    Python package; TensorRT-RTX is a Python package only.
    """
    return ServerVersions(
        tensorrt=_library_version() or _package_version("tensorrt"),
        tensorrt_rtx=_package_version("tensorrt_rtx"),
        compute_capabilities=tuple(gpu.compute_capability for gpu in visible_gpus()),
    )


def _library_version() -> str | None:
    for major in _LIBRARY_MAJORS:
        try:
            library = ctypes.CDLL(f"libnvinfer.so.{major}")
        except OSError:
            continue
        # Decimal digits since TensorRT 10: 101300 is 10.13.0.
        number = int(library.getInferLibVersion())
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def _package_version(name: str) -> str | None:
    """The version of an importable package, without importing it (and its libraries)."""
    spec = importlib.util.find_spec(name)
    # A folder of type stubs looks like a package without a file.
    if spec is None or spec.origin is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[str, ...]:
    """Major, minor and patch: what NVIDIA ties a plan to; the fourth number is a build's."""
    return tuple(version.split(".")[:3])
