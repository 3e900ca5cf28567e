"""build_engines.py as a person runs it: what it writes, what it reuses, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage

import build_engines
from bench import random_inswapper
from engines import build, command_line, typed_graphs
from engines.compilers import CompiledPlan, ParsedLayer
from engines.configs import read_config
from engines.manifest import read_manifest
from engines.samples import read_frames
from engines.targets import DEFAULT_TARGET, TARGETS
from fetching import weights
from fetching.downloads import DownloadError
from graphs.contract import ENSEMBLE_SPECS, MAX_VIEWS, MODEL_SPECS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS
from tests.conftest import FOR_CPU
from tests.generated_networks import recognizer_network, swapper_network

CONFIG_TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}
# NASA's portrait of Eileen Collins, public domain: one face is enough to check a build with.
PORTRAIT = ("--frames", str(Path(skimage.__file__).parent / "data" / "astronaut.png"))
SMALL = ("--frame", "320x256", "--photo", "256", "--batch", "2", "--faces", "2", *PORTRAIT)


def run(*arguments: str | Path) -> int:
    return build_engines.main([str(argument) for argument in arguments])


def lines_of(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Printed line by model name."""
    printed = capsys.readouterr().out.splitlines()
    return {line.split()[0].rstrip(":"): line for line in printed if line and line[0] != " "}


@pytest.fixture(scope="module")
def cpu_repository(real_repository: Path) -> Path:
    return real_repository


@pytest.fixture
def repository(own_repository: Path) -> Path:
    return own_repository


def test_a_built_repository_is_complete(cpu_repository: Path) -> None:
    for model in (*MODEL_SPECS, *ENSEMBLE_SPECS):
        folder = cpu_repository / model
        assert (folder / "config.pbtxt").is_file()
        assert (folder / "configs" / "cpu.pbtxt").is_file()
        assert (folder / "1").is_dir()
        assert (folder / "1" / "model.onnx").is_file() == (model in MODEL_SPECS)


def test_every_graph_has_the_tensors_that_its_config_declares(cpu_repository: Path) -> None:
    for model in MODEL_SPECS:
        config = read_config(cpu_repository / model / "configs" / "cpu.pbtxt")
        graph = onnx.load(cpu_repository / model / "1" / "model.onnx").graph
        for declared, values in ((config.input, graph.input), (config.output, graph.output)):
            assert [tensor.name for tensor in declared] == [value.name for value in values]
            for tensor, value in zip(declared, values, strict=True):
                kind = value.type.tensor_type
                type_name = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
                assert type_name[tensor.data_type].name == CONFIG_TYPES[kind.elem_type]
                batch, *rest = kind.shape.dim
                assert batch.dim_param == "B"
                # Rows of a landmark network are joined, so that its graph takes any number.
                fixed = {"F": MAX_VIEWS}
                assert list(tensor.dims) == [
                    dim.dim_value if dim.HasField("dim_value") else fixed.get(dim.dim_param, -1)
                    for dim in rest
                ], f"{model}.{tensor.name}"


def test_a_second_run_changes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}
    assert run(*FOR_CPU, "--repository", repository) == 0
    lines = lines_of(capsys)
    assert all(lines[model].endswith("unchanged") for model in MODEL_SPECS)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_damaged_file_is_built_again(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / "source_encoder" / "1" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run(*FOR_CPU, "--repository", repository, "--explain") == 0
    assert "missing or was changed since" in lines_of(capsys)["source_encoder"]
    assert run(*FOR_CPU, "--repository", repository) == 0
    assert lines_of(capsys)["source_encoder"].endswith("built")
    assert path.read_bytes() == whole


def test_a_file_of_an_earlier_version_is_built_again(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = repository / "source_encoder" / "1" / "model.onnx.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    assert run(*FOR_CPU, "--repository", repository, "--dry-run") == 0
    assert "that this program built" in lines_of(capsys)["source_encoder"]
    assert run(*FOR_CPU, "--repository", repository) == 0
    lines = lines_of(capsys)
    assert lines["source_encoder"].endswith("built")
    assert lines["face_swapper"].endswith("unchanged")


def test_building_twice_gives_the_same_bytes(cpu_repository: Path, tmp_path: Path) -> None:
    again = ["face_swapper", "face_blender_bgr", "source_encoder"]
    assert run(*FOR_CPU, "--repository", tmp_path, "--models", *again) == 0
    for model in again:
        built = (tmp_path / model / "1" / "model.onnx").read_bytes()
        assert built == (cpu_repository / model / "1" / "model.onnx").read_bytes()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FOR_CPU, "--repository", tmp_path / "new", "--dry-run") == 0
    assert "would be built" in lines_of(capsys)["face_swapper"]
    assert not (tmp_path / "new").exists()


def test_explain_names_what_changed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = repository / "face_blender_bgr" / "1" / "model.onnx.json"
    said = json.loads(record.read_text())
    said["recipe"]["crop size"] = "128"
    record.write_text(json.dumps(said))
    assert run(*FOR_CPU, "--repository", repository, "--explain") == 0
    lines = lines_of(capsys)
    assert "crop size is 256, was 128" in lines["face_blender_bgr"]
    assert lines["face_swapper"] == "face_swapper: unchanged"


def test_models_of_another_deployment_are_not_mixed_in(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = repository / "face_aligner_bgr" / "1" / "model.onnx.json"
    record.write_text(record.read_text().replace("image_swapper_256", "blendswap_256"))
    code = run(*FOR_CPU, "--repository", repository, "--models", "face_swapper")
    assert code == 1
    said = capsys.readouterr().err
    assert "face_aligner_bgr in" in said
    assert "swapper is image_swapper_256, was blendswap_256" in said
    assert "leave --models out" in said


def test_help_names_every_swapper_and_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        run("--help")
    text = " ".join(capsys.readouterr().out.split())
    for name in (*SWAPPERS, *RECOGNIZERS, *TARGETS, "--compute-capability"):
        assert name in text


def test_every_flag_is_documented() -> None:
    guide = (Path(build_engines.__file__).parent / "docs" / "engines.md").read_text()
    for action in command_line.make_parser("")._actions:
        for flag in action.option_strings:
            assert flag in ("-h", "--help") or f"{flag}`" in guide or f"{flag} " in guide, flag


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--swapper", "nosuch"], "no swapper is called 'nosuch'; known: image_swapper_256, "),
        (["--detector", "nosuch"], "no detector is called 'nosuch'; known: yunet"),
        (["--recognizer", "nosuch"], "no recogniser is called 'nosuch'; known: sface"),
        (["--landmarker", "nosuch"], "no landmarker is called 'nosuch'; known: face_landmarker_v2"),
        (["--models", "nosuch"], "no model is called 'nosuch'; known: face_locator_bgr"),
        (
            ["--swapper", "inswapper_128", "--recognizer", "sface"],
            "inswapper_128 needs embeddings of w600k_r50",
        ),
        (["--swapper", "frameswap_256", "--landmarker", "none"], "the landmarker is none; use"),
        (["--pixel-boost", "3"], "frameswap_256_small takes a pixel boost of 1, but 3"),
        (["--frames", "/no/such/picture"], "/no/such/picture does not exist: --frames takes"),
        (["--target", "cpu", "--precision", "int8"], "int8 is for TensorRT plans"),
        (["--compute-capability", "8.9x"], "'8.9x' is not a compute capability"),
        (
            ["--compute-capability", "9.0", "--target", "rtx"],
            "does not compile for compute capability 9.0",
        ),
        (["--target", "tensorrt"], "the package tensorrt cannot be imported here"),
        (
            ["--target", "rtx", "--compute-capability", "8.6", "--precision", "fp8"],
            "fp8 needs compute capability 8.9 or newer, 8.6 was asked for",
        ),
        (["--target", "rtx", "--frame", "32x32"], "the profile of height is 32, 32, 32"),
        (["--target", "rtx", "--frame", "1281x720"], "heights and widths of frames are even"),
        (["--target", "rtx", "--faces", "1", "2"], "--faces takes MIN OPT MAX or MAX alone"),
        (["--target", "rtx", "--faces", "17"], "at most 16 faces are found in a frame, 17"),
        (["--target", "rtx", "--batch", "4", "2", "8"], "the profile of batch is 4, 2, 8"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--repository", tmp_path, *arguments) == 1
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert said.startswith("build_engines.py: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precision", "fp4"],
        ["--frame", "big"],
        ["--batch", "0"],
        ["--batch", "all"],
        ["--nosuch"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        run(*arguments)
    assert "invalid _" not in capsys.readouterr().err, "argparse's own words for our parser"


def test_weights_under_a_licence_are_not_taken_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    assert run("--target", "cpu", "--swapper", "inswapper_128", "--models", "face_swapper") == 1
    said = capsys.readouterr().err
    assert "the weights of inswapper_128 are not here" in said
    assert "run: frameswap models fetch inswapper_128 --accept-licence" in said


def test_free_weights_that_cannot_be_fetched_are_named_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **_: object) -> None:
        raise DownloadError("there is no network")

    monkeypatch.setenv("FRAMESWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "fetch", refuse)
    repository = tmp_path / "repository"
    assert run(*FOR_CPU, "--repository", repository) == 1
    said = capsys.readouterr().err
    assert "the weights of yunet are not here and could not be fetched: there is no network" in said
    assert "run: frameswap models fetch yunet --file PATH" in said
    assert not repository.exists()


def test_a_full_disk_is_said_and_leaves_what_was_there(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository / "source_encoder" / "1" / "model.onnx"
    whole = path.read_bytes()
    (repository / "source_encoder" / "1" / "model.onnx.json").unlink()

    def full(target: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engines.repository.publish_file", full)
    assert run(*FOR_CPU, "--repository", repository) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert path.read_bytes() == whole


def stand_in_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks with the published contracts in place of files that cannot be had here."""
    load = weights.load_network

    def load_network(name: str) -> onnx.ModelProto:
        if name == "inswapper_128":
            return random_inswapper.build(channels=16)
        if name in SWAPPERS:
            return swapper_network(name)
        if name == "w600k_r50":
            return recognizer_network(name)
        return load(name)

    monkeypatch.setattr(weights, "load_network", load_network)
    monkeypatch.setattr(
        build, "bring_weights", lambda names, **_: dict.fromkeys(names, "stand-in")
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "is not here, but frameswap_256 is part of this"), (b"cut", "not a whole .npz file")],
)
def test_our_own_network_missing_or_damaged_ends_the_build_with_one_line(
    content: bytes | None,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(weights, "CHECKOUT", tmp_path)
    if content is not None:
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / "swapper.npz").write_bytes(content)
    arguments = ("--target", "cpu", "--swapper", "frameswap_256", "--models", "face_swapper")
    assert run(*arguments, "--repository", tmp_path / "repository") == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.endswith("restore it with Git\n")
    assert said.count("\n") == 1


def test_a_published_swapper_with_pixel_boost_fits_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_networks(monkeypatch)
    arguments = ("--swapper", "inswapper_128", "--pixel-boost", "2", "--target", "cpu")
    models = ("face_swapper", "face_detector_i420", "face_blender_i420")
    assert run(*arguments, "--repository", tmp_path, "--models", *models) == 0
    for model in models:
        config = read_config(tmp_path / model / "configs" / "cpu.pbtxt")
        graph = onnx.load(tmp_path / model / "1" / "model.onnx").graph
        crops = [t for t in (*config.input, *config.output) if "crops" in t.name]
        values = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output)}
        for tensor in crops:
            assert list(tensor.dims) == [-1, 3, 256, 256]
            assert [dim.dim_value for dim in values[tensor.name]][2:] == [3, 256, 256]


@pytest.fixture(scope="module")
def plan_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


def build_plans(root: Path, cache: Path, *arguments: str) -> int:
    """Of the smallest swapper: what is looked at is how plans are kept."""
    return run(
        "--target", "rtx", "--compute-capability", "8.9", *SMALL, "--repository", root,
        "--cache", cache, "--models", "face_swapper", "source_encoder",
        "--swapper", "image_swapper_256", *arguments,
    )  # fmt: skip


def test_plans_are_compiled_once_and_come_out_of_the_cache_after(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert build_plans(first, plan_cache) == 0
    lines = lines_of(capsys)
    assert lines["face_swapper"].endswith("built")
    assert "MiB" in lines["planned"]
    assert build_plans(second, plan_cache) == 0
    assert lines_of(capsys)["face_swapper"].endswith("cache hit")
    plans = [root / "face_swapper" / "1" / "model.rtx.plan" for root in (first, second)]
    assert plans[0].read_bytes() == plans[1].read_bytes()
    assert build_plans(second, plan_cache) == 0
    assert lines_of(capsys)["face_swapper"].endswith("unchanged")


def test_explain_says_how_the_nearest_plan_in_the_cache_differs(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_plans(tmp_path, plan_cache) == 0
    capsys.readouterr()
    assert build_plans(tmp_path, plan_cache, "--explain", "--optimization-level", "1") == 0
    printed = capsys.readouterr().out
    assert "face_swapper: would be built: options is" in printed
    assert "face_swapper: the nearest plan in the cache differs in options" in printed


def test_a_plan_is_described_beside_it(tmp_path: Path, plan_cache: Path) -> None:
    assert build_plans(tmp_path, plan_cache) == 0
    manifest = read_manifest(tmp_path / "face_swapper" / "1" / "model.rtx.plan")
    recipe, plan = manifest.recipe, manifest.plan
    assert (recipe["precision"], recipe["swapper"]) == ("fp16", "image_swapper_256")
    assert plan is not None
    assert (plan.flavour, plan.compute_capabilities) == ("tensorrt_rtx", ("8.9",))
    # Two frames of two faces come joined: four rows of one face.
    assert plan.profile["crops"]["max"] == [4, 1, 3, 256, 256]
    assert manifest.memory is not None
    assert manifest.memory.activation_bytes > 0
    assert manifest.fidelity is not None
    assert manifest.fidelity["crop_psnr_db"] > 50


def test_the_configs_of_plans_bound_requests_as_the_profile_does(
    tmp_path: Path, plan_cache: Path
) -> None:
    assert build_plans(tmp_path, plan_cache) == 0
    config = read_config(tmp_path / "swap_faces_i420" / "configs" / "rtx.pbtxt")
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert (said["max_width"], said["max_height"], said["max_faces"]) == ("320", "256", "2")
    assert config.max_batch_size == 2
    config = read_config(tmp_path / "face_swapper" / "configs" / "rtx.pbtxt")
    assert config.parameters["max_rows"].string_value == "4"


def test_eight_bits_want_frames_to_calibrate_on(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        "--target", "rtx", "--compute-capability", "8.9", "--precision", "int8",
        "--repository", tmp_path, "--cache", plan_cache, "--models", "face_swapper",
    )  # fmt: skip
    assert code == 1
    said = capsys.readouterr().err
    assert "int8 is calibrated on frames like those to be swapped: give some with --frames" in said


def test_an_identity_swapper_is_calibrated_and_compiled_in_eight_bits(
    tmp_path: Path,
    plan_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in_networks(monkeypatch)
    code = run(
        "--target", "rtx", "--compute-capability", "8.9", "--precision", "int8", "--allow-worse",
        "--swapper", "inswapper_128", "--models", "face_swapper", *SMALL,
        "--repository", tmp_path, "--cache", plan_cache,
    )  # fmt: skip
    assert code == 0
    assert "face_swapper: crop PSNR" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "face_swapper" / "1" / "model.rtx.plan")
    recipe = manifest.recipe
    assert (recipe["precision"], recipe["swapper"]) == ("int8", "inswapper_128")
    assert manifest.fidelity is not None
    # Noise in place of trained weights; what is shown is that the figure is a real one.
    assert 20 < manifest.fidelity["crop_psnr_db"] < 60


def test_a_swapper_without_wide_convolutions_is_not_quantised(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_plans(tmp_path, plan_cache, "--precision", "fp8") == 1
    assert "no convolution that fp8 would speed up: use --precision fp16" in capsys.readouterr().err


def test_more_memory_than_allowed_is_refused(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_plans(tmp_path, plan_cache, "--gpu-memory", "1") == 1
    said = capsys.readouterr().err
    assert "MiB of GPU memory, 1 MiB are allowed (--gpu-memory); the largest is" in said


def test_inspect_shows_layers_and_sizes(
    tmp_path: Path, plan_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_plans(tmp_path, plan_cache) == 0
    capsys.readouterr()
    assert build_plans(tmp_path, plan_cache, "--inspect") == 0
    printed = capsys.readouterr().out
    assert "face_swapper (fp16)" in printed
    assert "HALF" in printed
    assert "model.rtx.plan: " in printed
    assert "swapped_crops: worst" in printed


def test_a_graph_that_strays_too_far_is_not_published_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = typed_graphs.to_fp16

    def careless(model: onnx.ModelProto) -> onnx.ModelProto:
        typed = real(model)
        for tensor in typed.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                array = onnx.numpy_helper.to_array(tensor) * np.float16(1.5)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return typed

    # The first picture is the source. A face swapped onto itself would hide any weight.
    dark = cv2.imread(PORTRAIT[1])[:, ::-1] // 2
    cv2.imwrite(str(tmp_path / "dark.png"), dark)
    monkeypatch.setattr(typed_graphs, "to_fp16", careless)
    root = tmp_path / "repository"
    arguments = ("--target", "cuda", "--repository", root, "--models", "face_swapper")
    arguments += ("--swapper", "image_swapper_256", *PORTRAIT, tmp_path / "dark.png")
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert "face_swapper in fp16 strays too far from fp32: crop PSNR is" in said
    assert not (root / "face_swapper" / "1" / "model.cuda.onnx").exists()
    assert run(*arguments, "--allow-worse") == 0
    record = json.loads((root / "face_swapper" / "1" / "model.cuda.onnx.json").read_text())
    assert record["fidelity"]["misses"]
    # Without the flag the kept file is not good enough the next time either.
    assert run(*arguments) == 1


def test_onnx_runtime_options_reach_the_config(tmp_path: Path) -> None:
    code = run(
        "--target", "cuda", "--repository", tmp_path, "--models", "source_encoder",
        "--threads", "3", "--graph-level", "extended", "--cudnn-search", "HEURISTIC",
        "--arena", "kNextPowerOfTwo", "--gpu-memory", "512", "--instances", "2",
        "--tensorrt-provider", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0
    config = read_config(tmp_path / "face_swapper" / "configs" / "cuda.pbtxt")
    tensorrt, cuda = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(cuda.parameters) == {
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "gpu_mem_limit": str(512 * 2**20),
    }
    cache = str(tmp_path / "cache" / "onnxruntime")
    assert tensorrt.parameters["trt_timing_cache_path"] == cache
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert config.optimization.graph.level == 1
    assert config.instance_group[0].count == 2


def test_limits_that_are_given_hold_for_onnx_runtime_too(tmp_path: Path) -> None:
    arguments = ("--repository", tmp_path, "--models", "source_encoder", "--target", "cuda")
    assert run(*arguments) == 0
    folder = tmp_path / "face_detector_i420" / "configs"
    assert read_config(folder / "cuda.pbtxt").max_batch_size == 16
    limits = ("--batch", "8", "--frame", "1920x1080", "--faces", "3")
    assert run(*arguments, *limits) == 0
    config = read_config(folder / "cuda.pbtxt")
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert (told["max_width"], told["max_height"], told["max_faces"]) == ("1920", "1080", "3")


class StandInTensorRT:
    """NVIDIA TensorRT's place in a build: it makes "plans" on any machine."""

    flavour = "tensorrt"
    version = "10.13.3"
    several_devices = False

    def check_devices(self, compute_capabilities: Sequence[str]) -> None:
        assert len(compute_capabilities) == 1

    def compile(
        self, onnx_bytes: bytes, *, compute_capabilities: Sequence[str], **_: object
    ) -> CompiledPlan:
        data = f"a plan for {compute_capabilities[0]}".encode()
        devices = tuple(compute_capabilities)
        return CompiledPlan(data, "tensorrt", self.version, devices, 0.1, 2**20, 2**20)

    def layers(self, onnx_bytes: bytes) -> list[ParsedLayer]:
        return []


def test_plans_for_several_types_of_gpu_lie_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "choose_compiler", lambda _=None: StandInTensorRT())
    root, cache = tmp_path / "repository", tmp_path / "cache"
    for capability in ("8.9", "9.0"):
        code = run(
            "--target", "tensorrt", "--compute-capability", capability, "--name-by-gpu", *SMALL,
            "--repository", root, "--cache", cache, "--models", "face_swapper",
            "--swapper", "image_swapper_256",
        )  # fmt: skip
        assert code == 0
    config = read_config(root / "face_swapper" / "configs" / "tensorrt.pbtxt")
    names = {"8.9": "model.sm89.plan", "9.0": "model.sm90.plan"}
    assert dict(config.cc_model_filenames) == names
    for capability, name in names.items():
        plan = root / "face_swapper" / "1" / name
        assert plan.read_bytes() == f"a plan for {capability}".encode()
        manifest = read_manifest(plan)
        assert manifest.plan is not None
        assert (manifest.file, manifest.plan.compute_capabilities) == (name, (capability,))
        # NVIDIA's backend hands whole batches over, faces side by side.
        assert manifest.plan.profile["crops"]["max"][:2] == [2, 2]


def test_without_a_gpu_the_default_is_onnx_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "present_compute_capability", lambda: None)
    assert command_line.default_target(()) is DEFAULT_TARGET
    assert command_line.default_target(("8.9",)) is TARGETS["rtx"]


@pytest.mark.parametrize(
    ("arguments", "swapper"),
    [
        (["--target", "cpu"], "frameswap_256_small"),
        (["--target", "cuda"], "frameswap_256"),
        (["--compute-capability", "8.9"], "frameswap_256"),
        (["--target", "cuda", "--swapper", "image_swapper_256"], "image_swapper_256"),
    ],
)
def test_where_no_swapper_is_named_the_target_says_which(
    arguments: list[str], swapper: str
) -> None:
    options = command_line.make_parser("").parse_args(arguments)
    assert command_line.make_request(options).deployment.swapper.name == swapper


def test_frames_may_be_pictures_and_folders(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "odd.png"), np.zeros((101, 203, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [frame.shape for frame in read_frames([tmp_path])] == [(100, 202, 3)]
