"""What decides a built file: its code, read from the imports, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engines import recipe
from engines.precision import PRECISIONS, Precision
from engines.recipe import CHECKOUT, differences, imported_files, source_files, sources_digest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the packages that a build imports, to change."""
    for package in ("engines", "fetching", "graphs", "networks", "server"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def rebuilt_after_a_change(checkout: Path, name: str) -> set[Precision]:
    """The precisions whose digest another line in the file `name` changes."""
    before = {precision: _digest(checkout, precision) for precision in PRECISIONS}
    with (checkout / name).open("a") as file:
        file.write('\n_HELP = "another word"\n')
    return {each for each in PRECISIONS if _digest(checkout, each) != before[each]}


def _digest(checkout: Path, precision: Precision) -> str:
    return sources_digest.__wrapped__(precision, checkout)


@pytest.mark.parametrize(
    "name",
    [
        "engines/build.py",
        "engines/command_line.py",
        "engines/compilers.py",
        "engines/errors.py",
        "engines/preview.py",
        "fetching/models_command.py",
        "fetching/weights.py",
        "server/command_line.py",
    ],
)
def test_what_makes_no_graph_rebuilds_nothing(checkout: Path, name: str) -> None:
    assert rebuilt_after_a_change(checkout, name) == set()


@pytest.mark.parametrize("name", ["samples", "fidelity", "quantization", "rounding", "targets"])
def test_calibration_rebuilds_what_is_in_eight_bits(checkout: Path, name: str) -> None:
    assert rebuilt_after_a_change(checkout, f"engines/{name}.py") == {"int8", "fp8"}


def test_typing_rebuilds_what_is_typed(checkout: Path) -> None:
    assert rebuilt_after_a_change(checkout, "engines/precision.py") == {"fp16", "int8", "fp8"}


@pytest.mark.parametrize(
    "name",
    [
        "graphs/contract/options.py",
        "graphs/face_blender/__init__.py",
        "graphs/face_detector.py",
        "networks/batching.py",
        "networks/passes/rewriting.py",
        "networks/swappers.py",
    ],
)
def test_graphs_and_networks_rebuild_everything(checkout: Path, name: str) -> None:
    assert rebuilt_after_a_change(checkout, name) == set(PRECISIONS)


def test_every_graph_and_network_module_is_digested() -> None:
    modules = {path for room in ("graphs", "networks") for path in (CHECKOUT / room).rglob("*.py")}
    assert modules - set(source_files("fp32")) == set()


def test_a_module_that_a_graph_comes_to_need_is_digested_from_then_on(checkout: Path) -> None:
    (checkout / "graphs" / "mask.py").write_text("SIDE = 8\n")
    assert rebuilt_after_a_change(checkout, "graphs/mask.py") == set()
    with (checkout / "graphs" / "face_swapper.py").open("a") as file:
        file.write("\n\ndef mask() -> int:\n    from graphs.mask import SIDE\n\n    return SIDE\n")
    assert rebuilt_after_a_change(checkout, "graphs/mask.py") == set(PRECISIONS)


def test_a_file_that_moves_within_the_code_changes_the_digest(checkout: Path) -> None:
    before = _digest(checkout, "fp32")
    (checkout / "graphs" / "letterbox.py").rename(checkout / "graphs" / "fitting.py")
    for path in (checkout / "graphs").rglob("*.py"):
        path.write_text(path.read_text().replace("graphs.letterbox", "graphs.fitting"))
    assert _digest(checkout, "fp32") != before


def test_every_module_that_is_left_out_exists() -> None:
    named = {name for names in recipe._UNUSED.values() for name in names} | set(recipe._ELSEWHERE)
    for name in (*named, recipe._AUTHOR):
        assert recipe._module_path(CHECKOUT, name).is_file(), name


def test_imports_are_read_in_every_form(tmp_path: Path) -> None:
    for name in ("a/__init__.py", "a/b.py", "a/c/__init__.py", "d.py", "e.py", "g.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    importer = tmp_path / "e.py"
    importer.write_text(
        "import d, json\nimport numpy as np\nfrom a import b\n\ndef f():\n    from a.c import x\n"
        "if TYPE_CHECKING:\n    import g\n"
    )
    found = {str(path.relative_to(tmp_path)) for path in imported_files(importer, tmp_path)}
    assert found == {"d.py", "a/__init__.py", "a/b.py", "a/c/__init__.py"}


def test_differences_are_told_one_phrase_each() -> None:
    built = {"sources": "1", "weights yunet": "1", "precision": "fp16", "method": "whole"}
    wanted = {"sources": "2", "weights yunet": "2", "precision": "fp32", "passes": "all"}
    assert differences(built, wanted) == (
        "method is gone (was whole); passes is new (all); precision is fp32, was fp16; "
        "the code that authors it changed; the file of yunet changed"
    )
