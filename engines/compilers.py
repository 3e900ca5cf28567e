"""ONNX bytes in, plan bytes out: NVIDIA TensorRT 10.x, 11.x and TensorRT-RTX, one interface.

The two packages are one API family; every difference between them, and between their versions,
is in this file. Precision is a property of the graph: networks are strongly typed in both.

`tensorrt` compiles on the GPU that will run the plan. `tensorrt_rtx` compiles on any machine, with
no GPU and no driver, for several compute capabilities at once; its kernels are made when the plan
is loaded, so a plan that compiled has been parsed and lowered, not run.

Source: NVIDIA's Python API documentation; the tests compare every name used here with the real
bindings of TensorRT 11 and TensorRT-RTX and with the published stubs of TensorRT 10.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from engines.devices import present_compute_capability
from engines.errors import (
    CompileCancelled,
    CompileError,
    CompilerMissing,
    UnsupportedDevice,
)
from engines.profiles import Profile
from engines.progress import CompileProgress
from engines.tensorrt_callbacks import make_log, make_monitor, parser_failure, run_apart
from fetching.files import publish_file

Flavour = Literal["tensorrt", "tensorrt_rtx"]

_ACTIVATION_LINE = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS_LINE = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(frozen=True)
class CompileOptions:
    """What a person may choose. `timing_cache` changes how long compiling takes, not its key."""

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = field(default=None, compare=False)

    def key(self) -> dict[str, int | None]:
        """The options that decide what the plan is."""
        return {
            "workspace_bytes": self.workspace_bytes,
            "optimization_level": self.optimization_level,
        }


@dataclass(frozen=True)
class CompiledPlan:
    """A plan and what its compiler said about it.

    activation_bytes: GPU memory of one execution context at the profile's maximum; None when the
        compiler did not say. weight_bytes: the same for weights, shared by all contexts of a plan.
    """

    data: bytes
    flavour: Flavour
    version: str
    compute_capabilities: tuple[str, ...]
    seconds: float
    activation_bytes: int | None
    weight_bytes: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParsedLayer:
    """One layer of the network as the compiler parsed it, before fusion.

    precision: element type of its first output; empty for a layer that only steers.
    """

    name: str
    kind: str
    precision: str
    output_shape: tuple[int, ...]


class Compiler(Protocol):
    """One TensorRT package."""

    flavour: Flavour
    version: str
    several_devices: bool

    def check_devices(self, compute_capabilities: Sequence[str]) -> None:
        """Raise UnsupportedDevice unless one plan can be made for all of them."""
        ...

    def compile(
        self,
        onnx_bytes: bytes,
        *,
        profile: Profile,
        compute_capabilities: Sequence[str],
        options: CompileOptions = ...,
        progress: CompileProgress | None = None,
    ) -> CompiledPlan:
        """Compile a strongly typed ONNX model; see the implementations' errors."""
        ...

    def layers(self, onnx_bytes: bytes) -> list[ParsedLayer]:
        """The layers that the parser makes of a model."""
        ...


class _TensorRTFamily:
    """What the two packages have in common: everything but which devices a plan is for."""

    flavour: Flavour
    product: str
    several_devices: bool

    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self.version: str = trt.__version__

    def check_devices(self, compute_capabilities: Sequence[str]) -> None:
        raise NotImplementedError

    def _target_devices(self, config: Any, compute_capabilities: Sequence[str]) -> None:
        """Tell the builder which devices the plan is for."""
        raise NotImplementedError

    def compile(
        self,
        onnx_bytes: bytes,
        *,
        profile: Profile,
        compute_capabilities: Sequence[str],
        options: CompileOptions | None = None,
        progress: CompileProgress | None = None,
    ) -> CompiledPlan:
        """Compile a strongly typed ONNX model.

        Raises:
            UnsupportedDevice: this package makes no plan for one of `compute_capabilities`.
            UnsupportedOperator: the parser refused a node, which the message names.
            CompileError: not ONNX, inputs that differ from the profile's, or a failed build.
            CompileCancelled: `progress.advance` returned False.
        """
        self.check_devices(compute_capabilities)
        monitor = make_monitor(self._trt, progress)
        return run_apart(
            lambda: self._compile(
                onnx_bytes, profile, compute_capabilities, options or CompileOptions(), monitor
            ),
            monitor.cancel,
        )

    def _compile(
        self,
        onnx_bytes: bytes,
        profile: Profile,
        compute_capabilities: Sequence[str],
        options: CompileOptions,
        monitor: Any,
    ) -> CompiledPlan:
        started = time.monotonic()
        log = make_log(self._trt)
        builder = self._trt.Builder(log)
        # The parser holds the weights that the network refers to: it must outlive the build.
        network, parser = self._parse(builder, log, onnx_bytes)
        config = builder.create_builder_config()
        self._target_devices(config, compute_capabilities)
        self._set_options(config, options)
        self._set_profile(builder, network, config, profile)
        config.progress_monitor = monitor
        timing_cache = self._load_timing_cache(config, options)
        serialized = builder.build_serialized_network(network, config)
        if monitor.failure is not None:
            raise monitor.failure
        if monitor.cancelled:
            raise CompileCancelled("compiling was cancelled")
        if serialized is None:
            raise CompileError(f"{self.product} {self.version} could not compile: {log.reason()}")
        if timing_cache is not None:
            self._save_timing_cache(config, options)
        data = bytes(serialized)
        del parser
        return CompiledPlan(
            data=data,
            flavour=self.flavour,
            version=self.version,
            compute_capabilities=tuple(compute_capabilities),
            seconds=time.monotonic() - started,
            activation_bytes=self._activation_bytes(data, log),
            weight_bytes=log.largest(_WEIGHTS_LINE),
            warnings=tuple(log.warnings),
        )

    def layers(self, onnx_bytes: bytes) -> list[ParsedLayer]:
        """The layers that the parser makes of a model, with the type of their first output."""
        log = make_log(self._trt)
        builder = self._trt.Builder(log)
        network, _parser = self._parse(builder, log, onnx_bytes)
        found = []
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            output = layer.get_output(0)
            # None: the trip limit of a loop, the condition of a branch.
            made = ("", ()) if output is None else (output.dtype.name, tuple(output.shape))
            found.append(ParsedLayer(layer.name, layer.type.name, *made))
        return found

    def _parse(self, builder: Any, log: Any, onnx_bytes: bytes) -> tuple[Any, Any]:
        trt = self._trt
        # Strong typing is the only mode of TensorRT 11 and TensorRT-RTX, and a flag in TensorRT 10.
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flag)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(onnx_bytes):
            raise parser_failure(parser, self.product)
        if network.num_outputs == 0:
            raise CompileError("the file is not an ONNX model, or it has no outputs")
        return network, parser

    def _set_options(self, config: Any, options: CompileOptions) -> None:
        trt = self._trt
        # TF32 keeps 10 bits of a coordinate: a pixel at x = 1919 would move by up to one pixel.
        config.clear_flag(trt.BuilderFlag.TF32)
        # Layer names and precisions stay in the plan, for `--inspect` and for profilers.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level

    def _set_profile(self, builder: Any, network: Any, config: Any, profile: Profile) -> None:
        names = {network.get_input(index).name for index in range(network.num_inputs)}
        if names != set(profile):
            raise CompileError(
                f"the profile is for the inputs {sorted(profile)}, the graph has {sorted(names)}"
            )
        optimization_profile = builder.create_optimization_profile()
        for name, shapes in profile.items():
            optimization_profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(optimization_profile) < 0:
            raise CompileError(f"{self.product} refused the profile {dict(profile)}")

    def _activation_bytes(self, data: bytes, log: Any) -> int | None:
        """GPU memory of one execution context, as the compiler's log says."""
        found: int | None = log.largest(_ACTIVATION_LINE)
        return found

    def _load_timing_cache(self, config: Any, options: CompileOptions) -> Any:
        """Start from the timings of earlier builds, if a file is named; returns the cache."""
        return None

    def _save_timing_cache(self, config: Any, options: CompileOptions) -> None:
        """Keep this build's timings."""


class TensorRTCompiler(_TensorRTFamily):
    """NVIDIA TensorRT 10.x or 11.x: compiles for the GPU that it runs on."""

    flavour: Flavour = "tensorrt"
    product = "TensorRT"
    several_devices = False

    def check_devices(self, compute_capabilities: Sequence[str]) -> None:
        present = present_compute_capability()
        if present is None:
            raise UnsupportedDevice(
                "TensorRT compiles on the GPU that will run the plan, and no NVIDIA GPU is visible "
                "here: run build_engines.py on that machine, or compile with tensorrt_rtx"
            )
        for asked in compute_capabilities:
            if asked != present:
                raise UnsupportedDevice(
                    f"TensorRT compiles on the GPU that will run the plan: this one has compute "
                    f"capability {present}, {asked} was asked for; run build_engines.py on such a "
                    f"GPU, or compile with tensorrt_rtx"
                )

    def _target_devices(self, config: Any, compute_capabilities: Sequence[str]) -> None:
        """Nothing to tell: the present GPU is the target."""

    def _load_timing_cache(self, config: Any, options: CompileOptions) -> Any:
        if options.timing_cache is None:
            return None
        try:
            blob = options.timing_cache.read_bytes()
        except OSError:
            blob = b""
        cache = config.create_timing_cache(blob)
        # A file of another version or GPU is refused here; an empty one is always accepted.
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _save_timing_cache(self, config: Any, options: CompileOptions) -> None:
        assert options.timing_cache is not None
        timings = config.get_timing_cache()
        # A folder that cannot be written costs the next build time, not this one its plan.
        with contextlib.suppress(OSError):
            publish_file(options.timing_cache, bytes(timings.serialize()))

    def _activation_bytes(self, data: bytes, log: Any) -> int | None:
        """Asked of the plan itself: loading it here shows at once that it loads.

        Raises:
            CompileError: the plan does not load on the GPU that it was compiled on.
        """
        runtime = self._trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise CompileError(f"the plan was compiled and does not load here: {log.reason()}")
        return int(engine.device_memory_size_v2)


class RtxCompiler(_TensorRTFamily):
    """TensorRT-RTX: compiles anywhere, for consumer and workstation GPUs, several in one plan."""

    flavour: Flavour = "tensorrt_rtx"
    product = "TensorRT-RTX"
    several_devices = True

    def compute_capabilities(self) -> dict[str, Any]:
        """What this version can compile for: "8.9" to its enumerator."""
        found = {}
        for name, value in vars(self._trt.ComputeCapability).items():
            if match := re.fullmatch(r"SM(\d+)(\d)", name):
                found[f"{match[1]}.{match[2]}"] = value
        return dict(sorted(found.items(), key=lambda item: float(item[0])))

    def check_devices(self, compute_capabilities: Sequence[str]) -> None:
        known = self.compute_capabilities()
        for asked in compute_capabilities:
            if asked not in known:
                raise UnsupportedDevice(
                    f"TensorRT-RTX {self.version} does not compile for compute capability {asked}, "
                    f"only for {', '.join(known)}: on a GPU with {asked} run build_engines.py with "
                    f"NVIDIA's tensorrt package"
                )

    def _target_devices(self, config: Any, compute_capabilities: Sequence[str]) -> None:
        known = self.compute_capabilities()
        config.num_compute_capabilities = len(compute_capabilities)
        for index, asked in enumerate(compute_capabilities):
            if not config.set_compute_capability(known[asked], index):
                raise UnsupportedDevice(
                    f"TensorRT-RTX {self.version} refused compute capability {asked} "
                    f"beside {', '.join(compute_capabilities)}"
                )


def available_compilers() -> dict[Flavour, Compiler]:
    """The TensorRT packages that can be imported here, NVIDIA TensorRT first."""
    found: dict[Flavour, Compiler] = {}
    if (tensorrt := _import_package("tensorrt")) is not None:
        found["tensorrt"] = TensorRTCompiler(tensorrt)
    if (rtx := _import_package("tensorrt_rtx")) is not None:
        found["tensorrt_rtx"] = RtxCompiler(rtx)
    return found


def choose_compiler(flavour: Flavour | None = None) -> Compiler:
    """The compiler asked for, or the only one installed, or NVIDIA TensorRT where there are two.

    Raises:
        CompilerMissing: it is not installed; the message says what to install.
    """
    found = available_compilers()
    if flavour is not None and flavour in found:
        return found[flavour]
    if flavour is None and found:
        return next(iter(found.values()))
    if flavour == "tensorrt":
        raise CompilerMissing(
            "the package tensorrt cannot be imported here: run build_engines.py in NVIDIA's "
            "Triton or TensorRT container, or install tensorrt as NVIDIA describes"
        )
    raise CompilerMissing(
        "no TensorRT compiler can be imported here: `pip install tensorrt-rtx` compiles on any "
        "machine for compute capability 8.0, 8.6, 8.9, 12.0; for other GPUs (9.0, 10.0) use "
        "NVIDIA's tensorrt on that GPU, for example in NVIDIA's Triton container"
    )


def _import_package(name: str) -> Any:
    """The package, or None. A folder of type stubs imports as an empty package: it is None too."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if hasattr(module, "Builder") else None
