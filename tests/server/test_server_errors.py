"""The server's error tree as it is drawn, and how its sentences end."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from server import errors

SOURCES = sorted(Path(errors.__file__).parent.rglob("*.py"))


def test_the_drawn_tree_is_the_tree() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ServerError)
    }
    drawn: dict[str, int] = {}
    for line in str(errors.__doc__).splitlines():
        name = line.strip(" │├└─").partition(" ")[0]
        if name.endswith("Error"):
            drawn[name] = line.index(name)
    assert drawn.keys() == classes.keys()
    for name, kind in classes.items():
        parent = kind.__mro__[1].__name__
        if name != "ServerError":
            assert drawn[name] == drawn[parent] + 4


def last_words(raised: ast.expr) -> list[str]:
    """What the literal texts of a raised error's arguments end with."""
    words = []
    for argument in raised.args if isinstance(raised, ast.Call) else []:
        last = argument.values[-1] if isinstance(argument, ast.JoinedStr) else argument
        if isinstance(last, ast.Constant) and isinstance(last.value, str):
            words.append(last.value)
    return words


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_error_sentences_end_without_a_full_stop(path: Path) -> None:
    raises = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    for words in (last_words(node.exc) for node in raises if node.exc is not None):
        assert [text for text in words if text.endswith(".") and not text.endswith("...")] == []
