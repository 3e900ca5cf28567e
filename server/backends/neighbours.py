"""One Python-based backend using another: their modules lie side by side in Triton's folders."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_backend(name: str, beside: str) -> ModuleType:
    """The module of another backend, loaded once a process.

    Args:
        name: of its folder.
        beside: the asking backend's own file.

    Raises:
        ValueError: there is none of this name.
    """
    known = f"frameswap_{name}"
    if known in sys.modules:
        return sys.modules[known]
    path = Path(beside).resolve().parent.parent / name / "model.py"
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"there is no backend {name!r} ({path}); install the server again.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module  # its dataclasses look their own module up
    spec.loader.exec_module(module)
    return module
