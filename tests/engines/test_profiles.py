"""Profiles made from a graph's axis letters, and the memory that a profile's maximum takes."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from engines.errors import MemoryLimitExceeded, ProfileError
from engines.manifest import PlannedMemory
from engines.profiles import (
    AxisRange,
    ProfileLimits,
    ShapeRange,
    check_memory,
    make_profile,
    planned_memory,
)
from engines.shapes import infer_shapes
from graphs.contract import MODEL_SPECS, TensorSpec

AXES = {"S": 256, "D": 512, "E": 128}
DTYPES = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}


def served(name: str) -> onnx.ModelProto:
    """A model with the inputs of a served one, its fixed axes fixed, and no nodes."""

    def info(spec: TensorSpec) -> onnx.ValueInfoProto:
        dims = ["B", *(AXES.get(str(dim), dim) for dim in spec.dims)]
        return helper.make_tensor_value_info(spec.name, DTYPES[spec.dtype], dims)

    inputs = [info(spec) for spec in MODEL_SPECS[name].inputs]
    return helper.make_model(helper.make_graph([], name, inputs, []))


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_every_served_model_gets_a_profile_from_its_own_axes(name: str) -> None:
    profile = make_profile(served(name), ProfileLimits())
    assert set(profile) == {spec.name for spec in MODEL_SPECS[name].inputs}
    for shapes in profile.values():
        assert shapes.min[0] == 1
        assert shapes.max[0] == 8


def test_the_default_maximum_is_eight_1080p_frames_with_four_faces() -> None:
    detector = make_profile(served("face_detector_i420"), ProfileLimits())
    assert detector["frame"] == ShapeRange((1, 96, 64), (8, 1620, 1920), (8, 1620, 1920))
    assert detector["source"] == ShapeRange((1, 1, 512), (8, 1, 512), (8, 4, 512))
    blender = make_profile(served("face_blender_bgr"), ProfileLimits())
    assert blender["frame"].max == (8, 1080, 1920, 3)
    assert blender["swapped_crops"].max == (8, 4, 3, 256, 256)
    assert blender["warps"].max == (8, 4, 2, 3)
    assert blender["faces"].max == (8, 16, 15)


def test_4k_is_an_option() -> None:
    limits = ProfileLimits(height=AxisRange(64, 1080, 2160), width=AxisRange(64, 1920, 3840))
    frame = make_profile(served("face_blender_i420"), limits)["frame"]
    assert frame == ShapeRange((1, 96, 64), (8, 1620, 1920), (8, 3240, 3840))


@given(
    batch=st.integers(1, 8),
    faces=st.integers(1, 4),
    half_height=st.integers(32, 540),
    width=st.integers(64, 1920),
)
def test_every_shape_up_to_the_maximum_is_inside_the_profile(
    batch: int, faces: int, half_height: int, width: int
) -> None:
    profile = make_profile(served("face_detector_i420"), ProfileLimits())
    wanted = {
        "frame": (batch, half_height * 3, width),
        "source": (batch, faces, 512),
        "options": (batch, 8),
    }
    for name, shape in wanted.items():
        low, high = profile[name].min, profile[name].max
        assert all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)), name


@pytest.mark.parametrize("letter", ["T", "S", ""])
def test_an_axis_that_nothing_bounds_is_refused_by_name(letter: str) -> None:
    value = helper.make_tensor_value_info("crops", onnx.TensorProto.FLOAT, ["B", letter or None])
    model = helper.make_model(helper.make_graph([], "g", [value], []))
    with pytest.raises(ProfileError, match=rf"'crops' has the free axis '{letter}', which is none"):
        make_profile(model, ProfileLimits())


@pytest.mark.parametrize(
    ("low", "best", "high", "sentence"),
    [
        ((2, 8), (1, 8), (4, 8), "min <= opt <= max"),
        ((1, 8), (5, 8), (4, 8), "min <= opt <= max"),
        ((0, 8), (1, 8), (4, 8), "min <= opt <= max"),
        ((1,), (1, 8), (4, 8), "differ in rank"),
    ],
)
def test_an_impossible_profile_is_refused(
    low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ProfileError, match=sentence):
        ShapeRange(low, best, high)


def relu() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>'
        "g (float[B, 1024] x) => (float[B, 1024] y) { y = Relu(x) }"
    )


def test_the_compilers_figures_are_preferred_to_shape_arithmetic() -> None:
    shapes = infer_shapes(relu(), {"x": (256, 1024)})
    mib = 2**20
    assert planned_memory(shapes, None, None) == PlannedMemory(1 * mib, 2 * mib, 0)
    assert planned_memory(shapes, 5 * mib, 7 * mib) == PlannedMemory(5 * mib, 2 * mib, 7 * mib)


def test_contexts_share_weights_and_nothing_else() -> None:
    plan = PlannedMemory(activation_bytes=100, io_bytes=20, weight_bytes=1000)
    assert plan.total_bytes() == 1120
    assert plan.total_bytes(contexts=3) == 1360


def test_plans_above_the_allowed_memory_are_refused_naming_the_largest() -> None:
    gib = 2**30
    planned = {
        "face_swapper": PlannedMemory(gib, 0, gib),
        "face_blender_i420": PlannedMemory(gib // 2, 0, 0),
    }
    assert check_memory(planned, None) == 2 * gib + gib // 2
    assert check_memory(planned, 3 * gib) == 2 * gib + gib // 2
    assert check_memory(planned, 4 * gib, {"face_swapper": 2}) == 3 * gib + gib // 2
    with pytest.raises(
        MemoryLimitExceeded,
        match=r"need 2560 MiB .*, 2048 MiB are allowed .*largest is face_swapper with 2048 MiB",
    ):
        check_memory(planned, 2 * gib)
