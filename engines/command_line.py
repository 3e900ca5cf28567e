"""The flags of build_engines.py, and what they ask for as one checked request."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from frameswap.arguments import HelpFormatter, WholeNumber, frame_size, mebibytes

from engines.build import BuildRequest
from engines.compilers import CompileOptions, Compiler, choose_compiler
from engines.configs import CudaOptions, HostOptions, Limits
from engines.deployment import NO_NETWORK, resolve
from engines.devices import parse_compute_capability, present_compute_capability
from engines.errors import (
    DeploymentError,
    EngineError,
    FramesError,
    PrecisionError,
    UnsupportedDevice,
)
from engines.plans import CompileSettings, PlanAxes
from engines.precision import PRECISIONS, Precision
from engines.profiles import AxisRange
from engines.repository import COMMITTED, RepositoryWriter
from engines.targets import DEFAULT_TARGET, TARGETS, Target, target_of
from fetching.cache_folder import cache_dir
from graphs.contract import model_specs
from networks.detectors import DETECTORS
from networks.enhancers import ENHANCERS
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS
from networks.maskers import OCCLUDERS, PARSERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS

_FP8_FROM: Final = 8.9
_ARENAS: Final = ("kSameAsRequested", "kNextPowerOfTwo")
_CUDNN_SEARCHES: Final = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
_GRAPH_LEVELS: Final = {"all": 0, "extended": 1, "basic": -1}


def make_parser(description: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="build_engines.py",
        description=description,
        formatter_class=HelpFormatter,
    )
    _add_networks(parser.add_argument_group("what to build"))
    _add_precision(parser.add_argument_group("precision"))
    _add_device(parser.add_argument_group("device and shapes"))
    _add_compiler(parser.add_argument_group("compiler and cache"))
    _add_onnxruntime(parser.add_argument_group("ONNX Runtime (cpu, cuda)"))
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--repository", type=Path, default=COMMITTED, metavar="PATH",
        help="model repository (default: the one in this checkout)",
    )  # fmt: skip
    where.add_argument(
        "--instances", type=WholeNumber(1), default=1, metavar="N",
        help="instances of every model",
    )  # fmt: skip
    look = parser.add_argument_group("look only").add_mutually_exclusive_group()
    look.add_argument("--dry-run", action="store_true", help="say what would be built and where")
    look.add_argument("--explain", action="store_true", help="say why each file would be built")
    look.add_argument(
        "--inspect", action="store_true", help="show layers, precisions, sizes and memory"
    )
    return parser


def _add_networks(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--swapper", metavar="NAME",
        help=f"one of {', '.join(SWAPPERS)} (default: {TARGETS['cpu'].swapper} for the CPU, "
        f"{TARGETS['cuda'].swapper} for GPUs)",
    )  # fmt: skip
    group.add_argument(
        "--detector", default="yunet", metavar="NAME",
        help=f"one of {', '.join(DETECTORS)}",
    )  # fmt: skip
    group.add_argument(
        "--landmarker", default=DEFAULT_LANDMARKER, metavar="NAME",
        help=f"one of {', '.join((*LANDMARKERS, NO_NETWORK))}",
    )  # fmt: skip
    group.add_argument(
        "--recognizer", metavar="NAME",
        help=f"one of {', '.join(RECOGNIZERS)} (default: the one that the swapper needs)",
    )  # fmt: skip
    group.add_argument(
        "--pixel-boost", type=WholeNumber(1), default=1, metavar="B",
        help="swap crops of B times the network's size",
    )  # fmt: skip
    for kind, rows, what in (
        ("occluder", OCCLUDERS, "what is not face in a target's crop stays"),
        ("parser", PARSERS, "parts of the swapped face by name"),
        ("enhancer", ENHANCERS, "makes the swapped face finer before it is laid back"),
    ):
        group.add_argument(
            f"--{kind}", default=NO_NETWORK, metavar="NAME",
            help=f"{what}: one of {', '.join((*rows, NO_NETWORK))}",
        )  # fmt: skip
    group.add_argument(
        "--models", nargs="+", metavar="MODEL", help="build these only (default: all)"
    )
    group.add_argument(
        "--accept-licence", action="store_true",
        help="the licences of these networks, which `frameswap models` lists, fit your use: fetch "
        "what is missing",
    )  # fmt: skip


def _add_precision(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--precision", choices=PRECISIONS, metavar="NAME",
        help=f"of the networks, one of {', '.join(PRECISIONS)} "
        "(default: fp32 for the CPU, fp16 for GPUs)",
    )  # fmt: skip
    group.add_argument(
        "--frames", nargs="+", type=Path, default=[], metavar="PATH",
        help="pictures, or folders of them, to calibrate and check with (default: two paintings)",
    )  # fmt: skip
    group.add_argument(
        "--allow-worse", action="store_true",
        help="keep a graph that strays further from fp32 than its limits allow",
    )  # fmt: skip


def _add_device(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--target", choices=tuple(TARGETS), metavar="TARGET",
        help="cpu or cuda: ONNX Runtime; tensorrt or rtx: plans (default: what this machine has)",
    )  # fmt: skip
    group.add_argument(
        "--compute-capability", nargs="+", default=[], metavar="M.N",
        help="of the GPUs that will run the plans, for example 8.9 (default: the GPU that is here)",
    )  # fmt: skip
    for name, unit, default in (
        ("batch", "frames per batch", "1 8 8"),
        ("faces", "faces per frame", "1 1 4"),
    ):
        group.add_argument(
            f"--{name}", nargs="+", type=WholeNumber(1), metavar="N",
            help=f"{unit}: MIN OPT MAX, or MAX alone (default: {default})",
        )  # fmt: skip
    group.add_argument(
        "--frame", nargs="+", type=frame_size, metavar="WIDTHxHEIGHT",
        help="frame sizes: MIN OPT MAX, or MAX alone (default: 64x64 1920x1080 1920x1080)",
    )  # fmt: skip
    group.add_argument(
        "--photo", type=WholeNumber(1), metavar="PIXELS",
        help="longest side of a photo that a source is taken from (default: 2048 for plans)",
    )  # fmt: skip


def _add_compiler(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--gpu-memory", type=mebibytes, metavar="MIB",
        help="refuse plans that need more together; for cuda, the limit of one model's arena "
        "(default: no limit)",
    )  # fmt: skip
    group.add_argument(
        "--workspace", type=mebibytes, metavar="MIB",
        help="scratch memory of one layer at most (default: TensorRT's)",
    )  # fmt: skip
    group.add_argument(
        "--optimization-level", type=WholeNumber(0, 5), metavar="LEVEL",
        help="how long TensorRT searches, 0 to 5 (default: TensorRT's)",
    )  # fmt: skip
    group.add_argument(
        "--cache", type=Path, metavar="PATH",
        help="folder of plans, shared between builders (default: plans/ in the user's cache)",
    )  # fmt: skip
    group.add_argument(
        "--name-by-gpu", action="store_true",
        help="name TensorRT plans by compute capability, for several types of GPU",
    )  # fmt: skip
    group.add_argument(
        "--onnx-until-plan", action="store_true",
        help="serve the ONNX model of --target cuda until the TensorRT plan exists "
        "(embedded server only)",
    )  # fmt: skip


def _add_onnxruntime(group: argparse._ArgumentGroup) -> None:
    cuda = CudaOptions()
    group.add_argument(
        "--threads", type=WholeNumber(1), metavar="N",
        help="intra-op threads of one instance (default: the backend divides the cores)",
    )  # fmt: skip
    group.add_argument(
        "--graph-level", choices=tuple(_GRAPH_LEVELS), default="all", metavar="NAME",
        help=f"graph optimisations, one of {', '.join(_GRAPH_LEVELS)}",
    )  # fmt: skip
    group.add_argument(
        "--arena", choices=_ARENAS, default=cuda.arena_extend_strategy, metavar="NAME",
        help=f"how a model's GPU memory arena grows, {' or '.join(_ARENAS)}",
    )  # fmt: skip
    group.add_argument(
        "--cudnn-search", choices=_CUDNN_SEARCHES, default=cuda.cudnn_conv_algo_search,
        metavar="NAME",
        help=f"how convolution algorithms are chosen, one of {', '.join(_CUDNN_SEARCHES)}",
    )  # fmt: skip
    group.add_argument(
        "--no-recorded-runs", action="store_true",
        help="launch every kernel of the landmark network by itself; by default its run on a GPU "
        "is recorded as one CUDA graph when it is loaded",
    )  # fmt: skip
    group.add_argument(
        "--tensorrt-provider", action="store_true",
        help="let ONNX Runtime's TensorRT provider run what it can, with its engines in --cache; "
        "ONNX Runtime's published GPU wheel links TensorRT 10 (libnvinfer.so.10)",
    )  # fmt: skip


def make_request(options: argparse.Namespace) -> BuildRequest:
    """The flags as one checked request.

    Raises:
        EngineError: names, devices, shapes or files that cannot be; one sentence.
    """
    capabilities = tuple(parse_compute_capability(text) for text in options.compute_capability)
    target = TARGETS[options.target] if options.target else default_target(capabilities)
    deployment = resolve(
        swapper=options.swapper or target.swapper,
        detector=options.detector,
        recognizer=options.recognizer,
        landmarker=options.landmarker,
        pixel_boost=options.pixel_boost,
        occluder=options.occluder,
        parser=options.parser,
        enhancer=options.enhancer,
        detectors=tuple(DETECTORS),
    )
    known = model_specs(deployment.extras)
    models = tuple(options.models or known)
    for model in models:
        if model not in known:
            raise DeploymentError(f"no model is called {model!r}; known: {', '.join(known)}")
    for path in options.frames:
        if not path.exists():
            raise FramesError(f"{path} does not exist: --frames takes pictures and folders of them")
    precision: Precision = options.precision or target.precision
    check_precision(precision, target, capabilities)
    axes = make_axes(options)
    settings = None
    if target.flavour is not None:
        settings = _compile_settings(options, target, capabilities, axes)
    return BuildRequest(
        deployment=deployment,
        target=target,
        precision=precision,
        models=models,
        repository=RepositoryWriter(options.repository),
        limits=axes.limits if settings is not None else _fixed_limits(target, options, axes),
        host=_host_options(options),
        frames=tuple(options.frames),
        accept_licence=options.accept_licence,
        allow_worse=options.allow_worse,
        compile=settings,
    )


def _fixed_limits(target: Target, options: argparse.Namespace, axes: PlanAxes) -> Limits:
    """Of a target without a plan's profile: any shape runs, up to what was given or these."""
    limits = Limits(max_batch_size=target.max_batch_size)
    if options.batch is not None:
        limits = replace(limits, max_batch_size=axes.batch.max)
    if options.faces is not None:
        limits = replace(limits, max_faces=axes.faces.max)
    if options.frame is not None:
        limits = replace(limits, max_height=axes.height.max, max_width=axes.width.max)
    if options.photo is not None:
        limits = replace(limits, max_photo_side=axes.photo.max)
    return limits


def _host_options(options: argparse.Namespace) -> HostOptions:
    cache = (options.cache or cache_dir() / "plans") / "onnxruntime"
    return HostOptions(
        instance_count=options.instances,
        intra_op_thread_count=options.threads,
        graph_level=_GRAPH_LEVELS[options.graph_level],
        cuda=CudaOptions(
            gpu_mem_limit=options.gpu_memory or 0,
            arena_extend_strategy=options.arena,
            cudnn_conv_algo_search=options.cudnn_search,
        ),
        tensorrt_cache=str(cache) if options.tensorrt_provider else None,
        onnx_until_plan=options.onnx_until_plan,
        record_runs=not options.no_recorded_runs,
    )


def default_target(capabilities: tuple[str, ...]) -> Target:
    """What this machine, or the GPU that was named, is best served by.

    Raises:
        CompilerMissing: a GPU is here or named and no TensorRT can be imported.
    """
    if not capabilities and present_compute_capability() is None:
        return DEFAULT_TARGET
    return target_of(choose_compiler().flavour)


def check_precision(precision: Precision, target: Target, capabilities: tuple[str, ...]) -> None:
    """Refuse 8 bits where nothing would run them.

    Raises:
        PrecisionError: 8 bits for ONNX Runtime, or fp8 for a GPU older than Ada.
    """
    if precision in ("int8", "fp8") and target.flavour is None:
        raise PrecisionError(
            f"{precision} is for TensorRT plans: use --target rtx or tensorrt, or --precision fp16"
        )
    older = [text for text in capabilities if float(text) < _FP8_FROM]
    if precision == "fp8" and older:
        raise PrecisionError(
            f"fp8 needs compute capability {_FP8_FROM} or newer, {older[0]} was asked for: "
            "use --precision int8 or fp16"
        )


def make_axes(options: argparse.Namespace) -> PlanAxes:
    """The profile's axes; what was not given keeps its default."""
    axes = PlanAxes()
    sizes = options.frame
    widths = None if sizes is None else [width for width, _ in sizes]
    heights = None if sizes is None else [height for _, height in sizes]
    photo = axes.photo
    if options.photo is not None:
        photo = AxisRange(photo.min, min(photo.opt, options.photo), options.photo)
    return PlanAxes(
        batch=_axis(axes.batch, options.batch, "--batch"),
        faces=_axis(axes.faces, options.faces, "--faces"),
        height=_axis(axes.height, heights, "--frame"),
        width=_axis(axes.width, widths, "--frame"),
        photo=photo,
    )


def _axis(default: AxisRange, given: list[int] | None, flag: str) -> AxisRange:
    if given is None:
        return default
    if len(given) == 1:
        return AxisRange(min(default.min, given[0]), min(default.opt, given[0]), given[0])
    if len(given) != 3:
        raise EngineError(f"{flag} takes MIN OPT MAX or MAX alone, not {len(given)} values")
    return AxisRange(*given)


def _compile_settings(
    options: argparse.Namespace,
    target: Target,
    capabilities: tuple[str, ...],
    axes: PlanAxes,
) -> CompileSettings:
    compiler: Compiler = choose_compiler(target.flavour)
    if not capabilities:
        present = present_compute_capability()
        if present is None:
            raise UnsupportedDevice(
                "no NVIDIA GPU is visible here: say which GPU the plans are for, for example "
                "--compute-capability 8.9"
            )
        capabilities = (present,)
    compiler.check_devices(capabilities)
    cache = options.cache or cache_dir() / "plans"
    return CompileSettings(
        compiler=compiler,
        compute_capabilities=capabilities,
        axes=axes,
        options=CompileOptions(
            workspace_bytes=options.workspace,
            optimization_level=options.optimization_level,
            timing_cache=cache / f"timing-{compiler.version}-{capabilities[0]}.bin",
        ),
        cache=cache,
        gpu_memory=options.gpu_memory,
        name_by_gpu=options.name_by_gpu,
    )
