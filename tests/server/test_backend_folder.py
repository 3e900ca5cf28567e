"""Which code the models' processes run: this checkout's, whatever else is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server import backend_folder
from server.backend_folder import BACKENDS, CHECKOUT, write_backends
from server.distribution import prepare
from server.errors import StartError
from server.launcher import EmbeddedServer


def test_the_folder_holds_tritons_backend_and_a_few_lines_for_each_of_ours(tmp_path: Path) -> None:
    write_backends(prepare().python_backend, tmp_path / "backends")
    assert sorted(path.name for path in (tmp_path / "backends").iterdir()) == [
        "onnxruntime", "pipeline", "python", "tensorrt",
    ]  # fmt: skip
    python = {path.name for path in (tmp_path / "backends" / "python").iterdir()}
    assert python >= {"libtriton_python.so", "triton_python_backend_stub"}
    for name in BACKENDS:
        text = (tmp_path / "backends" / name / "model.py").read_text()
        assert f"from server.backends.{name}.model import TritonPythonModel" in text
        assert (CHECKOUT / "server" / "backends" / name / "model.py").is_file()


def test_the_code_is_that_of_the_checkout_which_starts_the_server(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although this checkout's `server` is installed, and other servers share the cache."""
    module = tmp_path / "server" / "backends" / "onnxruntime" / "model.py"
    module.parent.mkdir(parents=True)
    for folder in (module.parent, module.parent.parent, module.parent.parent.parent):
        (folder / "__init__.py").touch()
    module.write_text('raise ImportError("this is the other checkout")\n')
    monkeypatch.setattr(backend_folder, "CHECKOUT", tmp_path)
    sentence = f"the backend onnxruntime cannot be imported from {tmp_path}: this is the other"
    with pytest.raises(StartError, match=sentence):
        EmbeddedServer(tiny_repository, models=["invert_frame"]).start()


def test_another_checkouts_code_is_refused(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found where this checkout's code is gone: the one that is installed."""
    monkeypatch.setattr(backend_folder, "CHECKOUT", tmp_path)
    with pytest.raises(StartError, match=r"was imported from .* and not from " + str(tmp_path)):
        EmbeddedServer(tiny_repository, models=["invert_frame"]).start()
    assert str(tmp_path) not in sys.path
