"""A model repository of the same contract whose models only copy: transport is all that is left.

The configs are the deployed ones; only the networks are exchanged. The detector finds nothing, so
that the swapper has no rows; the blender hands the frame back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model
from onnx.onnx_ml_pb2 import ModelProto, NodeProto

from engines.configs import HostOptions, Limits, config_text, make_config, read_config
from engines.deployment import Deployment, resolve
from engines.targets import DEFAULT_TARGET
from graphs.contract import (
    CROPS,
    DETECTED_FRAME,
    FACE_COLUMNS,
    FACES,
    FRAME,
    IR_VERSION,
    MAX_DETECTIONS,
    MODEL_SPECS,
    OPSET,
    OPTIONS,
    SOURCE,
    SWAPPED_CROPS,
    SWAPPED_FRAME,
    WARPS,
    TensorSpec,
)
from networks.detectors import DETECTORS

SWAPPER: Final = "inswapper_128"
"""Its sources are 512 numbers, so that the frame is all that weighs."""
MODELS: Final = ("swap_faces_i420", "face_detector_i420", "face_swapper", "face_blender_i420")
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
    nodes = {
        "face_detector_i420": lambda: [
            helper.make_node("Identity", [FRAME], [DETECTED_FRAME]),
            *_zeros(FACES.name, OPTIONS.name, 1, (MAX_DETECTIONS, FACE_COLUMNS)),
            *_zeros(CROPS.name, SOURCE.name, 2, (3, deployment.crop_size, deployment.crop_size)),
            *_zeros(WARPS.name, SOURCE.name, 2, (2, 3)),
        ],
        "face_swapper": lambda: [helper.make_node("Identity", [CROPS.name], [SWAPPED_CROPS.name])],
        "face_blender_i420": lambda: [helper.make_node("Identity", [FRAME], [SWAPPED_FRAME])],
    }[name]()
    spec = MODEL_SPECS[name]
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


def _zeros(output: str, like: str, axes: int, rest: tuple[int, ...]) -> list[NodeProto]:
    """Zeros of shape [the first `axes` axes of `like`, *rest]."""
    tail = numpy_helper.from_array(np.array(rest, np.int64))
    return [
        helper.make_node("Shape", [like], [f"{output}/leading"], end=axes),
        helper.make_node("Constant", [], [f"{output}/tail"], value=tail),
        helper.make_node("Concat", [f"{output}/leading", f"{output}/tail"], [f"{output}/shape"],
                         axis=0),
        helper.make_node("ConstantOfShape", [f"{output}/shape"], [output]),
    ]  # fmt: skip


def _value_info(tensor: TensorSpec, deployment: Deployment) -> object:
    sizes = deployment.axis_sizes
    dims = [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.dims]
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], ["B", *dims])
