"""What decides a built file, by name: two builds with the same recipe make the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from engines.served_graphs import ServedGraph
from graphs.contract import CONTRACT_VERSION

_SOURCES: Final = (
    "graphs/**/*.py",
    "networks/**/*.py",
    "engines/mixed_quantization.py",
    "engines/precision.py",
    "engines/quantization.py",
    "engines/served_graphs.py",
    "engines/typed_graphs.py",
)
_AUTHORING_PACKAGES: Final = ("onnx", "onnx-ir", "onnxscript")


def make_recipe(
    served: ServedGraph, weights: Mapping[str, str], *, precision: str, more: Mapping[str, str]
) -> dict[str, str]:
    """Everything that decides the file of one served model.

    Args:
        weights: SHA-256 of every weight file of the deployment; only this model's are taken.
        more: what the target adds: calibration frames, the compiler, the profile.
    """
    recipe = {
        "contract version": str(CONTRACT_VERSION),
        "sources": sources_digest(),
        **{f"package {name}": version(name) for name in _AUTHORING_PACKAGES},
        **served.settings,
        **{f"weights {name}": weights[name] for name in served.weights},
        "precision": precision,
        **more,
    }
    return dict(sorted(recipe.items()))


@cache
def sources_digest() -> str:
    """One digest of the code that authors and types graphs."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(f"{path.name}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def frames_digest(frames: Sequence[Path]) -> str:
    """One digest of the pictures that a graph is calibrated and checked with; "" without any."""
    if not frames:
        return ""
    digest = hashlib.sha256()
    for path in frames:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def explain_difference(built: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Why a file made from `built` is not what `wanted` asks for: one phrase a difference."""
    changes = []
    for name in sorted({*built, *wanted}):
        old, new = built.get(name), wanted.get(name)
        if old == new:
            continue
        if name == "sources":
            changes.append("the code that authors it changed")
        elif name == "frames":
            changes.append("the frames to check with changed")
        elif name.startswith("weights ") and old and new:
            changes.append(f"the file of {name.removeprefix('weights ')} changed")
        elif old is None:
            changes.append(f"{name} is new ({new})")
        elif new is None:
            changes.append(f"{name} is gone (was {old})")
        else:
            changes.append(f"{name} is {new}, was {old}")
    return "; ".join(changes)
