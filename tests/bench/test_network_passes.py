"""The bench runs at a small width on the CPU: variants are built, checked, timed and tabled."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from bench.network_passes import Measurement, Variant, main, variants
from networks.passes import CHANNELS_LAST_PASSES, PORTABLE_PASSES


def test_variants_are_timed_checked_and_tabled_and_a_second_run_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "passes"
    arguments = ["--provider", "cpu", "--channels", "8", "--batches", "1", "--seconds", "0"]
    # One of each kind: building a variant takes a second.
    chosen = [row.name for row in variants()[:4]] + ["channels last without cancel_transposes"]
    arguments += ["--output", str(output), "--variants", *chosen]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert first.count("batch 1:") == len(chosen)
    content = json.loads(output.with_suffix(".json").read_text())
    assert content["not_run"] == []
    assert all(cell["psnr"] > 50 for cell in content["cells"].values())
    assert output.with_suffix(".md").read_text().count("\n") == len(chosen) + 2
    assert main(arguments) == 0
    assert "batch 1:" not in capsys.readouterr().out


def test_one_variant_can_be_measured_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--provider", "cpu", "--channels", "8", "--batches", "2", "--seconds", "0.01"]
    assert main([*arguments, "--variants", "portable", "--output", str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("portable | batch 2: ")
    assert "as exported" not in printed


def test_each_pass_of_each_order_is_taken_out_once() -> None:
    names = [variant.name for variant in variants()]
    for order, passes in (("portable", PORTABLE_PASSES), ("channels last", CHANNELS_LAST_PASSES)):
        for name in passes:
            assert f"{order} without {name}" in names
    assert len(names) == len(set(names)) == 5 + len(PORTABLE_PASSES) + len(CHANNELS_LAST_PASSES)


def test_what_there_was_no_time_for_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "passes"
    arguments = ["--provider", "cpu", "--channels", "8", "--batches", "1", "2", "--minutes", "-1"]
    main([*arguments, "--output", str(output)])
    missing = json.loads(output.with_suffix(".json").read_text())["not_run"]
    assert len(missing) == 2 * len(variants())
    assert "Not run (out of time; run again to go on)" in capsys.readouterr().out


def test_a_missing_cuda_provider_is_a_cell_with_its_reason_and_not_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # ONNX Runtime falls back to the CPU and only logs it.
    fallen_back = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    measurement = Measurement(channels=8, provider="cuda", seconds=0)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: fallen_back)
    cell = measurement.measure(Variant("as exported", ()), 1, cuda_graph=False)
    assert cell.faces_per_second == 0
    assert cell.error == "ONNX Runtime has no CUDA provider here; install onnxruntime-gpu"


def test_another_architecture_can_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--provider", "cpu", "--architecture", "ghost", "--channels", "32"]
    arguments += ["--batches", "1", "--seconds", "0", "--variants", "portable", "channels last"]
    assert main([*arguments, "--output", str(tmp_path / "ghost")]) == 0
    content = json.loads((tmp_path / "ghost.json").read_text())
    assert content["architecture"] == "ghost"
    assert all(cell["psnr"] > 50 for cell in content["cells"].values())
    assert len(content["cells"]) == 2
