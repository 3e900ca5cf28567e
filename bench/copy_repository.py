"""A model repository of the same contract whose models only copy: transport is all that is left.

The configs are the deployed ones; only the networks are exchanged. The detector finds nothing, so
that the swapper has no rows; the blender hands the frame back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model
from onnx.onnx_ml_pb2 import ModelProto, NodeProto, ValueInfoProto

from engines.configs import HostOptions, Limits, config_text, make_config, read_config
from engines.deployment import Deployment, resolve
from engines.targets import DEFAULT_TARGET
from graphs.contract import IR_VERSION, MODEL_SPECS, OPSET, TensorSpec, models_of
from networks.detectors import DETECTORS

SWAPPER: Final = "inswapper_128"
"""Its sources are 512 numbers, so that the frame is all that weighs."""
MODELS: Final = ("swap_faces_i420", *models_of("swap_faces_i420"))
_TYPES: Final = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def write_copy_repository(folder: Path, committed: Path) -> Deployment:
    """Write the repository, target `cpu`.

    Args:
        folder: where to; it must not hold these models yet.
        committed: the repository whose base configs are used.
    """
    deployment = resolve(swapper=SWAPPER, detector="yunet", detectors=tuple(DETECTORS))
    for name in MODELS:
        base = committed / name / "config.pbtxt"
        model = folder / name
        (model / "configs").mkdir(parents=True)
        (model / "1").mkdir()
        (model / "config.pbtxt").write_text(base.read_text(encoding="utf-8"), encoding="utf-8")
        config = make_config(
            read_config(base),
            DEFAULT_TARGET,
            deployment,
            limits=Limits(),
            host=HostOptions(intra_op_thread_count=1),
        )
        path = model / "configs" / f"{DEFAULT_TARGET.name}.pbtxt"
        path.write_text(config_text(config), encoding="utf-8")
        if name in MODEL_SPECS:
            save_model(_network(name, deployment), model / "1" / DEFAULT_TARGET.filename)
    return deployment


def _network(name: str, deployment: Deployment) -> ModelProto:
    """Every output is the input of its shape, else zeros."""
    spec = MODEL_SPECS[name]
    nodes: list[NodeProto] = []
    for output in spec.outputs:
        same = [t.name for t in spec.inputs if (t.dtype, t.dims) == (output.dtype, output.dims)]
        if same:
            nodes.append(helper.make_node("Identity", same[:1], [output.name]))
            continue
        per_face = output.dims[0] == "K"
        like = next(t.name for t in spec.inputs if not per_face or t.dims[0] == "K")
        dims = _dims(output, deployment)[1 if per_face else 0 :]
        nodes += _zeros(output.name, like, 2 if per_face else 1, dims)
    graph = helper.make_graph(
        nodes,
        f"copy_{name}",
        [_value_info(tensor, deployment) for tensor in spec.inputs],
        [_value_info(tensor, deployment) for tensor in spec.outputs],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model, full_check=True)
    return model


def _zeros(output: str, like: str, axes: int, rest: list[int | str]) -> list[NodeProto]:
    """Zeros of shape [the first `axes` axes of `like`, *rest]."""
    tail = numpy_helper.from_array(np.array(rest, np.int64))
    return [
        helper.make_node("Shape", [like], [f"{output}/leading"], end=axes),
        helper.make_node("Constant", [], [f"{output}/tail"], value=tail),
        helper.make_node("Concat", [f"{output}/leading", f"{output}/tail"], [f"{output}/shape"],
                         axis=0),
        helper.make_node("ConstantOfShape", [f"{output}/shape"], [output]),
    ]  # fmt: skip


def _value_info(tensor: TensorSpec, deployment: Deployment) -> ValueInfoProto:
    dims = ["B", *_dims(tensor, deployment)]
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], dims)


def _dims(tensor: TensorSpec, deployment: Deployment) -> list[int | str]:
    sizes = deployment.axis_sizes
    return [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.dims]
