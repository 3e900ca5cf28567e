"""What a built file is, in a JSON file beside it: `model.plan.json` beside `model.plan`.

It is written when the file is published, and everybody reads it: a build, to see whether the file
is as wanted; the shared cache, which keeps one with every plan; a server, before it loads a plan.
A plan loads only in the release of the library that made it, on a GPU it was made for. TensorRT
says so with an error code at load; `refuse_reason` says it with the command to run.

Source: NVIDIA's "Engine Compatibility" pages of TensorRT and of TensorRT-RTX.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from engines.devices import visible_gpus
from engines.errors import ManifestError
from fetching.files import data_sha256, publish_file

MANIFEST_SUFFIX: Final = ".json"
FORMAT: Final = 2
"""Of manifests, and of the cache's entries, which hold one."""

# libnvinfer's versions that this project compiles with; the number is in the library's name.
_LIBRARY_MAJORS = (11, 10)


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """Everything that decides a plan; `profile` is input name -> {"min", "opt", "max"} -> shape."""

    onnx_sha256: str
    flavour: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    profile: Mapping[str, Mapping[str, Sequence[int]]]
    options: Mapping[str, int | None]

    @property
    def components(self) -> dict[str, Any]:
        """What is digested, by name, as JSON gives it back."""
        parts = {**asdict(self), "compute_capabilities": sorted(self.compute_capabilities)}
        canonical: dict[str, Any] = json.loads(json.dumps(parts))
        return canonical

    @property
    def digest(self) -> str:
        """What the cache calls the plan."""
        parts = {"format": FORMAT, **self.components}
        return data_sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())


@dataclass(frozen=True)
class PlannedMemory:
    """GPU memory of one plan at its profile's maximum, in bytes.

    activation_bytes: intermediate tensors, for each execution context.
    io_bytes: inputs and outputs, for each execution context.
    weight_bytes: once a plan, however many contexts; once a process, with Python-based backends.
    """

    activation_bytes: int
    io_bytes: int
    weight_bytes: int

    def total_bytes(self, contexts: int = 1) -> int:
        return self.weight_bytes + contexts * (self.activation_bytes + self.io_bytes)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One built file: what it was made from, and what was measured on it.

    file: its name. sha256, size: of its bytes.
    recipe: everything that decides it, by name (`engines.recipe`).
    plan: what decided the plan; None for an ONNX file, as everything that follows but `fidelity`.
    fidelity: the report of the comparison with fp32, or None when nothing was compared.
    seconds, warnings: how long the compiler took, and what it said.
    """

    model: str
    file: str
    sha256: str
    size: int
    recipe: Mapping[str, str]
    plan: PlanKey | None = None
    memory: PlannedMemory | None = None
    fidelity: Mapping[str, Any] | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self, *, indent: int | None = None) -> str:
        """The manifest as text; the same text for the same manifest."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=indent, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """The manifest that `to_json` gave.

        Raises:
            ValueError: the text is no manifest, or one of another version.
        """
        fields = json.loads(text)
        try:
            if fields.pop("format") != FORMAT:
                raise ValueError("another format")
            plan, memory = fields.pop("plan"), fields.pop("memory")
            if plan is not None:
                devices = tuple(plan.pop("compute_capabilities"))
                plan = PlanKey(compute_capabilities=devices, **plan)
            if memory is not None:
                memory = PlannedMemory(**memory)
            warnings = tuple(fields.pop("warnings"))
            return cls(plan=plan, memory=memory, warnings=warnings, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


def describe(
    data: bytes,
    *,
    model: str,
    file: str,
    recipe: Mapping[str, str],
    plan: PlanKey | None = None,
    memory: PlannedMemory | None = None,
    fidelity: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    warnings: Sequence[str] = (),
) -> Manifest:
    """The manifest of a file with these bytes."""
    return Manifest(
        model=model,
        file=file,
        sha256=data_sha256(data),
        size=len(data),
        recipe=dict(recipe),
        plan=plan,
        memory=memory,
        fidelity=fidelity,
        seconds=seconds,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class ServerVersions:
    """What a server can load: library versions (None: not there) and its GPUs."""

    tensorrt: str | None
    tensorrt_rtx: str | None
    compute_capabilities: tuple[str, ...]


def manifest_path(file: Path) -> Path:
    """`model.plan` -> `model.plan.json`."""
    return file.with_name(file.name + MANIFEST_SUFFIX)


def write_manifest(file: Path, manifest: Manifest) -> None:
    """Publish `manifest` beside `file`."""
    publish_file(manifest_path(file), f"{manifest.to_json(indent=2)}\n".encode())


def read_manifest(file: Path) -> Manifest:
    """The manifest beside `file`.

    Raises:
        ManifestError: there is none, or it is not one that this version reads.
    """
    path = manifest_path(file)
    try:
        return Manifest.from_json(path.read_bytes())
    except FileNotFoundError:
        raise ManifestError(
            f"{file} has no manifest beside it: make both with `python build_engines.py`"
        ) from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ManifestError(
            f"{path} is not a manifest of this version ({error}): "
            f"make the plan again with `python build_engines.py`"
        ) from None


def damage_reason(plan: Path, manifest: Manifest) -> str | None:
    """One sentence when the plan file is not the one that the manifest describes."""
    try:
        data = plan.read_bytes()
    except OSError as error:
        return f"{plan} cannot be read ({error.strerror}): run `python build_engines.py`"
    if len(data) != manifest.size:
        return (
            f"{plan} has {len(data)} bytes, its manifest says {manifest.size}: "
            f"run `python build_engines.py --models {manifest.model}`"
        )
    if data_sha256(data) != manifest.sha256:
        return (
            f"{plan} does not match its manifest's checksum: "
            f"run `python build_engines.py --models {manifest.model}`"
        )
    return None


def refuse_reason(manifest: Manifest, server: ServerVersions) -> str | None:
    """One sentence that says why this server cannot load the plan and what to run; None if it can.

    A server without a visible GPU is not refused for it here: the launcher says that first.
    """
    plan, file = manifest.plan, f"{manifest.model}: {manifest.file}"
    command = f"python build_engines.py --models {manifest.model}"
    if plan is None:
        return f"{file} is no plan, as the manifest beside it says: run `{command}` here"
    names = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    name = names.get(plan.flavour)
    if name is None:
        return f"{file} is of the unknown flavour {plan.flavour!r}"
    has = server.tensorrt if plan.flavour == "tensorrt" else server.tensorrt_rtx
    made = f"{file} was compiled by {name} {plan.tensorrt_version}"
    if has is None:
        other = server.tensorrt_rtx if plan.flavour == "tensorrt" else server.tensorrt
        if other is None:
            return f"{made}, and this server has no TensorRT library at all: install {name}"
        there = "TensorRT-RTX" if plan.flavour == "tensorrt" else "TensorRT"
        return f"{made}, and this server has only {there} {other}: run `{command}` here"
    if _release(has) != _release(plan.tensorrt_version):
        return f"{made}, and this server has {has}, which cannot load it: run `{command}` here"
    foreign = sorted(set(server.compute_capabilities) - set(plan.compute_capabilities))
    if foreign:
        wanted = ", ".join(plan.compute_capabilities)
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
