"""The committed configs against the serving contract, each target's against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from engines import configs, deployment
from engines.errors import DeploymentError
from engines.served_graphs import served_graphs
from engines.targets import TARGETS
from graphs.contract import (
    CONTRACT_VERSION,
    ENSEMBLE_SPECS,
    MODEL_SPECS,
    ModelSpec,
    TensorSpec,
    option_ranges,
)
from networks.passes import CHANNELS_LAST_PASSES, PORTABLE_PASSES
from networks.swappers import SWAPPERS
from server.backends.common import ModelSettings
from server.backends.device import padded_sizes

REPOSITORY = Path(__file__).parent.parent / "model_repository"
SPECS = {**MODEL_SPECS, **ENSEMBLE_SPECS}
DTYPES = {"uint8": DataType.TYPE_UINT8, "float32": DataType.TYPE_FP32}

# What core 2.51.0 (Triton 24.10) has no field for, by the branch that brought it: 24.11, 25.11.
NEWER_FIELDS = {"model_metrics", "max_inflight_requests"}
# Any of these makes requests stall for 500 ms on a model with one instance.
STALLING_FIELDS = {
    "default_queue_policy",
    "priority_queue_policy",
    "priority_levels",
    "default_priority_level",
}


def load(model: str) -> ModelConfig:
    text = (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


BASES = {model: load(model) for model in SPECS}


def deployed(swapper: str, pixel_boost: int = 1) -> deployment.Deployment:
    return deployment.resolve(
        swapper=swapper, detector="yunet", pixel_boost=pixel_boost, detectors=("yunet",)
    )


def make(
    model: str,
    target: str,
    swapper: str = "image_swapper_256",
    limits: configs.Limits | None = None,
    host: configs.HostOptions | None = None,
) -> ModelConfig:
    return configs.make_config(
        BASES[model],
        TARGETS[target],
        deployed(swapper),
        limits=limits or configs.Limits(),
        host=host,
    )


def fields(message: Message) -> set[str]:
    """Names of every field that is set anywhere in `message`."""
    found = set()
    for field, value in message.ListFields():
        found.add(field.name)
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            value = [entry for entry in value.values() if isinstance(entry, Message)]
        for entry in value if not isinstance(value, Message) else [value]:
            found |= fields(entry)
    return found


def base_dims(spec: TensorSpec) -> list[int]:
    return [-1 if isinstance(size, str) else size for size in spec.dims]


def test_the_repository_holds_exactly_the_models_of_the_contract() -> None:
    folders = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    assert folders == set(SPECS)


@pytest.mark.parametrize("model", SPECS)
def test_a_config_is_named_like_its_folder_and_has_a_version(model: str) -> None:
    assert BASES[model].name == model
    # Without a version folder Triton does not load even an ensemble.
    assert (REPOSITORY / model / "1" / ".gitkeep").is_file()


@pytest.mark.parametrize("model", SPECS)
def test_a_config_declares_the_tensors_of_the_contract(model: str) -> None:
    spec: ModelSpec = SPECS[model]
    config = BASES[model]
    for declared, wanted in ((config.input, spec.inputs), (config.output, spec.outputs)):
        assert [(t.name, t.data_type, list(t.dims)) for t in declared] == [
            (t.name, DTYPES[t.dtype], base_dims(t)) for t in wanted
        ]


@pytest.mark.parametrize("model", SPECS)
def test_a_config_runs_on_triton_24_10_and_does_not_stall(model: str) -> None:
    for config in (BASES[model], *(make(model, target) for target in TARGETS)):
        assert not fields(config) & (NEWER_FIELDS | STALLING_FIELDS)


@pytest.mark.parametrize("model", MODEL_SPECS)
def test_a_model_is_a_tensorrt_model_that_batches(model: str) -> None:
    config = BASES[model]
    assert config.backend == "tensorrt"
    assert config.max_batch_size == 8
    # An ensemble's step without it answers in the backend's own thread and blocks the next batch.
    assert config.HasField("dynamic_batching")


@pytest.mark.parametrize("model", MODEL_SPECS)
def test_a_model_config_says_nothing_that_a_build_or_a_host_decides(model: str) -> None:
    assert fields(BASES[model]) <= {
        "name", "backend", "max_batch_size", "input", "output", "data_type", "dims",
        "dynamic_batching",
    }  # fmt: skip


@pytest.mark.parametrize("model", ENSEMBLE_SPECS)
def test_an_ensemble_config_holds_wiring_and_the_contract_version(model: str) -> None:
    config = BASES[model]
    assert config.platform == "ensemble"
    assert config.max_batch_size == 8
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "contract_version": str(CONTRACT_VERSION)
    }


@pytest.mark.parametrize("model", ENSEMBLE_SPECS)
def test_every_value_of_an_ensemble_is_made_before_it_is_used_and_keeps_its_type(
    model: str,
) -> None:
    spec = ENSEMBLE_SPECS[model]
    # value -> (dtype, dims); a letter stands for the same size throughout one request.
    values = {tensor.name: (tensor.dtype, tensor.dims) for tensor in spec.inputs}
    steps = BASES[model].ensemble_scheduling.step
    read = {value for step in steps for value in step.input_map.values()}
    read |= {tensor.name for tensor in spec.outputs}
    for step in BASES[model].ensemble_scheduling.step:
        inner = MODEL_SPECS[step.model_name]
        assert step.model_version == -1
        assert set(step.input_map) == {tensor.name for tensor in inner.inputs}
        # Triton loads no ensemble with a value that nothing reads.
        assert set(step.output_map) <= {tensor.name for tensor in inner.outputs}
        assert set(step.output_map.values()) <= read
        for tensor in inner.inputs:
            assert values[step.input_map[tensor.name]] == (tensor.dtype, tensor.dims), tensor.name
        for tensor in inner.outputs:
            if tensor.name not in step.output_map:
                continue
            value = step.output_map[tensor.name]
            assert value not in values, f"{value} is made twice"
            values[value] = (tensor.dtype, tensor.dims)
    for tensor in spec.outputs:
        assert values[tensor.name] == (tensor.dtype, tensor.dims)


@pytest.mark.parametrize("model", ENSEMBLE_SPECS)
def test_an_ensemble_reads_every_one_of_its_inputs_in_its_first_step(model: str) -> None:
    # Triton answers "unexpected deadlock" when outputs are left out and an ensemble input feeds a
    # later step only; with every input in the first step that step is never pruned. The one that
    # cannot is the source of `swap_faces`: its first two steps are `find_faces`, which has none.
    steps = BASES[model].ensemble_scheduling.step
    later = {"source"} if model.startswith("swap_faces") else set()
    first = set(steps[0].input_map.values())
    assert {tensor.name for tensor in ENSEMBLE_SPECS[model].inputs} - first == later
    assert later <= {value for step in steps for value in step.input_map.values()}


VARIABLE = {
    "backend", "default_model_filename", "instance_group", "parameters", "optimization",
    "cc_model_filenames", "max_batch_size",
}  # fmt: skip


def without_the_decided(config: ModelConfig) -> ModelConfig:
    """`config` less everything that a target's config may say; free dims back to -1."""
    rest = ModelConfig()
    rest.CopyFrom(config)
    for name in VARIABLE:
        rest.ClearField(name)
    rest.dynamic_batching.ClearField("preferred_batch_size")
    for tensor in rest.input:
        tensor.ClearField("allow_ragged_batch")
    for tensor in (*rest.input, *rest.output):
        tensor.ClearField("dims")
    return rest


@pytest.mark.parametrize("swapper", SWAPPERS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_targets_config_differs_from_its_base_only_in_what_a_build_decides(
    target: str, swapper: str
) -> None:
    for model, base in BASES.items():
        config = make(model, target, swapper)
        assert without_the_decided(config) == without_the_decided(base), model
        for tensor, wide in zip(
            (*config.input, *config.output), (*base.input, *base.output), strict=True
        ):
            assert len(tensor.dims) == len(wide.dims)
            for size, allowed in zip(tensor.dims, wide.dims, strict=True):
                assert allowed in (size, -1), f"{model}.{tensor.name}"


@pytest.mark.parametrize("target", TARGETS)
def test_a_targets_config_survives_being_written_and_read(target: str, tmp_path: Path) -> None:
    for model in SPECS:
        config = make(model, target)
        path = tmp_path / f"{model}.pbtxt"
        path.write_text(configs.config_text(config), encoding="utf-8")
        assert configs.read_config(path) == config


@pytest.mark.parametrize(
    ("target", "backend", "filename", "kind"),
    [
        ("cpu", "onnxruntime", "model.onnx", ModelInstanceGroup.KIND_CPU),
        ("cuda", "onnxruntime", "model.cuda.onnx", ModelInstanceGroup.KIND_GPU),
        ("tensorrt", "tensorrt", "model.plan", ModelInstanceGroup.KIND_GPU),
        ("rtx", "tensorrt", "model.rtx.plan", ModelInstanceGroup.KIND_GPU),
    ],
)
def test_a_targets_config_names_its_backend_file_and_device(
    target: str, backend: str, filename: str, kind: int
) -> None:
    for model in MODEL_SPECS:
        config = make(model, target)
        assert (config.backend, config.default_model_filename) == (backend, filename)
        assert [(group.kind, group.count) for group in config.instance_group] == [(kind, 1)]


@pytest.mark.parametrize("target", TARGETS)
def test_only_models_of_face_rows_in_our_own_backends_join_requests_of_any_k(
    target: str,
) -> None:
    ragged = {
        (model, tensor.name)
        for model in MODEL_SPECS
        for tensor in make(model, target).input
        if tensor.allow_ragged_batch
    }
    ours = {
        (spec.name, tensor)
        for spec in MODEL_SPECS.values()
        if spec.joined_rows is not None and spec.rows_axis == "K"
        for tensor in spec.joined_rows.inputs
    }
    assert {("face_swapper", "crops"), ("face_swapper", "source")} <= ours
    assert ragged == (ours if target in {"cpu", "rtx"} else set())


@pytest.mark.parametrize("target", TARGETS)
def test_only_a_cpu_runs_frames_one_by_one_and_keeps_its_queue(target: str) -> None:
    alone = set()
    for model in MODEL_SPECS:
        config = make(model, target)
        assert config.HasField("dynamic_batching")
        if list(config.dynamic_batching.preferred_batch_size) == [1]:
            alone.add(model)
    frames = {
        name for name, spec in MODEL_SPECS.items() if "frame" in {t.name for t in spec.inputs}
    }
    assert alone == (frames if target == "cpu" else set())


@pytest.mark.parametrize(("largest", "sizes"), [(16, [4, 8, 16]), (12, [4, 8, 12]), (4, [4]),
                                               (3, []), (1, [])])  # fmt: skip
def test_a_gpu_takes_batches_at_the_sizes_that_rows_are_padded_to(
    largest: int, sizes: list[int]
) -> None:
    for model in MODEL_SPECS:
        limits = configs.Limits(max_batch_size=largest)
        config = make(model, "cuda", "inswapper_128", limits)
        preferred = list(config.dynamic_batching.preferred_batch_size)
        assert preferred == sizes
        told = json_format.MessageToDict(config, preserving_proto_field_name=True)
        settings = ModelSettings.from_config(told, default_filename="model.onnx")
        if settings.rows is None:
            assert set(preferred) <= set(padded_sizes(settings))


def test_a_targets_config_fixes_the_sizes_that_the_swapper_decides() -> None:
    config = configs.make_config(
        BASES["face_aligner_i420"],
        TARGETS["cpu"],
        deployed("inswapper_128", 2),
        limits=configs.Limits(),
    )
    dims = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    assert dims["source"] == [-1, 512]
    assert dims["crops"] == [-1, 3, 256, 256]
    assert dims["landmarks"] == [4, 478, 3]
    assert dims["slot_landmarks"] == [-1, 478, 3]
    assert dims["frame"] == dims["seen_frame"] == [-1, -1]


def test_the_config_of_an_ensemble_says_what_its_source_is() -> None:
    config = make("swap_faces_bgr", "cpu", "simswap_256")
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert said == {
        "contract_version": "2",
        "swapper": "simswap_256",
        "provenance": "compositeWithTrainedAlgorithmicMedia",
        "source_kind": "identity",
        "source_length": "512",
        "detector": "yunet",
        "landmarker": "face_mesh_attention",
        "recognizer": "w600k_r50",
        "pixel_boost": "1",
        "gives_mask": "0",
        "max_faces": "16",
        "max_height": "8192",
        "max_width": "8192",
    }


def test_the_option_ranges_are_those_of_the_contract() -> None:
    # Literals: the sixteen positions as the contract's enumerations list them.
    assert option_ranges() == (
        "face_order=0..7,color_matrix=0..3,color_range=0..1,chroma_location=0..2,"
        "score_threshold=0.0..1.0,nms_threshold=0.0..1.0,refinement=0..1,masks=0..8,keep=0..15,"
        "box_blur=0.0..1.0,box_padding=0..16777215,swapper_weight=0.0..1.0,pose_limit=0.0..180.0,"
        "areas=0..7,reserved=0..0,reserved=0..0"
    )


@pytest.mark.parametrize("target", TARGETS)
def test_the_checks_name_inputs_that_the_model_has(target: str) -> None:
    for model, spec in MODEL_SPECS.items():
        said = {k: v.string_value for k, v in make(model, target).parameters.items()}
        inputs = {tensor.name for tensor in spec.inputs}
        for key in ("face_inputs", "finite_inputs", "row_inputs", "row_mask", "row_shared"):
            assert set(filter(None, said.get(key, "").split(","))) <= inputs, (model, key)
        assert ("frame_format" in said) == ("frame" in inputs)
        assert ("option_ranges" in said) == ("options" in inputs)
        copies = {"detected_frame", "seen_frame"}
        assert ("passthrough" in said) == any(t.name in copies for t in spec.outputs)


def test_plans_of_several_gpus_are_named_by_compute_capability() -> None:
    host = configs.HostOptions(
        plan_filenames={"face_swapper": {"8.9": "model.sm89.plan", "9.0": "model.sm90.plan"}}
    )
    config = make("face_swapper", "tensorrt", "inswapper_128", host=host)
    assert dict(config.cc_model_filenames) == {"8.9": "model.sm89.plan", "9.0": "model.sm90.plan"}


@pytest.mark.parametrize("model", MODEL_SPECS)
def test_networks_that_give_points_run_in_whole_float32_on_a_gpu(model: str) -> None:
    (provider,) = make(
        model, "cuda", "inswapper_128"
    ).optimization.execution_accelerators.gpu_execution_accelerator
    gives_points = model.startswith(("face_locator", "face_detector", "face_landmarker"))
    assert (provider.parameters.get("use_tf32") == "0") == gives_points


def test_the_cuda_config_lists_its_providers_in_order() -> None:
    host = configs.HostOptions(
        cuda=configs.CudaOptions(gpu_mem_limit=4 << 30), tensorrt_cache="/cache/trt"
    )
    config = make("face_swapper", "cuda", "inswapper_128", host=host)
    listed = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [entry.name for entry in listed] == ["tensorrt", "cuda"]
    assert listed[0].parameters["trt_engine_cache_path"] == "/cache/trt"
    assert dict(listed[1].parameters) == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "gpu_mem_limit": str(4 << 30),
        "prefer_nhwc": "1",
        "fuse_conv_bias": "1",
    }


@pytest.mark.parametrize("swapper", SWAPPERS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_network_is_rewritten_channels_last_where_the_provider_is_told_so(
    target: str, swapper: str
) -> None:
    wanted = target == "cuda" and SWAPPERS[swapper].channels_last
    graph = served_graphs(deployed(swapper), TARGETS[target])["face_swapper"]
    passes = CHANNELS_LAST_PASSES if wanted else PORTABLE_PASSES
    if target == "cuda" and SWAPPERS[swapper].points:
        passes = (*passes, "sample_with_onnxruntime")
    assert graph.settings["passes"] == " ".join(passes)
    for model in MODEL_SPECS:
        accelerators = make(model, target, swapper).optimization.execution_accelerators
        told = {key for entry in accelerators.gpu_execution_accelerator for key in entry.parameters}
        last = {"prefer_nhwc", "fuse_conv_bias"}
        assert told & last == (last if wanted and model == "face_swapper" else set()), model


@pytest.mark.parametrize("target", TARGETS)
def test_long_networks_let_short_kernels_pass_on_a_gpu_with_onnx_runtime(target: str) -> None:
    low = {
        model for model in MODEL_SPECS
        if make(model, target, "inswapper_128").parameters["low_priority"].string_value == "1"
    }  # fmt: skip
    assert low == ({"face_swapper"} if target == "cuda" else set())


def test_the_landmark_networks_run_is_recorded_where_that_is_known_to_go() -> None:
    def recorded(target: str, **host: Any) -> set[str]:
        options = configs.HostOptions(**host)
        return {
            model for model in MODEL_SPECS
            if make(model, target, "inswapper_128", host=options).parameters["record_runs"]
            .string_value == "1"
        }  # fmt: skip

    assert recorded("cuda") == {"face_landmarker"}
    assert not recorded("cuda", record_runs=False)
    assert not recorded("cuda", tensorrt_cache="/cache/trt"), "TensorRT's runs were not tried"
    assert not any(map(recorded, set(TARGETS) - {"cuda"}))


@pytest.mark.parametrize("model", list(MODEL_SPECS))
def test_on_cuda_every_model_with_a_network_has_a_session_for_each_batch_size(model: str) -> None:
    config = make(model, "cuda", "inswapper_128")
    wanted = "" if MODEL_SPECS[model].network is None else "1"
    assert (wanted == "1") or not model.startswith(("face_detector", "face_swapper"))
    assert (wanted == "") or not model.startswith(("face_blender", "face_aligner", "face_masker"))
    assert config.parameters["session_per_size"].string_value == wanted


def test_a_config_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("nme: 'face_swapper'")
    with pytest.raises(ValueError, match=r"config\.pbtxt is not a Triton model configuration"):
        configs.read_config(path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"swapper": "nosuch"}, "no swapper is called 'nosuch'; known: image_swapper_256"),
        ({"detector": "nosuch"}, "no detector is called 'nosuch'; known: yunet"),
        ({"recognizer": "nosuch"}, "no recogniser is called 'nosuch'; known: sface"),
        (
            {"swapper": "inswapper_128", "recognizer": "sface"},
            "inswapper_128 needs embeddings of w600k_r50",
        ),
        ({"landmarker": "nosuch"}, "no landmarker is called 'nosuch'; known: face_landmarker_v2"),
        ({"pixel_boost": 2}, "image_swapper_256 takes a pixel boost of 1, but 2"),
    ],
)
def test_a_deployment_that_cannot_work_is_refused(
    arguments: dict[str, object], sentence: str
) -> None:
    wanted = {"swapper": "image_swapper_256", "detector": "yunet", "detectors": ("yunet",)}
    with pytest.raises(DeploymentError, match=sentence):
        deployment.resolve(**{**wanted, **arguments})  # type: ignore[arg-type]


def test_an_identity_swapper_brings_its_recogniser() -> None:
    assert deployed("inswapper_128").recognizer.name == "w600k_r50"
    assert deployed("image_swapper_256").recognizer.name == "sface"
