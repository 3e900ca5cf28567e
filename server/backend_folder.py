"""The folder of backends that one server is started with: a link, and a few lines for each of ours.

Triton wants a folder a backend. `python` is a link to Triton's own, for the Python that runs now.
Ours are written as stub files of a few lines, which import the backend from this checkout. The
folder belongs to one server and goes with it, so that no other checkout's server ever runs this
one's code, or the other way round.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from server.scratch import is_plain, plain_path

CHECKOUT: Final = Path(__file__).resolve().parent.parent
"""What the stub files put first on the module path: `server` lies in it."""

BACKENDS: Final = ("onnxruntime", "pipeline", "tensorrt")

STUB_FILE: Final = """import sys

sys.path.insert(0, {checkout!r})
try:
    import server
    from server.backends.{name}.model import TritonPythonModel
except ImportError as error:
    told = "cannot be imported from " + {checkout!r} + ": " + str(error)
    raise ImportError("the backend {name} " + told) from error
if list(server.__path__) != [{checkout!r} + "/server"]:
    told = "was imported from " + server.__path__[0] + " and not from " + {checkout!r}
    raise ImportError("the backend {name} " + told)
"""
"""The checkout comes first on the path: an installed `server` may be another checkout's."""


def write_backends(python_backend: Path, folder: Path) -> None:
    """Write the value of `--backend-directory`.

    Args:
        python_backend: folder of Triton's Python backend, with the stub of this Python.
        folder: to make.
    """
    folder.mkdir()
    if is_plain(python_backend.resolve()):
        # The folder, not its files: Triton refuses a library that is itself a link.
        (folder / "python").symlink_to(python_backend, target_is_directory=True)
    else:
        # Triton follows the link, and hands the path that it finds to a shell.
        shutil.copytree(python_backend, folder / "python")
    checkout = plain_path(CHECKOUT, folder.parent, "checkout")
    for name in BACKENDS:
        (folder / name).mkdir()
        text = STUB_FILE.format(name=name, checkout=str(checkout))
        (folder / name / "model.py").write_text(text, encoding="utf-8")
