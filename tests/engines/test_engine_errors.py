"""Every error is drawn where a person looks for it."""

from __future__ import annotations

import importlib
import pkgutil
import re

import engines
from engines import errors


def _members(root: type[Exception]) -> set[str]:
    found = {root.__name__}
    for child in root.__subclasses__():
        # The tests' own stand-ins are not drawn.
        if child.__module__.startswith("engines."):
            found |= _members(child)
    return found


def test_the_drawn_tree_has_every_error_under_its_parent() -> None:
    for module in pkgutil.iter_modules(engines.__path__):
        importlib.import_module(f"engines.{module.name}")
    drawn: dict[str, int] = {}
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        row = re.match(r"([|' -]*)([A-Z]\w+) {2,}\S", line)
        if row is None:
            continue
        depth, name = len(row[1]), row[2]
        parents = [entry for entry in parents if entry[0] < depth]
        drawn[name] = depth
        if parents:
            (parent,) = _find(name).__bases__
            assert parent.__name__ == parents[-1][1], name
        parents.append((depth, name))
    assert set(drawn) == _members(errors.EngineError)


def _find(name: str) -> type[Exception]:
    waiting: list[type[Exception]] = [errors.EngineError]
    while waiting:
        found = waiting.pop()
        if found.__name__ == name:
            return found
        waiting += found.__subclasses__()
    raise AssertionError(f"{name} is drawn and is no EngineError")
