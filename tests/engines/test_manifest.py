"""Manifests beside plans, and the sentence that refuses a plan a server cannot load."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorrt_rtx

from engines import manifest as manifests
from engines.devices import Gpu
from engines.errors import ManifestError
from engines.manifest import (
    Manifest,
    PlanKey,
    PlannedMemory,
    ServerVersions,
    damage_reason,
    describe,
    manifest_path,
    read_manifest,
    refuse_reason,
    server_versions,
    write_manifest,
)

PLAN = b"a plan" * 1000
KEY = PlanKey(
    onnx_sha256="0" * 64,
    flavour="tensorrt",
    tensorrt_version="11.4.0.106",
    compute_capabilities=("8.6", "8.9"),
    profile={"crops": {"min": (1, 1), "opt": (8, 1), "max": (8, 4)}},
    options={"workspace_bytes": None, "optimization_level": 3},
)
MANIFEST = describe(
    PLAN,
    model="face_swapper",
    file="model.plan",
    recipe={"precision": "fp16", "swapper": "image_swapper_256"},
    plan=KEY,
    memory=PlannedMemory(activation_bytes=10, weight_bytes=20, io_bytes=30),
    fidelity={"crops_psnr_db": 61.5},
    seconds=1.5,
    warnings=["one"],
)


def of_plan(**changes: Any) -> Manifest:
    """The manifest of another plan."""
    return replace(MANIFEST, plan=replace(KEY, **changes))


SERVER = ServerVersions(tensorrt="11.4.0", tensorrt_rtx=None, compute_capabilities=("8.9",))


def test_a_manifest_lies_beside_its_plan_and_reads_back(tmp_path: Path) -> None:
    plan = tmp_path / "model.rtx.plan"
    write_manifest(plan, MANIFEST)
    assert manifest_path(plan).name == "model.rtx.plan.json"
    back = read_manifest(plan)
    assert back.to_json() == MANIFEST.to_json()
    assert back.plan is not None
    assert back.plan.compute_capabilities == ("8.6", "8.9")
    assert (back.memory, back.warnings) == (MANIFEST.memory, ("one",))


def test_an_onnx_file_has_a_manifest_without_a_plan(tmp_path: Path) -> None:
    onnx = describe(b"graph", model="face_swapper", file="model.onnx", recipe={"precision": "fp32"})
    write_manifest(tmp_path / "model.onnx", onnx)
    assert read_manifest(tmp_path / "model.onnx") == onnx
    assert (onnx.plan, onnx.memory, onnx.size) == (None, None, 5)


def test_two_manifests_are_equal_by_their_text() -> None:
    assert replace(MANIFEST).to_json() == MANIFEST.to_json()
    assert json.loads(MANIFEST.to_json())["format"] == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "has no manifest beside it: make both with `python build_engines.py`"),
        ("{", "is not a manifest of this version"),
        ("[]", "is not a manifest of this version"),
        ("{}", "is not a manifest of this version"),
        ('{"format": 1}', "another format"),
        ('{"format": 2, "plan": {}}', "is not a manifest of this version"),
        ('{"format": 2, "plan": null, "memory": null, "warnings": []}', "of this version"),
    ],
)
def test_a_missing_or_foreign_manifest_is_one_sentence(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    plan = tmp_path / "model.plan"
    if text is not None:
        manifest_path(plan).write_text(text)
    with pytest.raises(ManifestError, match=sentence):
        read_manifest(plan)


def test_a_process_that_only_reads_manifests_loads_no_onnx() -> None:
    # Every model process of a server imports it.
    code = "import engines.manifest, sys; print('onnx' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_a_whole_plan_is_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(PLAN)
    assert damage_reason(tmp_path / "model.plan", MANIFEST) is None


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "cannot be read"),
        (PLAN[:-1], "has 5999 bytes, its manifest says 6000"),
        (b"b" + PLAN[1:], "does not match its manifest's checksum"),
    ],
)
def test_a_damaged_plan_is_found_before_it_is_loaded(
    tmp_path: Path, data: bytes | None, sentence: str
) -> None:
    plan = tmp_path / "model.plan"
    if data is not None:
        plan.write_bytes(data)
    reason = damage_reason(plan, MANIFEST)
    assert reason is not None
    assert sentence in reason
    assert "build_engines.py" in reason


@pytest.mark.parametrize(
    "server",
    [
        SERVER,
        replace(SERVER, tensorrt="11.4.0.999"),
        replace(SERVER, compute_capabilities=("8.6", "8.9")),
        replace(SERVER, compute_capabilities=()),
        replace(SERVER, tensorrt_rtx="1.7.1"),
    ],
)
def test_a_plan_of_the_servers_own_release_and_gpu_is_not_refused(server: ServerVersions) -> None:
    assert refuse_reason(MANIFEST, server) is None


REBUILD = "run `python build_engines.py --models face_swapper"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tensorrt": "11.3.0"}, "compiled by TensorRT 11.4.0.106, and this server has 11.3.0"),
        ({"tensorrt": "11.4.1"}, "has 11.4.1, which cannot load it"),
        ({"tensorrt": "10.13.0"}, "has 10.13.0, which cannot load it"),
        ({"tensorrt": None, "tensorrt_rtx": "1.7.1"}, "this server has only TensorRT-RTX 1.7.1"),
        ({"compute_capabilities": ("9.0",)}, "for compute capability 8.6, 8.9, and .* GPU has 9.0"),
        ({"compute_capabilities": ("8.9", "12.0")}, "GPU has 12.0"),
    ],
)
def test_a_foreign_plan_is_refused_with_what_to_run(changes: dict[str, Any], sentence: str) -> None:
    reason = refuse_reason(MANIFEST, replace(SERVER, **changes))
    assert reason is not None
    assert re.search(sentence, reason), reason
    assert REBUILD in reason
    assert reason.startswith("face_swapper: model.plan was compiled by TensorRT 11.4.0.106")


def test_each_flavour_is_refused_by_the_others_server() -> None:
    rtx = of_plan(flavour="tensorrt_rtx", tensorrt_version="1.7.1.116")
    reason = refuse_reason(rtx, SERVER)
    assert reason is not None
    assert "compiled by TensorRT-RTX 1.7.1.116, and this server has only TensorRT 11.4.0" in reason
    assert refuse_reason(rtx, ServerVersions(None, "1.7.1.116", ("8.9",))) is None


def test_a_server_without_any_library_is_told_what_to_install() -> None:
    reason = refuse_reason(MANIFEST, ServerVersions(None, None, ()))
    assert reason is not None
    assert reason.endswith("this server has no TensorRT library at all: install TensorRT")


def test_an_unknown_flavour_is_refused() -> None:
    reason = refuse_reason(of_plan(flavour="trt"), SERVER)
    assert reason == "face_swapper: model.plan is of the unknown flavour 'trt'"


def test_a_file_that_is_no_plan_is_refused() -> None:
    reason = refuse_reason(replace(MANIFEST, plan=None), SERVER)
    assert reason is not None
    assert reason.startswith("face_swapper: model.plan is no plan")
    assert REBUILD in reason


def test_the_versions_here_are_the_installed_ones() -> None:
    found = server_versions()
    assert found.tensorrt_rtx == tensorrt_rtx.__version__
    assert found.tensorrt is None, "type stubs are not TensorRT"


def test_tensorrts_version_is_asked_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if name != "libnvinfer.so.10":
            raise OSError(name)
        return SimpleNamespace(getInferLibVersion=lambda: 101302)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(manifests, "visible_gpus", lambda: [Gpu("NVIDIA L4", "8.9", 2**34)])
    assert server_versions() == ServerVersions("10.13.2", tensorrt_rtx.__version__, ("8.9",))
