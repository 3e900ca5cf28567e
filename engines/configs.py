"""The configs of one target: what a build or a host decides.

`model_repository/<model>/config.pbtxt` is written from the contract (`engines.write_configs`) and
holds for every swapper. A target's config, `configs/<target>.pbtxt`, is that file with the backend,
the kind of device, the sizes that the swapper decides, whether frames share a run and the
parameters that the Python-based backends read filled in. Triton picks it with
`--model-config-name=<target>`; a model without that file silently gets its base instead, which is
why every model and every ensemble gets one.

Source: server/docs/user_guide/model_configuration.md (custom model configuration);
onnxruntime_backend/README.md and tensorrt_backend/README.md for the parameters' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelInstanceGroup

from engines.deployment import Deployment
from engines.targets import DEFAULT_TARGET, Target
from graphs.contract import (
    CONTRACT_VERSION,
    EVERY_MODEL,
    MAX_DETECTIONS,
    MAX_VIEWS,
    MIN_FRAME_SIDE,
    OPTIONS,
    PARAMETER_CONTRACT_VERSION,
    PARAMETER_DETECTOR,
    PARAMETER_ENGINE_FLAVOUR,
    PARAMETER_ENHANCER,
    PARAMETER_ENHANCER_WEIGHT,
    PARAMETER_FACE_INPUTS,
    PARAMETER_FINITE_INPUTS,
    PARAMETER_FRAME_FORMAT,
    PARAMETER_GIVES_MASK,
    PARAMETER_LANDMARKER,
    PARAMETER_LOW_PRIORITY,
    PARAMETER_MAX_FACES,
    PARAMETER_MAX_HEIGHT,
    PARAMETER_MAX_ROWS,
    PARAMETER_MAX_WIDTH,
    PARAMETER_MIN_HEIGHT,
    PARAMETER_MIN_WIDTH,
    PARAMETER_OCCLUDER,
    PARAMETER_ONNX_UNTIL_PLAN,
    PARAMETER_OPTION_RANGES,
    PARAMETER_PARSER,
    PARAMETER_PASSTHROUGH,
    PARAMETER_PIXEL_BOOST,
    PARAMETER_PROVENANCE,
    PARAMETER_RECOGNIZER,
    PARAMETER_RECORD_RUNS,
    PARAMETER_ROW_INPUTS,
    PARAMETER_ROW_MASK,
    PARAMETER_ROW_OUTPUTS,
    PARAMETER_ROW_SHARED,
    PARAMETER_ROW_UPDATED,
    PARAMETER_SESSION_PER_SIZE,
    PARAMETER_SOURCE_KIND,
    PARAMETER_SOURCE_LENGTH,
    PARAMETER_SWAPPER,
    SOURCE,
    Extras,
    ModelSpec,
    ServedSpec,
    option_ranges,
    served_spec,
    sizes_up_to,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest shapes that a config accepts; a plan's profile is made from the same numbers.

    max_height, max_width: frames of a video, pixels.
    max_photo_side: height and width of a photo that a source is taken from, pixels.
    max_faces: K.
    max_batch_size: B.
    """

    max_height: int = 8192
    max_width: int = 8192
    max_photo_side: int = 8192
    max_faces: int = MAX_DETECTIONS
    max_batch_size: int = DEFAULT_TARGET.max_batch_size

    def frame_size(self, spec: ServedSpec) -> tuple[int, int]:
        """Largest height and width of `frame` for one model."""
        if spec.sees == "photo":
            return self.max_photo_side, self.max_photo_side
        return self.max_height, self.max_width


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """Options of ONNX Runtime's CUDA provider, with the reason for each default.

    gpu_mem_limit: bytes an instance's arena may grow to; 0 leaves it without a limit, because the
        arena holds weights as well and a limit below them fails at load.
    arena_extend_strategy: kSameAsRequested; the default doubles the arena each time it grows,
        which five models on one GPU do not leave room for.
    cudnn_conv_algo_search: HEURISTIC. A search (EXHAUSTIVE) finds nothing better, and costs each
        instance seconds a batch size: on an H200 the kernels of the detector's batch of 16 took
        3.96 ms without and 3.91 with it, the landmarker's 1.84 and 1.83. Channels-last
        convolutions run in cuDNN's frontend, where ONNX Runtime 1.31 searches for neither, and this
        one's choice took 12.9 ms instead of 13.2 for the swapper's batch of 16 (H100).
    do_copy_in_default_stream: 1; 0 is faster only where copies overlap and may race
        (onnxruntime issue 4829).
    """

    gpu_mem_limit: int = 0
    arena_extend_strategy: str = "kSameAsRequested"
    cudnn_conv_algo_search: str = "HEURISTIC"
    do_copy_in_default_stream: str = "1"

    def parameters(self, *, channels_last: bool = False, exact: bool = False) -> dict[str, str]:
        """As the accelerator's parameters in a config.

        CUDA graphs are left alone: a captured graph reads pointer tables of batched matrix
        products from host memory that ONNX Runtime 1.31 gives to others after the run, so a
        second captured size made the first one's replay fail (H100: launch failure).

        Args:
            channels_last: the network was rewritten for it (`networks.passes`), which was
                measured with those passes alone; fused biases fail on some convolutions.
            exact: products of all of float32's bits instead of ten (TF32).
        """
        values = {
            "arena_extend_strategy": self.arena_extend_strategy,
            "cudnn_conv_algo_search": self.cudnn_conv_algo_search,
            "do_copy_in_default_stream": self.do_copy_in_default_stream,
        }
        if self.gpu_mem_limit:
            values["gpu_mem_limit"] = str(self.gpu_mem_limit)
        if exact:
            values["use_tf32"] = "0"
        if channels_last:
            values |= {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
        return values


_EXACT_ON_GPU: Final = frozenset(
    {"face_locator_bgr", "face_detector_bgr", "face_detector_i420", "face_landmarker"}
)
"""Models whose networks give points. With the detector in TF32 its points move the landmark
network's view, and landmarks were off by up to 0.26 pixels of a 1080p frame (H200), the five of
them by 0.11; 0.002 with both exact. The limit is 0.1."""


_LONG_KERNELS: Final = frozenset({"face_swapper", "face_enhancer"})
"""Models that run on a stream of lower priority: with five instances under MPS the short kernels
before and behind a swapper's get ahead of other instances': 3 to 4 % more frames a second (H200)
where nothing but the GPU limits."""


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
    plan_filenames: model -> compute capability ("8.9") -> plan file, for plans that are
        named by GPU.
    onnx_until_plan: let an instance without a plan serve ONNX until there is one.
    record_runs: let ONNX Runtime's run of the landmark network be recorded as a CUDA graph.
    """

    instance_count: int = 1
    instance_counts: Mapping[str, int] = field(default_factory=dict)
    intra_op_thread_count: int | None = None
    graph_level: int = 0
    cuda: CudaOptions = CudaOptions()
    tensorrt_cache: str | None = None
    plan_filenames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    onnx_until_plan: bool = False
    record_runs: bool = True


def plan_filenames(repository: Path) -> dict[str, dict[str, str]]:
    """Plans named by GPU (`model.sm89.plan`) that lie in `repository`, for `HostOptions`."""
    found: dict[str, dict[str, str]] = {}
    for model in EVERY_MODEL:
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


def make_config(
    base: ModelConfig,
    target: Target,
    deployment: Deployment,
    *,
    limits: Limits,
    host: HostOptions | None = None,
) -> ModelConfig:
    """One model's or ensemble's config for `target`.

    Args:
        base: parsed `config.pbtxt`; not changed.
        limits: what the backend, or the plan's profile, accepts.

    Returns:
        A config that differs from `base` only in what the module's docstring says.
    """
    host = host or HostOptions()
    spec = served_spec(base.name, deployment.extras)
    config = ModelConfig()
    config.CopyFrom(base)
    config.max_batch_size = limits.max_batch_size
    _fix_dims(config, spec, deployment.axis_sizes)
    parameters = _shared_parameters(spec, deployment, limits)
    if isinstance(spec, ModelSpec):
        _set_backend(config, target, host)
        _set_optimization(config, spec, target, host, deployment)
        _set_preferred_batches(config, spec, target)
        parameters |= _check_parameters(spec, deployment.extras)
        parameters |= _execution_parameters(spec, target, limits, host)
        if target.uses_cuda_provider:
            parameters |= _cuda_parameters(spec, host, deployment)
        if spec.joined_rows is not None and target.ragged:
            _mark_ragged(config.input)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _fix_dims(config: ModelConfig, spec: ServedSpec, sizes: Mapping[str, int]) -> None:
    """Write the deployment's sizes where the base says -1, so that Triton checks them itself."""
    declared = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    for tensor in (*config.input, *config.output):
        for axis, size in enumerate(declared[tensor.name].dims):
            if isinstance(size, str) and size in sizes:
                tensor.dims[axis] = sizes[size]


def _set_backend(config: ModelConfig, target: Target, host: HostOptions) -> None:
    config.backend = target.backend
    config.default_model_filename = target.filename
    kind = ModelInstanceGroup.KIND_GPU if target.on_gpu else ModelInstanceGroup.KIND_CPU
    count = host.instance_counts.get(config.name, host.instance_count)
    config.instance_group.add(kind=kind, count=count)
    for capability, filename in sorted(host.plan_filenames.get(config.name, {}).items()):
        config.cc_model_filenames[capability] = filename


def _set_optimization(
    config: ModelConfig, spec: ModelSpec, target: Target, host: HostOptions, deployment: Deployment
) -> None:
    if target.backend == "onnxruntime" and host.graph_level:
        config.optimization.graph.level = host.graph_level
    if target.uses_cuda_provider:
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        if host.tensorrt_cache is not None:
            tensorrt = accelerators.add(name="tensorrt")
            for cache in ("engine", "timing"):
                tensorrt.parameters[f"trt_{cache}_cache_enable"] = "1"
                tensorrt.parameters[f"trt_{cache}_cache_path"] = host.tensorrt_cache
        cuda = accelerators.add(name="cuda")
        rewritten = spec.network == "swapper" and deployment.is_channels_last(target)
        exact = spec.name in _EXACT_ON_GPU
        options = host.cuda.parameters(channels_last=rewritten, exact=exact)
        for key, value in options.items():
            cuda.parameters[key] = value
    if target.cuda_graphs:
        config.optimization.cuda.graphs = True


def _set_preferred_batches(config: ModelConfig, spec: ModelSpec, target: Target) -> None:
    preferred = config.dynamic_batching.preferred_batch_size
    if spec.frame_format is not None and not target.joins_frames:
        # Not without a queue: an ensemble's step without one answers in the backend's own thread
        # and blocks the next request.
        preferred.append(1)
    elif target.smallest_preferred_batch is not None:
        sizes = sizes_up_to(config.max_batch_size)
        preferred.extend(size for size in sizes if size >= target.smallest_preferred_batch)


def _mark_ragged(inputs: list[ModelInput]) -> None:
    for tensor in inputs:
        if -1 in tensor.dims:
            tensor.allow_ragged_batch = True


def _shared_parameters(
    spec: ServedSpec, deployment: Deployment, limits: Limits
) -> dict[str, str]:
    swapper = deployment.swapper
    parameters = {
        PARAMETER_CONTRACT_VERSION: str(CONTRACT_VERSION),
        PARAMETER_SWAPPER: swapper.name,
        PARAMETER_PROVENANCE: deployment.provenance,
        PARAMETER_SOURCE_KIND: swapper.source_kind,
        PARAMETER_SOURCE_LENGTH: str(swapper.source_length),
        PARAMETER_DETECTOR: deployment.detector,
        PARAMETER_LANDMARKER: deployment.landmarker_name,
        PARAMETER_RECOGNIZER: deployment.recognizer.name,
        PARAMETER_PIXEL_BOOST: str(deployment.pixel_boost),
        PARAMETER_GIVES_MASK: str(int(swapper.gives_mask)),
        PARAMETER_MAX_FACES: str(limits.max_faces),
    }
    for key, row in (
        (PARAMETER_OCCLUDER, deployment.occluder), (PARAMETER_PARSER, deployment.parser),
        (PARAMETER_ENHANCER, deployment.enhancer),
    ):  # fmt: skip
        if row is not None:
            parameters[key] = row.name
    if deployment.enhancer is not None and deployment.enhancer.takes_weight:
        parameters[PARAMETER_ENHANCER_WEIGHT] = "1"
    if spec.frame_format is not None:
        height, width = limits.frame_size(spec)
        parameters |= {PARAMETER_MAX_HEIGHT: str(height), PARAMETER_MAX_WIDTH: str(width)}
    return parameters


def _check_parameters(spec: ModelSpec, extras: Extras) -> dict[str, str]:
    """What the Python-based backends check of every request."""
    names = [tensor.name for tensor in spec.inputs]
    parameters: dict[str, str] = {}
    if spec.frame_format is not None:
        parameters |= {
            PARAMETER_FRAME_FORMAT: spec.frame_format,
            PARAMETER_MIN_HEIGHT: str(MIN_FRAME_SIDE),
            PARAMETER_MIN_WIDTH: str(MIN_FRAME_SIDE),
        }
    slots = [tensor.name for tensor in spec.inputs if tensor.dims[0] == "K"]
    if slots:
        parameters[PARAMETER_FACE_INPUTS] = ",".join(slots)
    # A NaN in a crop is the blender's business: it must not leave the mask.
    finite = [name for name in (SOURCE.name, OPTIONS.name) if name in names]
    if finite:
        parameters[PARAMETER_FINITE_INPUTS] = ",".join(finite)
    if OPTIONS.name in names:
        parameters[PARAMETER_OPTION_RANGES] = option_ranges(extras)
    return parameters


def _cuda_parameters(
    spec: ModelSpec, host: HostOptions, deployment: Deployment
) -> dict[str, str]:
    """How our backend launches a network's kernels with ONNX Runtime's CUDA provider."""
    if spec.name in _LONG_KERNELS:
        return {PARAMETER_LOW_PRIORITY: "1"}
    row = deployment.landmarker
    is_known = spec.network == "landmarker" and row is not None and row.recordable
    if is_known and host.record_runs and host.tensorrt_cache is None:
        return {PARAMETER_RECORD_RUNS: "1"}
    return {}


def _execution_parameters(
    spec: ModelSpec, target: Target, limits: Limits, host: HostOptions
) -> dict[str, str]:
    parameters: dict[str, str] = {}
    if spec.passthrough:
        pairs = (f"{output}={given}" for output, given in spec.passthrough.items())
        parameters[PARAMETER_PASSTHROUGH] = ",".join(pairs)
    if spec.joined_rows is not None and target.joins_rows:
        rows = spec.joined_rows
        most = MAX_VIEWS if spec.rows_axis == "F" else limits.max_faces
        parameters |= {
            PARAMETER_ROW_INPUTS: ",".join(rows.inputs),
            PARAMETER_ROW_MASK: rows.mask,
            PARAMETER_ROW_OUTPUTS: ",".join(rows.outputs),
            PARAMETER_MAX_ROWS: str(limits.max_batch_size * most),
        }
        for key, names in (
            (PARAMETER_ROW_SHARED, rows.shared), (PARAMETER_ROW_UPDATED, rows.updated),
        ):  # fmt: skip
            if names:
                parameters[key] = ",".join(names)
    if target.backend == "onnxruntime" and host.intra_op_thread_count is not None:
        parameters["intra_op_thread_count"] = str(host.intra_op_thread_count)
    if target.on_gpu:
        parameters["FORCE_CPU_ONLY_INPUT_TENSORS"] = "no"
    if target.session_per_size and spec.network is not None:
        # Convolutions; our backend's docs say why. NVIDIA's C++ backend ignores it.
        parameters[PARAMETER_SESSION_PER_SIZE] = "1"
    if target.flavour is not None:
        parameters[PARAMETER_ENGINE_FLAVOUR] = target.flavour
        if host.onnx_until_plan:
            parameters[PARAMETER_ONNX_UNTIL_PLAN] = "1"
    return parameters
