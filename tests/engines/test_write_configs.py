"""The committed configs are those that the contract gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines import write_configs
from engines.base_configs import base_config
from engines.repository import COMMITTED
from engines.write_configs import main
from graphs.contract import CROPS, ENSEMBLE_SPECS, MODEL_SPECS, ModelSpec

SPECS = {**MODEL_SPECS, **ENSEMBLE_SPECS}


@pytest.mark.parametrize("model", SPECS)
def test_a_committed_config_is_current(model: str) -> None:
    # If this fails: python -m engines.write_configs
    text = (COMMITTED / model / "config.pbtxt").read_text(encoding="utf-8")
    assert text == base_config(SPECS[model])


def test_the_rates_beside_the_batch_size_say_whose_they_are() -> None:
    text = base_config(MODEL_SPECS["face_swapper"])
    assert "compiled by PyTorch in fp16 on an H100, made 981 faces/s" in text
    assert "#" not in base_config(MODEL_SPECS["source_encoder"])


def test_a_new_model_gets_its_folder_and_what_is_current_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--repository", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(SPECS)
    new = ModelSpec("face_painter", (CROPS,), (replace(CROPS, name="painted_crops"),), sees="crops")
    monkeypatch.setattr(write_configs, "MODEL_SPECS", {**MODEL_SPECS, new.name: new})
    assert main(["--repository", str(tmp_path)]) == 0
    folder = tmp_path / "face_painter"
    assert capsys.readouterr().out == f"written: {folder / 'config.pbtxt'}\n"
    assert (folder / "1" / ".gitkeep").is_file()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    assert list(config.output[0].dims) == [-1, 3, -1, -1]
