"""What decides a plan: the typed graph, its profile, the compiler."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
from onnx import TensorProto, helper

from engines.compilers import CompileOptions
from engines.plans import CompileSettings, PlanAxes, plan_key


def test_the_key_digests_the_graph_and_spells_out_the_profile(tmp_path: Path) -> None:
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["B", "H*3/2", "W"])
    graph = helper.make_model(helper.make_graph([], "face_detector_i420", [frame], []))
    compiler: Any = SimpleNamespace(flavour="tensorrt", version="11.4.0")
    settings = CompileSettings(
        compiler=compiler,
        compute_capabilities=("9.0", "8.9"),
        axes=PlanAxes(),
        options=CompileOptions(optimization_level=5),
        cache=tmp_path,
    )
    _, key = plan_key("face_detector_i420", graph, "tensorrt", settings)
    data = onnx.ModelProto.SerializeToString(graph, deterministic=True)
    assert key.onnx_sha256 == hashlib.sha256(data).hexdigest()
    assert key.compute_capabilities == ("8.9", "9.0")
    assert key.components["profile"]["frame"]["max"] == [8, 1620, 1920]
    assert key.options["optimization_level"] == 5
