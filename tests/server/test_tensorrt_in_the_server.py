"""The `tensorrt` backend inside the real server, as far as a machine without a GPU gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorrt_rtx

from engines.targets import TARGETS, UNTIL_PLAN
from server.backends import plans
from server.errors import StartError
from server.launcher import EmbeddedServer
from tests.server.test_tensorrt_backend import write_plan


def test_the_real_server_finds_the_backend_and_passes_its_sentence_on(tmp_path: Path) -> None:
    folder = tmp_path / "face_swapper"
    (folder / "1").mkdir(parents=True)
    (folder / "configs").mkdir()
    tensor = "data_type: TYPE_FP32 dims: 3"
    config = f"""name: "face_swapper" backend: "tensorrt" max_batch_size: 8
        default_model_filename: "model.rtx.plan" instance_group {{ kind: KIND_CPU }}
        input {{ name: "x" {tensor} }} output {{ name: "y" {tensor} }}
        parameters {{ key: "engine_flavour" value: {{ string_value: "tensorrt_rtx" }} }}"""
    (folder / "config.pbtxt").write_text(config)
    (folder / "configs" / "rtx.pbtxt").write_text(config)
    write_plan(
        folder / "1",
        b"a plan of this release",
        filename="model.rtx.plan",
        flavour="tensorrt_rtx",
        tensorrt_version=tensorrt_rtx.__version__,
    )
    # KIND_CPU gets past Triton's own check for a GPU, as far as the backend's.
    with pytest.raises(StartError, match="face_swapper: TensorRT needs KIND_GPU; serve the cpu"):
        EmbeddedServer(tmp_path, target="rtx").start()


def test_files_have_the_names_that_the_builder_gives_them() -> None:
    assert UNTIL_PLAN.filename == plans.ONNX_FILENAME
    built = {row.flavour: row.filename for row in TARGETS.values() if row.flavour is not None}
    assert built == plans.DEFAULT_FILENAMES
