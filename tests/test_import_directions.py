"""Imports point one way: from the programs, through the rooms, down to the contract."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

ALLOWED: Final = MappingProxyType(
    {
        # The client installs alone: what it needs of the others it reads from the server.
        "frameswap": (),
        # So does the gateway, beside a client; `tests/gateway` holds it to the public names.
        "frameswap_gateway": ("frameswap",),
        "graphs.contract": (),
        "networks": ("graphs.contract",),
        "graphs": ("graphs.contract", "networks"),
        "fetching": ("networks", "graphs.contract"),
        # A command of the client's, found by its entry point.
        "fetching.models_command": ("fetching", "networks", "graphs.contract", "frameswap"),
        "engines": ("graphs", "networks", "fetching", "frameswap"),
        # Run inside Triton, in a process per model: no ONNX, no build, no launcher.
        "server.backends": (
            "graphs.contract",
            "fetching.cache_folder",
            "fetching.files",
            "engines.errors",
            "engines.manifest",
        ),
        "server": ("server.backends", "engines", "fetching", "graphs.contract", "frameswap"),
    }
)
"""A room or a module (the longest name counts), and what of the project it may import."""

PROGRAMS: Final = ("bench", "build_engines", "demo", "deploy", "tests", "training")
"""Nothing imports these but each other."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] in ("client", "gateway") else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> str:
    return max((room for room in ALLOWED if is_within(name, room)), key=len)


SOURCES: Final = {
    module_name(path): path
    for folder in ("client/frameswap", "gateway/frameswap_gateway", "engines", "fetching",
                   "graphs", "networks", "server")
    for path in sorted((ROOT / folder).rglob("*.py"))
}  # fmt: skip


def imported(name: str) -> Iterator[str]:
    """Modules of the project that the module imports, wherever in it that stands."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join((*base, node.module or "")) if node.level else node.module or ""
            start = start.rstrip(".")
            # `from a import b` names the module a.b, or something in the module a.
            names = (f"{start}.{alias.name}" for alias in node.names)
            yield from (full if full in SOURCES else start for full in names)


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_only_what_lies_below_it(name: str) -> None:
    room = room_of(name)
    for target in imported(name):
        assert target.partition(".")[0] not in PROGRAMS, f"{name} imports {target}"
        if target in SOURCES:
            allowed = target == name or room_of(target) == room
            allowed |= any(is_within(target, below) for below in ALLOWED[room])
            assert allowed, f"{name} imports {target}, which {room} may not"


def test_every_room_is_seen() -> None:
    assert {room_of(name) for name in SOURCES} == set(ALLOWED)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - set(PROGRAMS)
    assert packages == {room for room in ALLOWED if "." not in room} - {
        "frameswap", "frameswap_gateway",
    }  # fmt: skip


def test_the_reader_of_imports_sees_every_form() -> None:
    assert "fetching.files" in set(imported("engines.manifest"))
    assert "engines.errors" in set(imported("engines.manifest"))
    assert "graphs.face_detector" in set(imported("engines.served_graphs")), "from graphs import x"
