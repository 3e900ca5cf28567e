"""What decides a built file, by name: two builds with the same recipe make the same bytes.

The code in it is what authoring imports, read from the files' own import statements: a module that
a graph comes to need is digested from then on. What is left out is named, with the reason.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from engines.errors import WeightsUnavailable
from engines.precision import Precision
from engines.progress import Announce
from engines.served_graphs import ServedGraph
from fetching import weights
from fetching.downloads import WeightsError
from fetching.files import file_sha256
from graphs.contract import CONTRACT_VERSION

CHECKOUT: Final = Path(__file__).resolve().parent.parent

_AUTHOR: Final = "engines.typed_graphs"
"""Authors every graph and types it: what it imports, directly or not, makes the graphs."""

_ELSEWHERE: Final = ("fetching", "engines.errors", "engines.progress")
"""Makes nothing: what is fetched is digested itself. What these modules import is digested."""

# What a target's row decides of a graph is in the recipe by name.
_ROWS: Final = ("engines.targets",)
_TYPING: Final = ("engines.precision",)
_MEASURING: Final = (
    "engines.fidelity", "engines.mixed_quantization", "engines.quantization", "engines.samples",
)  # fmt: skip

_UNUSED: Final[Mapping[Precision, tuple[str, ...]]] = {
    "fp32": (*_ROWS, *_TYPING, *_MEASURING),
    "fp16": (*_ROWS, *_MEASURING),
    "int8": (),
    "fp8": (),
}
"""Modules without a part in a graph of that precision, nor what they alone import. Eight bits are
chosen by measuring: feeds, calibration and comparison, and the form of the graph that is measured,
decide the bytes."""

_AUTHORING_PACKAGES: Final = ("onnx", "onnx-ir", "onnxscript")
_CALIBRATING_PACKAGES: Final = ("onnxruntime",)


def make_recipe(
    served: ServedGraph,
    digests: Mapping[str, str],
    *,
    precision: Precision,
    more: Mapping[str, str],
) -> dict[str, str]:
    """Everything that decides the file of one served model.

    Args:
        digests: SHA-256 of every weight file of the deployment; only this model's are taken.
        more: what the target adds: calibration frames, the compiler, the profile.
    """
    calibrating = _CALIBRATING_PACKAGES if precision in ("int8", "fp8") else ()
    recipe = {
        "contract version": str(CONTRACT_VERSION),
        "sources": sources_digest(precision),
        **{f"package {name}": version(name) for name in (*_AUTHORING_PACKAGES, *calibrating)},
        **served.settings,
        **{f"weights {name}": digests[name] for name in served.weights},
        "precision": precision,
        **more,
    }
    return dict(sorted(recipe.items()))


def source_files(precision: Precision, root: Path = CHECKOUT) -> tuple[Path, ...]:
    """The files of the checkout at `root` whose code makes a graph of that precision, sorted."""
    unused = {_module_path(root, name) for name in _UNUSED[precision]}
    found: set[Path] = set()
    waiting = [_module_path(root, _AUTHOR)]
    while waiting:
        path = waiting.pop()
        if path not in found and path not in unused:
            found.add(path)
            waiting += imported_files(path, root)
    return tuple(sorted(path for path in found if not _is_elsewhere(path, root)))


def imported_files(path: Path, root: Path = CHECKOUT) -> Iterator[Path]:
    """Files of the checkout that the Python file `path` imports when it runs, wherever in it."""
    for name in _imported_names(path.read_text(encoding="utf-8")):
        # Importing a.b runs a/__init__.py first.
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            file = _module_path(root, ".".join(parts[:length]))
            if file.is_file():
                yield file


@cache
def _imported_names(text: str) -> tuple[str, ...]:
    """Every dotted name in the import statements of a module, what is imported from it included."""
    names: list[str] = []
    for node in _running_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it, but what is there for the type checker alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _running_nodes(child)


def _module_path(root: Path, name: str) -> Path:
    base = root.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _is_elsewhere(path: Path, root: Path) -> bool:
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return any(name == part or name.startswith(f"{part}.") for part in _ELSEWHERE)


@cache
def sources_digest(precision: Precision, root: Path = CHECKOUT) -> str:
    """One digest of the code that makes graphs of that precision."""
    digest = hashlib.sha256()
    for path in source_files(precision, root):
        digest.update(f"{path.relative_to(root).as_posix()}\n{file_sha256(path)}\n".encode())
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
                digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


def differences(built: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """How a file made from `built` is not what `wanted` asks for: one phrase per difference."""
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


def bring_weights(
    names: Sequence[str], *, accept_licence: bool, announce: Announce
) -> dict[str, str]:
    """Make sure that every named file is in the cache; returns each one's SHA-256.

    A file that is free to use is fetched; one whose licence asks for it only on `accept_licence`.

    Args:
        announce: told before something is fetched.

    Raises:
        WeightsUnavailable: a licence that was not accepted, a file that cannot be fetched, or one
            that is damaged; one sentence.
    """
    return {name: _bring(name, accept_licence, announce) for name in dict.fromkeys(names)}


def _bring(name: str, accept_licence: bool, announce: Announce) -> str:
    row = weights.WEIGHTS[name]
    command = f"frameswap models fetch {name}"
    if not weights.is_present(name):
        if row.needs_acceptance and not accept_licence:
            raise WeightsUnavailable(
                f"the weights of {name} are not here, and their licence ({row.licence}: "
                f"{row.allows}) has not been accepted; if it fits your use, run: "
                f"{command} --accept-licence"
            )
        if not row.folder:
            announce(f"fetching {name} ({row.licence}: {row.allows})")
        try:
            weights.fetch(name, accept_licence=accept_licence)
        except weights.WeightMissingError as error:
            raise WeightsUnavailable(str(error)) from error
        except WeightsError as error:
            raise WeightsUnavailable(
                f"the weights of {name} are not here and could not be fetched: {error}; "
                f"with a local copy run: {command} --file PATH"
            ) from error
    return file_sha256(weights.path(name))
