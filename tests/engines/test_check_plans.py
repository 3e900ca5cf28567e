"""Plans are compared with the server before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines import check_plans
from engines.check_plans import main, refused_plans
from engines.manifest import PlanKey, ServerVersions, describe, write_manifest
from server import repository
from server.errors import RepositoryError

ADA = ServerVersions(tensorrt="11.4.0", tensorrt_rtx=None, compute_capabilities=("8.9",))
CONFIG = 'backend: "tensorrt" default_model_filename: "model.plan"'


def write_plan(folder: Path, filename: str = "model.plan", **changes: Any) -> Path:
    data = b"a plan"
    fields: dict[str, Any] = {
        "onnx_sha256": "0" * 64,
        "flavour": "tensorrt",
        "tensorrt_version": "11.4.0.106",
        "compute_capabilities": ("8.9",),
        "profile": {},
        "options": {},
    }
    plan = folder / "face_swapper" / "1" / filename
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(data)
    key = PlanKey(**{**fields, **changes})
    manifest = describe(data, model="face_swapper", file=filename, recipe={}, plan=key)
    write_manifest(plan, manifest)
    return plan


def write_config(folder: Path, text: str = CONFIG, target: str = "tensorrt") -> None:
    configs = folder / "face_swapper" / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    (configs / f"{target}.pbtxt").write_text(f'name: "face_swapper" {text}')


def refusals(folder: Path, server: ServerVersions, **config: Any) -> list[str]:
    fields = {"backend": "tensorrt", "default_model_filename": "model.plan", **config}
    return list(refused_plans(folder, {"face_swapper": ModelConfig(**fields)}, server))


def test_a_plan_that_loads_here_is_not_refused(tmp_path: Path) -> None:
    write_plan(tmp_path)
    assert refusals(tmp_path, ADA) == []


def test_each_gpu_is_compared_with_the_plan_that_it_would_load(tmp_path: Path) -> None:
    named = {"8.9": "model.sm89.plan", "9.0": "model.sm90.plan"}
    write_plan(tmp_path, "model.sm89.plan")
    write_plan(tmp_path, "model.sm90.plan", compute_capabilities=("9.0",))
    assert refusals(tmp_path, ADA, cc_model_filenames=named) == []
    hopper = ServerVersions("11.4.0", None, ("9.0",))
    assert refusals(tmp_path, hopper, cc_model_filenames=named) == []
    (ampere,) = refusals(
        tmp_path, ServerVersions("11.4.0", None, ("8.6",)), cc_model_filenames=named
    )
    assert "model.plan is missing" in ampere


def test_a_foreign_a_damaged_and_an_undescribed_plan_are_told_apart(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, tensorrt_version="10.13.0")
    (foreign,) = refusals(tmp_path, ADA)
    assert "compiled by TensorRT 10.13.0, and this server has 11.4.0" in foreign
    write_plan(tmp_path)
    plan.write_bytes(b"a pl4n")
    (damaged,) = refusals(tmp_path, ADA)
    assert "does not match its manifest's checksum" in damaged
    plan.with_name("model.plan.json").unlink()
    (undescribed,) = refusals(tmp_path, ADA)
    assert "has no manifest beside it" in undescribed


def test_a_model_that_may_serve_onnx_meanwhile_is_not_refused_if_it_can(tmp_path: Path) -> None:
    told = 'parameters { key: "onnx_until_plan" value: { string_value: "1" } }'
    write_config(tmp_path, f"{CONFIG} {told}")
    (tmp_path / "face_swapper" / "config.pbtxt").write_text(f'name: "face_swapper" {CONFIG}')
    with pytest.raises(RepositoryError, match=r"model.plan is missing"):
        repository.read_repository(tmp_path, "tensorrt")
    (tmp_path / "face_swapper" / "1").mkdir()
    (tmp_path / "face_swapper" / "1" / "model.cuda.onnx").write_bytes(b"onnx")
    found = repository.read_repository(tmp_path, "tensorrt")
    assert list(refused_plans(tmp_path, found.configs, ADA)) == []


def test_models_of_other_backends_are_left_alone(tmp_path: Path) -> None:
    assert refusals(tmp_path, ADA, backend="onnxruntime") == []


def test_the_command_answers_with_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_plans, "server_versions", lambda: ADA)
    command = ["--repository", str(tmp_path)]
    assert main(command) == 1
    assert "has no target tensorrt" in capsys.readouterr().err
    write_config(tmp_path)
    write_plan(tmp_path)
    assert main(command) == 0
    write_plan(tmp_path, compute_capabilities=("9.0",))
    assert main(command) == 1
    assert "--compute-capability 8.9" in capsys.readouterr().err


def test_the_launcher_refuses_a_foreign_plan_before_it_starts_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "server_versions", lambda: ADA)
    write_config(tmp_path)
    (tmp_path / "face_swapper" / "config.pbtxt").write_text(f'name: "face_swapper" {CONFIG}')
    write_plan(tmp_path)
    found = repository.read_repository(tmp_path, "tensorrt")
    repository.refuse_foreign_plans(found)
    write_plan(tmp_path, tensorrt_version="11.3.0")
    with pytest.raises(
        RepositoryError, match=r"compiled by TensorRT 11.3.0, .* run `python build_engines.py"
    ):
        repository.refuse_foreign_plans(found)
