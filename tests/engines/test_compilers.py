"""The two compilers: the real TensorRT-RTX, and TensorRT's API as published for 10 and 11."""

from __future__ import annotations

import ast
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper, numpy_helper

from engines import compilers, devices
from engines.compilers import (
    CompileOptions,
    RtxCompiler,
    TensorRTCompiler,
    available_compilers,
    choose_compiler,
)
from engines.errors import (
    CompileCancelled,
    CompileError,
    CompilerMissing,
    UnsupportedDevice,
    UnsupportedOperator,
)
from engines.profiles import AxisRange, ProfileLimits, ShapeRange, make_profile
from tests.engines.tensorrt_api import (
    Api,
    Signature,
    tensorrt_10_api,
    tensorrt_11_api,
    tensorrt_rtx_api,
)

REPOSITORY = Path(__file__).resolve().parents[2]
LIMITS = ProfileLimits(batch=AxisRange(1, 2, 4))


def tiny_model(*nodes: onnx.NodeProto, element_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x [B, 16] -> y [B, 16] through `nodes`; a relu when none are given."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"], name="network/relu")],
        "tiny",
        [helper.make_tensor_value_info("x", element_type, ["B", 8])],
        [helper.make_tensor_value_info("y", element_type, ["B", 8])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def rtx() -> RtxCompiler:
    return RtxCompiler(tensorrt_rtx)


def compile_tiny(rtx: RtxCompiler, model: onnx.ModelProto | bytes, **more: Any) -> Any:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    settings = {
        "profile": make_profile(tiny_model(), LIMITS),
        "compute_capabilities": ["8.9"],
        **more,
    }
    return rtx.compile(data, **settings)


def test_one_plan_is_compiled_for_several_devices_without_a_gpu(rtx: RtxCompiler) -> None:
    plan = compile_tiny(rtx, tiny_model(), compute_capabilities=["8.0", "8.6", "8.9", "12.0"])
    assert plan.compute_capabilities == ("8.0", "8.6", "8.9", "12.0")
    assert plan.flavour == "tensorrt_rtx"
    assert plan.version == tensorrt_rtx.__version__
    assert len(plan.data) > 1000
    assert plan.seconds > 0


def test_the_plan_is_one_that_its_own_library_recognises(rtx: RtxCompiler) -> None:
    plan = compile_tiny(rtx, tiny_model()).data
    runtime = tensorrt_rtx.Runtime(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    size = runtime.engine_header_size
    flags = tensorrt_rtx.EngineInvalidityDiagnostics
    wrong = int(flags.MALFORMED_ENGINE) | int(flags.VERSION_MISMATCH)
    # Without a driver no plan is valid here, but a foreign one is told from one of this version.
    assert runtime.get_engine_validity(plan[:size])[1] & wrong == 0
    assert runtime.get_engine_validity(bytes(size))[1] & wrong


def test_the_compiler_says_how_much_gpu_memory_a_plan_takes(rtx: RtxCompiler) -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    plan = compile_tiny(rtx, tiny_model(product))
    # One 8 x 8 float matrix, rounded up by the compiler to whatever it aligns to.
    assert 8 * 8 * 4 <= plan.weight_bytes <= 4096
    assert plan.activation_bytes is not None


@pytest.mark.parametrize("device", ["9.0", "10.0", "7.0"])
def test_a_device_that_rtx_cannot_compile_for_is_refused(rtx: RtxCompiler, device: str) -> None:
    with pytest.raises(
        UnsupportedDevice,
        match=rf"does not compile for compute capability {device}, only for .*8.9",
    ):
        compile_tiny(rtx, tiny_model(), compute_capabilities=["8.9", device])


def test_the_devices_of_the_documentation_are_known(rtx: RtxCompiler) -> None:
    assert {"8.0", "8.6", "8.9", "12.0", "12.1"} <= set(rtx.compute_capabilities())


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x00" * 100], ids=repr)
def test_what_is_not_onnx_is_refused_in_one_sentence(rtx: RtxCompiler, data: bytes) -> None:
    with pytest.raises(CompileError, match="not an ONNX model"):
        compile_tiny(rtx, data)


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (
            helper.make_node("NonZero", ["x"], ["y"], name="postprocess/find"),
            r"does not take node 'postprocess/find' \(operator NonZero\)",
        ),
        (
            helper.make_node("FusedConv", ["x"], ["y"], name="network/7", domain="com.microsoft"),
            r"does not take node 'network/7' \(operator FusedConv\)",
        ),
    ],
)
def test_an_operator_that_the_parser_refuses_is_named(
    rtx: RtxCompiler, node: onnx.NodeProto, sentence: str
) -> None:
    model = tiny_model(node)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedOperator, match=sentence) as caught:
        compile_tiny(rtx, model)
    assert "\n" not in str(caught.value)


def test_uint8_in_the_wrong_place_is_refused_with_the_nodes_name(rtx: RtxCompiler) -> None:
    model = tiny_model(
        helper.make_node("Slice", ["x", "a", "b"], ["y"], name="preprocess/slice"),
        element_type=TensorProto.UINT8,
    )
    for name, value in (("a", [0]), ("b", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    with pytest.raises(UnsupportedOperator, match=r"'preprocess/slice' \(operator Slice\).*UINT8"):
        compile_tiny(rtx, model)


def test_a_profile_for_other_inputs_is_refused(rtx: RtxCompiler) -> None:
    profile = {"frame": ShapeRange((1, 8), (1, 8), (4, 8))}
    with pytest.raises(CompileError, match=r"for the inputs \['frame'\], the graph has \['x'\]"):
        compile_tiny(rtx, tiny_model(), profile=profile)


def test_a_profile_that_contradicts_a_fixed_axis_is_refused(rtx: RtxCompiler) -> None:
    profile = {"x": ShapeRange((1, 9), (1, 9), (4, 9))}
    with pytest.raises(CompileError, match=r"could not compile|refused the profile"):
        compile_tiny(rtx, tiny_model(), profile=profile)


class Recorder:
    """Progress that writes everything down and cancels after `limit` steps."""

    def __init__(self, limit: int = 10**9) -> None:
        self.open: list[str] = []
        self.seen: list[str] = []
        self.steps = 0
        self._limit = limit

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        assert parent is None or parent in self.open
        assert steps >= 0
        self.open.append(phase)
        self.seen.append(phase)

    def advance(self, phase: str, step: int) -> bool:
        assert phase in self.open
        self.steps += 1
        return self.steps < self._limit

    def finish(self, phase: str) -> None:
        self.open.remove(phase)


def test_progress_comes_in_nested_phases_that_all_end(rtx: RtxCompiler) -> None:
    progress = Recorder()
    compile_tiny(rtx, tiny_model(), progress=progress)
    assert len(progress.seen) >= 3
    assert progress.steps > 5
    assert progress.open == []


def test_progress_can_cancel_a_compilation(rtx: RtxCompiler) -> None:
    with pytest.raises(CompileCancelled, match="cancelled"):
        compile_tiny(rtx, tiny_model(), progress=Recorder(limit=3))


def test_ctrl_c_stops_a_compilation_and_leaves_the_process_alive(rtx: RtxCompiler) -> None:
    class Interrupted(Recorder):
        def advance(self, phase: str, step: int) -> bool:
            if self.steps == 2:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)  # the main thread takes it while this one is inside the library
            return super().advance(phase, step)

    progress = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        compile_tiny(rtx, tiny_model(), progress=progress)
    assert progress.steps < 10


def test_a_progress_that_fails_ends_the_compilation_with_its_own_error(rtx: RtxCompiler) -> None:
    class Failing(Recorder):
        def finish(self, phase: str) -> None:
            raise ValueError("the terminal is gone")

    with pytest.raises(ValueError, match="the terminal is gone"):
        compile_tiny(rtx, tiny_model(), progress=Failing())


def test_options_are_accepted_and_keyed(rtx: RtxCompiler) -> None:
    options = CompileOptions(workspace_bytes=2**28, optimization_level=2)
    assert options.key() == {"workspace_bytes": 2**28, "optimization_level": 2}
    assert compile_tiny(rtx, tiny_model(), options=options).data


def test_layers_are_listed_with_their_precision(rtx: RtxCompiler) -> None:
    half = helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16, name="network/half")
    relu = helper.make_node("Relu", ["h"], ["r"], name="network/relu")
    back = helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT, name="network/back")
    layers = rtx.layers(tiny_model(half, relu, back).SerializeToString())
    found = {layer.name: layer.precision for layer in layers}
    assert found["network/relu"] == "HALF"
    assert found["network/back"] == "FLOAT"


def fake_tensorrt() -> ModuleType:
    module = ModuleType("tensorrt")
    module.Builder = object  # type: ignore[attr-defined]
    module.__version__ = "11.4.0"  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        (("tensorrt",), None, "tensorrt"),
        (("tensorrt_rtx",), None, "tensorrt_rtx"),
        (("tensorrt", "tensorrt_rtx"), None, "tensorrt"),
        (("tensorrt", "tensorrt_rtx"), "tensorrt_rtx", "tensorrt_rtx"),
    ],
)
def test_the_compiler_that_is_installed_is_used(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], asked: Any, chosen: str
) -> None:
    packages: Mapping[str, ModuleType | None] = {
        "tensorrt": fake_tensorrt() if "tensorrt" in there else None,
        "tensorrt_rtx": tensorrt_rtx if "tensorrt_rtx" in there else None,
    }
    for name, package in packages.items():
        monkeypatch.setitem(sys.modules, name, package)
    assert list(available_compilers()) == list(there)
    assert choose_compiler(asked).flavour == chosen


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (None, "pip install tensorrt-rtx"),
        ("tensorrt_rtx", "pip install tensorrt-rtx"),
        ("tensorrt", "run build_engines.py in NVIDIA's Triton or TensorRT container"),
    ],
)
def test_a_missing_compiler_is_one_sentence_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, asked: Any, sentence: str
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CompilerMissing, match=sentence):
        choose_compiler(asked)


def test_a_folder_of_type_stubs_is_not_taken_for_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("class Builder: ...\n")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "tensorrt" not in available_compilers()
    sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(
    ("present", "asked", "sentence"),
    [
        (None, "9.0", "no NVIDIA GPU is visible here"),
        ("8.9", "9.0", "this one has compute capability 8.9, 9.0 was asked for"),
    ],
)
def test_tensorrt_compiles_only_for_the_gpu_that_is_present(
    monkeypatch: pytest.MonkeyPatch, present: str | None, asked: str, sentence: str
) -> None:
    monkeypatch.setattr(compilers, "present_compute_capability", lambda: present)
    with pytest.raises(UnsupportedDevice, match=sentence):
        TensorRTCompiler(fake_tensorrt()).check_devices([asked])


def test_tensorrt_takes_the_gpu_that_is_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "present_compute_capability", lambda: "9.0")
    TensorRTCompiler(fake_tensorrt()).check_devices(["9.0"])


class TensorRTOnRtx(TensorRTCompiler):
    """TensorRTCompiler's own code, run by the library of the same family that is here.

    Loading is left out: without a driver no plan of either library loads.
    """

    def _activation_bytes(self, data: bytes, log: Any) -> int | None:
        return 0

    def _target_devices(self, config: Any, compute_capabilities: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(self._trt.ComputeCapability.SM89, 0)


class FakeTimingConfig:
    """What TensorRT documents of timing caches: foreign blobs are refused, empty ones accepted."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.blobs.append(cache)
        return cache in (b"", b"mine") and not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"mine")


@pytest.mark.parametrize(
    ("stored", "tried"),
    [(None, [b""]), (b"mine", [b"mine"]), (b"foreign", [b"foreign", b""])],
)
def test_a_timing_cache_is_reused_unless_it_is_foreign(
    tmp_path: Path, stored: bytes | None, tried: list[bytes]
) -> None:
    path = tmp_path / "timing" / "9.0.cache"
    if stored is not None:
        path.parent.mkdir()
        path.write_bytes(stored)
    compiler, config = TensorRTCompiler(fake_tensorrt()), FakeTimingConfig()
    options = CompileOptions(timing_cache=path)
    compiler._load_timing_cache(config, options)
    compiler._save_timing_cache(config, options)
    assert config.blobs == tried
    assert path.read_bytes() == b"mine"


def test_timings_that_cannot_be_kept_do_not_cost_the_plan(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = CompileOptions(timing_cache=tmp_path / "file" / "9.0.cache")
    compiler, config = TensorRTCompiler(fake_tensorrt()), FakeTimingConfig()
    compiler._load_timing_cache(config, options)
    compiler._save_timing_cache(config, options)
    assert config.blobs == [b""]


@pytest.mark.parametrize("loads", [True, False])
def test_tensorrt_asks_the_loaded_plan_for_its_memory(loads: bool) -> None:
    module = fake_tensorrt()
    engine = SimpleNamespace(device_memory_size_v2=12345) if loads else None
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    module.Runtime = lambda log: runtime  # type: ignore[attr-defined]
    log = SimpleNamespace(reason=lambda: "no memory left")
    compiler = TensorRTCompiler(module)
    if loads:
        assert compiler._activation_bytes(b"plan", log) == 12345
    else:
        with pytest.raises(CompileError, match="does not load here: no memory left"):
            compiler._activation_bytes(b"plan", log)


def test_the_shared_code_compiles_as_tensorrt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "present_compute_capability", lambda: "8.9")
    plan = TensorRTOnRtx(tensorrt_rtx).compile(
        tiny_model().SerializeToString(),
        profile=make_profile(tiny_model(), LIMITS),
        compute_capabilities=["8.9"],
    )
    assert plan.flavour == "tensorrt"


# The name that our code gives to an object of each class: how a use is matched with the API.
HANDLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "timings": "ITimingCache",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "optimization_profile": "IOptimizationProfile",
    "layer": "ILayer",
    "output": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
}
RTX_ONLY = {"RtxCompiler", "RtxLoader"}

Use = tuple[str, str, int | None, tuple[str, ...]]


def uses(source: Path, wanted: Callable[[str | None], bool]) -> Iterator[Use]:
    """(class, attribute, positional arguments, keywords) for every use in classes `wanted`."""
    tree = ast.parse(source.read_text())
    for statement in tree.body:
        owner = statement.name if isinstance(statement, ast.ClassDef) else None
        if not wanted(owner):
            continue
        calls = {id(n.func): n for n in ast.walk(statement) if isinstance(n, ast.Call)}
        for node in ast.walk(statement):
            if not isinstance(node, ast.Attribute):
                continue
            call = calls.get(id(node))
            count = None if call is None else len(call.args)
            keywords = () if call is None else tuple(str(k.arg) for k in call.keywords)
            inner = node.value
            if isinstance(inner, ast.Attribute) and _is_library(inner.value):
                yield inner.attr, node.attr, count, keywords  # trt.BuilderFlag.TF32
            elif _is_library(inner):
                yield "", node.attr, count, keywords
            elif isinstance(inner, ast.Name) and inner.id in HANDLES:
                yield HANDLES[inner.id], node.attr, count, keywords


def _is_library(node: ast.expr) -> bool:
    """`trt` or `self._trt`."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name in ("trt", "_trt")


def misuses(api: Api, found: set[Use]) -> list[str]:
    """Uses that `api` does not have, or has with other parameters."""
    wrong = []
    for owner, attribute, count, keywords in sorted(found, key=str):
        if attribute.startswith("__"):
            continue
        if attribute not in api.get(owner, {}):
            wrong.append(f"{owner}.{attribute} does not exist")
            continue
        signatures = api[owner][attribute]
        if count is None or not signatures:
            continue
        if not any(_fits(signature, count, keywords) for signature in signatures):
            wrong.append(f"{owner}.{attribute} takes {signatures}, given {count} and {keywords}")
    return wrong


def _fits(signature: Signature, count: int, keywords: tuple[str, ...]) -> bool:
    named = set(keywords) <= set(signature.parameters[count:])
    given = count + len(keywords)
    return named and signature.required <= given <= len(signature.parameters)


SOURCES = [
    REPOSITORY / "engines" / "compilers.py",
    REPOSITORY / "engines" / "tensorrt_callbacks.py",
    REPOSITORY / "server" / "backends" / "tensorrt_network.py",
    REPOSITORY / "server" / "backends" / "tensorrt" / "model.py",
]


@pytest.fixture(scope="module")
def shared_uses() -> set[Use]:
    found = {use for path in SOURCES for use in uses(path, lambda name: name not in RTX_ONLY)}
    assert len(found) > 45, "the uses are no longer found: have the variables been renamed?"
    return found


def test_every_name_we_use_exists_in_tensorrt_rtx(shared_uses: set[Use]) -> None:
    only = {use for path in SOURCES for use in uses(path, lambda name: name in RTX_ONLY)}
    assert len(only) >= 8
    # Timing caches are TensorRT's alone; the rest of the shared code runs with both.
    assert misuses(tensorrt_rtx_api(), shared_uses | only) == []


def test_every_name_we_use_exists_in_the_real_tensorrt_11_bindings(
    shared_uses: set[Use], tmp_path: Path
) -> None:
    assert misuses(tensorrt_11_api(tmp_path), shared_uses) == []


def test_every_name_we_use_exists_in_the_published_stubs_of_tensorrt_10(
    shared_uses: set[Use],
) -> None:
    assert misuses(tensorrt_10_api(), shared_uses) == []


def test_a_wrong_name_or_argument_would_not_survive(tmp_path: Path) -> None:
    removed: set[Use] = {
        ("IBuilderConfig", "max_workspace_size", None, ()),
        ("BuilderFlag", "FP16", None, ()),
        ("IBuilderConfig", "set_memory_pool_limit", 1, ()),
        ("IBuilderConfig", "set_timing_cache", 1, ("ignore",)),
    }
    assert len(misuses(tensorrt_11_api(tmp_path), removed)) == len(removed)


def test_the_interfaces_that_we_implement_have_the_methods_that_we_override(
    tmp_path: Path,
) -> None:
    apis = [tensorrt_11_api(tmp_path), tensorrt_10_api()]
    for interface, methods in {
        "IProgressMonitor": {"phase_start", "step_complete", "phase_finish"},
        "ILogger": {"log", "ERROR", "INTERNAL_ERROR", "WARNING"},
    }.items():
        for api in apis:
            assert methods <= set(api[interface])


@pytest.mark.parametrize("text", ["8.9", "89", "sm_89", "SM89", " 8.9 "])
def test_a_compute_capability_is_read_in_every_usual_spelling(text: str) -> None:
    assert devices.parse_compute_capability(text) == "8.9"


def test_two_digit_majors_are_read() -> None:
    assert devices.parse_compute_capability("120") == "12.0"
    assert devices.parse_compute_capability("sm_121") == "12.1"


@pytest.mark.parametrize("text", ["", "ada", "rtx4090", "8", "8.9.1", "-8.9", "1234"])
def test_what_is_not_a_compute_capability_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedDevice, match="is not a compute capability"):
        devices.parse_compute_capability(text)
