"""Generated variants of the committed configs: what a build or a host decides.

`model_repository/<model>/config.pbtxt` is written by hand and holds for every swapper. A variant,
`configs/<variant>.pbtxt`, is that file with the backend, the kind of device, the sizes that the
swapper decides, whether frames share a run and the parameters that the Python-based backends read
filled in. Triton picks it with `--model-config-name=<variant>`; a model without that file silently
gets its base instead, which is why every model and every ensemble gets one.

Source: server/docs/user_guide/model_configuration.md (custom model configuration);
onnxruntime_backend/README.md and tensorrt_backend/README.md for the parameters' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelInstanceGroup

from engines.deployment import Deployment
from graphs.contract import (
    CONTRACT_VERSION,
    DETECTED_FRAME,
    ENSEMBLE_SPECS,
    FRAME,
    MAX_DETECTIONS,
    MODEL_SPECS,
    OPTION_COUNT,
    ChromaLocation,
    ColorMatrix,
    ColorRange,
    FaceOrder,
    ModelSpec,
    Option,
)
from server.backends.joining import sizes_up_to

Variant = Literal["cpu", "cuda", "tensorrt", "rtx"]
VARIANTS: Final[tuple[Variant, ...]] = ("cpu", "cuda", "tensorrt", "rtx")

BACKENDS: Final[Mapping[Variant, str]] = MappingProxyType(
    {"cpu": "onnxruntime", "cuda": "onnxruntime", "tensorrt": "tensorrt", "rtx": "tensorrt"}
)
MODEL_FILENAMES: Final[Mapping[Variant, str]] = MappingProxyType(
    {
        "cpu": "model.onnx",
        "cuda": "model.cuda.onnx",
        "tensorrt": "model.plan",
        "rtx": "model.rtx.plan",
    }
)
"""One file name a variant, so that all of them can lie in the same version folder."""

MAX_BATCH_SIZE: Final = 8
"""As in every committed config, and the default shape of TensorRT's profiles."""

CUDA_MAX_BATCH_SIZE: Final = 16
"""ONNX Runtime's: on an H100 the fp16 swapper does 895 faces a second at 8 and 1,102 at 16."""

SMALLEST_PREFERRED_BATCH: Final = 4
"""Of the sizes that ONNX Runtime's rows are padded to on a GPU, the ones that a batch is taken at
without waiting for more: five requests run as long as eight, or as four and one soon after. Of two
the GPU makes too little to be worth not waiting."""

MIN_FRAME_SIDE: Final = 64

_WHOLE_RANGES: Final = {
    Option.FACE_ORDER: len(FaceOrder),
    Option.COLOR_MATRIX: len(ColorMatrix),
    Option.COLOR_RANGE: len(ColorRange),
    Option.CHROMA_LOCATION: len(ChromaLocation),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest shapes that a variant accepts; a plan's profile is made from the same numbers.

    max_height, max_width: frames of a video, pixels.
    max_photo_side: height and width of a photo that a source is taken from, pixels.
    max_faces: K.
    max_batch_size: B.
    """

    max_height: int = 8192
    max_width: int = 8192
    max_photo_side: int = 8192
    max_faces: int = MAX_DETECTIONS
    max_batch_size: int = MAX_BATCH_SIZE

    def frame_size(self, model: str) -> tuple[int, int]:
        """Largest height and width of `frame` for one model."""
        if model in PHOTO_MODELS:
            return self.max_photo_side, self.max_photo_side
        return self.max_height, self.max_width


PHOTO_MODELS: Final = frozenset(
    {"face_locator_bgr", "source_encoder", "face_recognizer", "encode_source_bgr", "embed_face_bgr"}
)
"""Models that see a photo once a job, not a frame of a video."""


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """Options of ONNX Runtime's CUDA provider, with the reason for each default.

    gpu_mem_limit: bytes an instance's arena may grow to; 0 leaves it without a limit, because the
        arena holds weights as well and a limit below them fails at load.
    arena_extend_strategy: kSameAsRequested; the default doubles the arena each time it grows,
        which five models on one GPU do not leave room for.
    cudnn_conv_algo_search: None chooses. EXHAUSTIVE; few shapes are seen, so that the search is
        paid once, by each instance as it is loaded. Channels last HEURISTIC: those convolutions run
        in cuDNN's frontend, where ONNX Runtime 1.31 searches for neither, and this one's choice
        took 12.9 ms instead of 13.2 for the swapper's batch of 16 (H100).
    do_copy_in_default_stream: 1; 0 is faster only where copies overlap and may race
        (onnxruntime issue 4829).
    """

    gpu_mem_limit: int = 0
    arena_extend_strategy: str = "kSameAsRequested"
    cudnn_conv_algo_search: str | None = None
    do_copy_in_default_stream: str = "1"

    def parameters(self, *, channels_last: bool = False) -> dict[str, str]:
        """As the accelerator's parameters in a config.

        CUDA graphs are left alone: a captured graph reads pointer tables of batched matrix
        products from host memory that ONNX Runtime 1.31 gives to others after the run, so a
        second captured size made the first one's replay fail (H100: launch failure).

        Args:
            channels_last: the network was rewritten for it (`networks.passes`).
        """
        search = self.cudnn_conv_algo_search
        values = {
            "arena_extend_strategy": self.arena_extend_strategy,
            "cudnn_conv_algo_search": search or ("HEURISTIC" if channels_last else "EXHAUSTIVE"),
            "do_copy_in_default_stream": self.do_copy_in_default_stream,
        }
        if self.gpu_mem_limit:
            values["gpu_mem_limit"] = str(self.gpu_mem_limit)
        if channels_last:
            values |= {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
        return values


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """What a host decides beside the networks.

    instance_count: instances of every model, unless `instance_counts` names it.
    intra_op_thread_count: threads of one ONNX Runtime instance; None leaves it to the backend,
        which divides the cores that the process may use.
    graph_level: ONNX Runtime's graph optimisation, as its Triton backend numbers it: 0 all,
        1 extended, -1 basic. All is what every measurement here was made with.
    tensorrt_cache: folder where ONNX Runtime's TensorRT provider keeps its engines; None leaves
        that provider out, because it builds an engine for each new shape while requests wait.
    plan_filenames: model -> compute capability ("8.9") -> plan file, for the `tensorrt` variant.
    onnx_until_plan: let an instance without a plan serve ONNX until there is one.
    """

    instance_count: int = 1
    instance_counts: Mapping[str, int] = field(default_factory=dict)
    intra_op_thread_count: int | None = None
    graph_level: int = 0
    cuda: CudaOptions = CudaOptions()
    tensorrt_cache: str | None = None
    plan_filenames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    onnx_until_plan: bool = False


def plan_filenames(repository: Path) -> dict[str, dict[str, str]]:
    """Plans named by GPU (`model.sm89.plan`) that lie in `repository`, for `HostOptions`."""
    found: dict[str, dict[str, str]] = {}
    for model in MODEL_SPECS:
        for path in sorted((repository / model / "1").glob("model.sm*.plan")):
            number = path.name.removeprefix("model.sm").removesuffix(".plan")
            if number.isdecimal() and len(number) >= 2:
                found.setdefault(model, {})[f"{number[:-1]}.{number[-1]}"] = path.name
    return found


def read_config(path: Path) -> ModelConfig:
    """Parse one config.pbtxt.

    Raises:
        ValueError: the text is not a model configuration.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is not a Triton model configuration: {error}") from error


def config_text(config: ModelConfig) -> str:
    """`config` in Protobuf's text form, the same bytes for the same config."""
    return str(text_format.MessageToString(config))


def make_variant(
    base: ModelConfig,
    variant: Variant,
    deployment: Deployment,
    *,
    limits: Limits,
    host: HostOptions | None = None,
) -> ModelConfig:
    """The `variant` of one model's or ensemble's committed config.

    Args:
        base: parsed `config.pbtxt`; not changed.
        limits: what the backend, or the plan's profile, accepts.

    Returns:
        A config that differs from `base` only in what the module's docstring says.
    """
    host = host or HostOptions()
    config = ModelConfig()
    config.CopyFrom(base)
    config.max_batch_size = limits.max_batch_size
    _fix_dims(config, _spec(base.name), deployment.axis_sizes)
    parameters = _shared_parameters(base.name, deployment, limits)
    if base.name not in ENSEMBLE_SPECS:
        _set_backend(config, variant, host, deployment)
        parameters |= _check_parameters(MODEL_SPECS[base.name], limits)
        parameters |= _execution_parameters(base.name, variant, limits, host)
        if base.name == "face_swapper" and variant in RAGGED_VARIANTS:
            _mark_ragged(config.input)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


RAGGED_VARIANTS: Final[frozenset[Variant]] = frozenset({"cpu", "rtx"})
"""Variants that only our Python-based backends serve: requests of any K form one batch, which the
backend joins. NVIDIA's C++ backends would flatten a ragged input, so theirs must not say it."""


UNJOINED_ON_CPU: Final[frozenset[str]] = frozenset(
    name
    for name, spec in MODEL_SPECS.items()
    if any(tensor.name == FRAME for tensor in spec.inputs)
)
"""Models that a CPU runs frame by frame: two frames that share a run leave its caches. At 1080p,
joining four took the detector 42 % more processor time a frame and the blender 16 %. (The swapper's
small crops are joined: its time a face is the same.) They keep their queue: an ensemble's step
without one answers in the backend's own thread and blocks the next request."""


def _spec(name: str) -> ModelSpec:
    return ENSEMBLE_SPECS[name] if name in ENSEMBLE_SPECS else MODEL_SPECS[name]


def _fix_dims(config: ModelConfig, spec: ModelSpec, sizes: Mapping[str, int]) -> None:
    """Write the deployment's sizes where the base says -1, so that Triton checks them itself."""
    declared = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    for tensor in (*config.input, *config.output):
        for axis, size in enumerate(declared[tensor.name].dims):
            if isinstance(size, str) and size in sizes:
                tensor.dims[axis] = sizes[size]


def _set_backend(
    config: ModelConfig, variant: Variant, host: HostOptions, deployment: Deployment
) -> None:
    config.backend = BACKENDS[variant]
    config.default_model_filename = MODEL_FILENAMES[variant]
    kind = ModelInstanceGroup.KIND_CPU if variant == "cpu" else ModelInstanceGroup.KIND_GPU
    count = host.instance_counts.get(config.name, host.instance_count)
    config.instance_group.add(kind=kind, count=count)
    for capability, filename in sorted(host.plan_filenames.get(config.name, {}).items()):
        config.cc_model_filenames[capability] = filename
    if BACKENDS[variant] == "onnxruntime" and host.graph_level:
        config.optimization.graph.level = host.graph_level
    if variant == "cuda":
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        if host.tensorrt_cache is not None:
            tensorrt = accelerators.add(name="tensorrt")
            for cache in ("engine", "timing"):
                tensorrt.parameters[f"trt_{cache}_cache_enable"] = "1"
                tensorrt.parameters[f"trt_{cache}_cache_path"] = host.tensorrt_cache
        cuda = accelerators.add(name="cuda")
        # Both are measured for this architecture alone; fused biases fail on some convolutions.
        known = config.name == "face_swapper" and deployment.swapper.project_identity
        options = host.cuda.parameters(channels_last=known)
        for key, value in options.items():
            cuda.parameters[key] = value
    preferred = config.dynamic_batching.preferred_batch_size
    if variant == "cpu" and config.name in UNJOINED_ON_CPU:
        preferred.append(1)
    if variant == "cuda":
        sizes = sizes_up_to(config.max_batch_size)
        preferred.extend(size for size in sizes if size >= SMALLEST_PREFERRED_BATCH)
    if variant == "rtx":
        config.optimization.cuda.graphs = True


def _mark_ragged(inputs: list[ModelInput]) -> None:
    for tensor in inputs:
        if -1 in tensor.dims:
            tensor.allow_ragged_batch = True


def _shared_parameters(name: str, deployment: Deployment, limits: Limits) -> dict[str, str]:
    swapper = deployment.swapper
    height, width = limits.frame_size(name)
    parameters = {
        "contract_version": str(CONTRACT_VERSION),
        "swapper": swapper.name,
        "provenance": swapper.provenance,
        "source_kind": swapper.source_kind,
        "source_length": str(swapper.source_length),
        "detector": deployment.detector,
        "recognizer": deployment.recognizer.name,
        "pixel_boost": str(deployment.pixel_boost),
        "max_faces": str(limits.max_faces),
    }
    if any(tensor.name == FRAME for tensor in _spec(name).inputs):
        parameters |= {"max_height": str(height), "max_width": str(width)}
    return parameters


def _check_parameters(spec: ModelSpec, limits: Limits) -> dict[str, str]:
    """What the Python-based backends check of every request."""
    names = [tensor.name for tensor in spec.inputs]
    parameters: dict[str, str] = {}
    if FRAME in names:
        parameters |= {
            "frame_format": "i420" if spec.name.endswith("_i420") else "bgr",
            "min_height": str(MIN_FRAME_SIDE),
            "min_width": str(MIN_FRAME_SIDE),
        }
    slots = [tensor.name for tensor in spec.inputs if tensor.dims[0] == "K"]
    if slots:
        parameters["face_inputs"] = ",".join(slots)
    # A NaN in a crop is the blender's business: it must not leave the mask.
    finite = [name for name in ("source", "options") if name in names]
    if finite:
        parameters["finite_inputs"] = ",".join(finite)
    if "options" in names:
        parameters["option_ranges"] = option_ranges()
    return parameters


def option_ranges() -> str:
    """Every position of `options`: name=lowest..highest, whole numbers unless there is a point."""
    names = {option.value: option for option in Option}
    entries = []
    for position in range(OPTION_COUNT):
        option = names.get(position)
        if option is None:
            entries.append("reserved=0..0")
        elif option in _WHOLE_RANGES:
            entries.append(f"{option.name.lower()}=0..{_WHOLE_RANGES[option] - 1}")
        else:
            entries.append(f"{option.name.lower()}=0.0..1.0")
    return ",".join(entries)


def _execution_parameters(
    name: str, variant: Variant, limits: Limits, host: HostOptions
) -> dict[str, str]:
    parameters: dict[str, str] = {}
    if any(tensor.name == DETECTED_FRAME for tensor in MODEL_SPECS[name].outputs):
        parameters["passthrough"] = f"{DETECTED_FRAME}={FRAME}"
    # A TensorRT plan of NVIDIA's backend has no shape for joined rows; the other three have.
    if name == "face_swapper" and variant != "tensorrt":
        parameters |= {
            "row_inputs": "crops,source",
            "row_mask": "faces",
            "row_outputs": "swapped_crops",
            "max_rows": str(limits.max_batch_size * limits.max_faces),
        }
    if BACKENDS[variant] == "onnxruntime" and host.intra_op_thread_count is not None:
        parameters["intra_op_thread_count"] = str(host.intra_op_thread_count)
    if variant != "cpu":
        parameters["FORCE_CPU_ONLY_INPUT_TENSORS"] = "no"
    if variant == "cuda" and not name.startswith("face_blender"):
        # Convolutions; our backend's docs say why. NVIDIA's C++ backend ignores it.
        parameters["session_per_size"] = "1"
    if BACKENDS[variant] == "tensorrt":
        parameters["engine_flavour"] = "tensorrt_rtx" if variant == "rtx" else "tensorrt"
        if host.onnx_until_plan:
            parameters["onnx_until_plan"] = "1"
    return parameters
