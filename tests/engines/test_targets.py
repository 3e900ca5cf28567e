"""One row per target, and nobody who goes by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.targets import DEFAULT_TARGET, TARGETS, UNTIL_PLAN, target_of
from fetching.weights import WEIGHTS
from graphs.contract import MODEL_SPECS
from networks.swappers import SWAPPERS

ROOT = Path(__file__).parents[2]
ROOMS = ("bench", "client/frameswap", "demo", "engines", "fetching", "graphs", "networks", "server")
MODULES = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py")),
    )
    if path.name != "targets.py"
)  # fmt: skip


def test_targets_lie_side_by_side_in_one_version_folder() -> None:
    assert len({row.filename for row in TARGETS.values()}) == len(TARGETS)
    assert all(row.name == name for name, row in TARGETS.items())


def test_a_plan_is_for_the_library_that_compiles_it_and_onnx_for_none() -> None:
    assert (target_of("tensorrt").name, target_of("tensorrt_rtx").name) == ("tensorrt", "rtx")
    for row in TARGETS.values():
        assert (row.flavour is None) == (row.backend == "onnxruntime")
        assert row.filename.endswith(".onnx" if row.flavour is None else ".plan")
    assert UNTIL_PLAN.flavour is None
    assert not DEFAULT_TARGET.on_gpu


def test_what_is_served_by_default_is_the_projects_own_network_the_small_one_on_a_cpu() -> None:
    for row in TARGETS.values():
        wanted = "frameswap_256" if row.on_gpu else "frameswap_256_small"
        assert row.swapper == wanted
        assert SWAPPERS[wanted].weight == wanted
        assert not WEIGHTS[wanted].needs_acceptance


def test_only_a_target_that_our_own_backends_serve_is_ragged() -> None:
    for row in TARGETS.values():
        # A ragged input that nobody joins would be flattened.
        assert row.joins_rows or not row.ragged


def constants(node: ast.AST) -> set[object]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}


def comparisons(tree: ast.AST) -> Iterator[tuple[str, set[object]]]:
    """What is compared, and the literals that it is compared with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            told = " ".join(ast.unparse(part) for part in parts if not constants(part))
            yield told, set().union(*map(constants, parts))
        elif isinstance(node, ast.Match):
            found = (constants(case.pattern) for case in node.cases)
            yield ast.unparse(node.subject), set().union(*found)
        elif isinstance(node, ast.Dict) and {"cpu", "rtx"} & (
            keys := set().union(*(constants(key) for key in node.keys if key is not None))
        ):
            yield "target", keys


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_compares_with_a_targets_name(module: Path) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for told, literals in comparisons(tree):
        if re.search(r"\b(target|variant)", told):
            assert not literals & set(TARGETS), f"{told} goes by a name: give targets.py a field"


@pytest.mark.parametrize(
    "module", [path for path in MODULES if path.parts[0] in ("engines", "server")], ids=str
)
def test_nothing_decides_by_a_models_name(module: Path) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for told, literals in comparisons(tree):
        assert not literals & set(MODEL_SPECS), f"{told} goes by a name: give ModelSpec a field"
    for node in ast.walk(tree):
        method = getattr(getattr(node, "func", None), "attr", "")
        if method in ("startswith", "endswith", "removeprefix", "replace"):
            told = {text for text in constants(node) if isinstance(text, str)}
            assert not any(re.match(r"face_|_?(i420|bgr)$", text) for text in told)
