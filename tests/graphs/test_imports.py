"""Which of the project's rooms graphs/ and networks/ may look into."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "bench", "client", "demo", "engines", "fetching", "frameswap", "graphs", "networks", "server",
    "tests",
}  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    """Every module of this project that a file names in an import, wherever it stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ROOMS}


@pytest.mark.parametrize("path", sorted((ROOT / "graphs").rglob("*.py")), ids=lambda p: p.stem)
def test_a_graph_imports_graphs_and_networks_alone(path: Path) -> None:
    assert {name.split(".")[0] for name in imported_modules(path)} <= {"graphs", "networks"}


@pytest.mark.parametrize("path", sorted((ROOT / "networks").rglob("*.py")), ids=lambda p: p.stem)
def test_networks_import_of_the_graphs_the_contract_alone(path: Path) -> None:
    outside = {name for name in imported_modules(path) if not name.startswith("networks")}
    assert outside <= {"graphs.contract"}


def test_the_contract_imports_nothing_of_the_project() -> None:
    assert not imported_modules(ROOT / "graphs" / "contract.py")
