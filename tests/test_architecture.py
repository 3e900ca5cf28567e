"""docs/architecture.md, followed: its files, the names in them, and who calls whom."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTIONS = {
    head: re.findall(r"^(\d+)\. `([\w/.]+)`: (.*?)(?=^\d+\. |\Z)", body, re.MULTILINE | re.DOTALL)
    for head, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
STOPS = [(head, *stop) for head, stops in SECTIONS.items() for stop in stops]


@cache
def defined_in(path: str) -> frozenset[str]:
    """Functions and classes of a file, and its classes' methods as Class.method."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return frozenset(names)


def calls(path: str, name: str) -> bool:
    """Whether a file calls something of that name, or hands it on by name (`run=run`)."""
    wanted = name.rpartition(".")[2]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Attribute) and node.attr == wanted:
            return True
        if isinstance(node, ast.Name) and node.id == wanted:
            return True
    return False


def test_the_page_is_short_and_its_stops_are_counted() -> None:
    assert len(PAGE.splitlines()) <= 120
    assert len(SECTIONS) >= 5
    for head, stops in SECTIONS.items():
        assert [int(number) for number, _, _ in stops] == list(range(1, len(stops) + 1)), head
    # No numbered line is written in another way, which the test would pass over.
    assert len(STOPS) == len(re.findall(r"^\d+\. ", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("head", "number", "path", "text"), STOPS, ids=lambda value: value[:40])
def test_a_stop_is_a_file_that_defines_what_is_named(
    head: str, number: str, path: str, text: str
) -> None:
    assert (ROOT / path).is_file()
    names = re.findall(r"`([\w.]+)\(\)`", text)
    assert names, "a stop names what to look for"
    elsewhere = re.findall(r"`([\w.]+)\(\)` of\s`([\w.]+)`", text)
    for name in names:
        home = dict(elsewhere).get(name)
        file = path if home is None else str(Path(path).parent / home)
        assert name in defined_in(file), f"{file} defines no {name}"


@pytest.mark.parametrize("head", SECTIONS)
def test_each_stop_is_called_by_one_before_it(head: str) -> None:
    stops = SECTIONS[head]
    for index, (_, path, text) in enumerate(stops[1:], 1):
        first = re.findall(r"`([\w.]+)\(\)`", text)[0]
        before = {earlier for _, earlier, _ in stops[:index] if earlier != path}
        assert any(calls(earlier, first) for earlier in before), f"who calls {first} of {path}?"


def test_the_graphs_come_in_the_order_of_the_ensembles_steps() -> None:
    config = (ROOT / "model_repository" / "swap_faces_i420" / "config.pbtxt").read_text()
    steps = re.findall(r'model_name: "(\w+)"', config)
    boxes = [Path(path).parent.name if path.endswith("__init__.py") else Path(path).stem
             for _, path, _ in SECTIONS["Inside the three graphs"]]  # fmt: skip
    assert [box for box in boxes if any(step.startswith(box) for step in steps)] == [
        step.removesuffix("_i420") for step in steps
    ]
    for step in steps:
        assert f'["{step}"]' in PAGE


def test_the_picture_shows_files_of_the_page() -> None:
    (picture,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shown = re.findall(r"\w+\.py", picture)
    assert len(shown) >= 10
    assert set(shown) <= {Path(path).name for _, _, path, _ in STOPS}


def test_what_else_is_named_is_there() -> None:
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    for path in re.findall(r"`([\w]+/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
