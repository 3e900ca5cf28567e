"""The parts of a Python-based backend by themselves: settings, joining, providers, padding."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.backends.common import ModelSettings, RowRule
from server.backends.device import DeviceMemory, limit_rows, padded_sizes, row_padding, warm_inputs
from server.backends.joining import even_slices, group_by_shape, run_joined, run_rows
from server.backends.sessions import (
    accelerators,
    check_providers,
    default_threads,
    load_session,
    provider_entry,
    usable_cores,
)
from server.backends.triton_arrays import HostMemory
from tests.server.tiny_models import invert_network, tint_network

MEMORY = HostMemory(None)
RULE = RowRule(("crops", "source"), ("swapped_crops",), "faces", max_rows=4)


def config(**changes: Any) -> dict[str, Any]:
    """A model configuration as Triton gives it to a backend, parsed."""
    parameters = changes.pop("parameters", {})
    return {
        "name": "model",
        "max_batch_size": 8,
        "input": [{"name": "frame", "data_type": "TYPE_UINT8", "dims": ["-1", "-1", "3"]}],
        "output": [{"name": "inverted_frame", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        **changes,
    }


def read(**changes: Any) -> ModelSettings:
    return ModelSettings.from_config(config(**changes), default_filename="model.onnx")


def tint(inputs: dict[str, np.ndarray], _: int) -> dict[str, np.ndarray]:
    """A network of the row contract, [N, 1, ...], that refuses rows without a face."""
    used = inputs["faces"][:, 0, 4] != 0
    assert (inputs["faces"][:, 1:] == 0).all()
    assert inputs["crops"].shape[:2] == (len(used), 1)
    gain = inputs["source"][..., 0]
    return {"swapped_crops": inputs["crops"] * gain[..., None, None, None] + 1}


@st.composite
def face_requests(draw: st.DrawFn) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    requests = []
    for _ in range(draw(st.integers(1, 6))):
        batch, slots = draw(st.integers(1, 3)), draw(st.integers(1, 5))
        faces = np.zeros((batch, 16, 15), np.float32)
        faces[..., 4] = random.random((batch, 16)) * (random.random((batch, 16)) < 0.6)
        requests.append(
            {
                "crops": random.random((batch, slots, 3, 2, 2), np.float32),
                "source": random.random((batch, slots, 2), np.float32),
                "faces": faces,
            }
        )
    return requests


@settings(max_examples=100, deadline=None)
@given(face_requests(), st.sampled_from([lambda rows: rows, row_padding((1, 2, 4))]))
def test_face_rows_joined_in_any_mixture_are_what_each_gives_alone(
    requests: list[dict[str, np.ndarray]], padded_rows: Any
) -> None:
    shape = (3, 2, 2)
    answers = run_rows(
        requests, RULE, tint, MEMORY, padded_rows=padded_rows, output_shape=lambda *_: shape
    )
    for request, answer in zip(requests, answers, strict=True):
        slots = request["crops"].shape[1]
        expected = request["crops"] * request["source"][..., 0][..., None, None, None] + 1
        expected[request["faces"][:, :slots, 4] == 0] = 0
        np.testing.assert_array_equal(answer["swapped_crops"], expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=40).map(sorted))
def test_positions_in_even_steps_are_taken_in_one_slice(positions: list[int]) -> None:
    found = [place for part in even_slices(positions) for place in range(100)[part]]
    assert found == positions


@pytest.mark.parametrize(
    ("positions", "count"), [(range(0, 64, 4), 1), (range(16), 1), ([0, 1, 2, 8, 12, 16], 2)]
)
def test_the_first_slot_of_every_frame_is_one_slice(positions: list[int], count: int) -> None:
    assert len(even_slices(positions)) == count


class _Pointer:
    """CuPy's view of an array's memory, here the host's."""

    def __init__(self, array: np.ndarray) -> None:
        self.ptr = array.ctypes.data

    def copy_from_device_async(self, source: _Pointer, size: int, stream: Any) -> None:
        ctypes.memmove(self.ptr, source.ptr, size)

    def memset_async(self, value: int, size: int, stream: Any) -> None:
        ctypes.memset(self.ptr, value, size)


class _OnDevice(np.ndarray):
    @property
    def data(self) -> _Pointer:  # type: ignore[override]
        return _Pointer(self)


def _copy_rows(
    target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int,
    kind: int, stream: int,
) -> None:  # fmt: skip
    """cudaMemcpy2DAsync in host memory, which refuses what CUDA refuses."""
    assert width <= min(target_pitch, source_pitch)
    for row in range(rows):
        ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> DeviceMemory:
    """A `DeviceMemory` on the host: CuPy's names, of NumPy."""
    stream = SimpleNamespace(ptr=1, synchronize=lambda: None)
    runtime = SimpleNamespace(memcpy2DAsync=_copy_rows, memcpyDeviceToDevice=3)
    cuda = SimpleNamespace(
        Device=lambda _: SimpleNamespace(use=lambda: None),
        Stream=lambda non_blocking, priority: stream, runtime=runtime,
    )  # fmt: skip
    cupy = SimpleNamespace(
        cuda=cuda,
        empty=lambda shape, dtype: np.full(shape, np.nan, dtype).view(_OnDevice),
        zeros=lambda shape, dtype: np.zeros(shape, dtype).view(_OnDevice),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return DeviceMemory(None, 0)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=face_requests())
def test_a_devices_copies_of_rows_are_the_hosts(
    device: DeviceMemory, requests: list[dict[str, np.ndarray]]
) -> None:
    """Whole rows, rows that lie apart, and rows of the mask: what is copied is what was asked."""

    def update(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        faces = inputs["faces"].copy()
        faces[:, 0, 5:] += inputs["source"][:, 0, :1]
        made = {"swapped_crops": inputs["crops"] + 1, "faces": faces}
        return {name: array.view(type(inputs["faces"])) for name, array in made.items()}

    rule = replace(RULE, updated=("faces",))
    on_device = [
        {name: array.view(_OnDevice) for name, array in request.items()} for request in requests
    ]
    answers, expected = (
        run_rows(asked, rule, update, memory, padded_rows=row_padding((1, 2, 4)),
                 output_shape=lambda *_: (3, 2, 2))
        for asked, memory in ((on_device, device), (requests, MEMORY))
    )  # fmt: skip
    for answer, wanted in zip(answers, expected, strict=True):
        assert set(answer) == set(wanted) == {"swapped_crops", "faces"}
        for name, array in wanted.items():
            np.testing.assert_array_equal(answer[name], array)


def test_a_side_stream_takes_turns_with_the_memorys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is behind what its stream was given, and holds up what another is given next."""
    done: list[str] = []

    class Stream:
        def __init__(self, *, non_blocking: bool, priority: int) -> None:
            assert non_blocking, "the default stream would wait for it"
            self.name, self.priority, self.ptr = f"stream {priority}", priority, 10 + priority

        def wait_event(self, event: Event) -> None:
            done.append(f"{self.name} waits for {event.at}")

    class Event:
        def __init__(self, *, disable_timing: bool) -> None:
            self.at = "nothing"

        def record(self, stream: Stream) -> None:
            self.at = f"{stream.name} so far"

    device = SimpleNamespace(use=lambda: None)
    cuda = SimpleNamespace(Device=lambda _: device, Stream=Stream, Event=Event)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    memory = DeviceMemory(None, 0)
    side = memory.side_stream()
    assert memory.stream_ptr == 5, "CUDA's higher priorities are the lower numbers"
    assert side.ptr == 10
    with side:
        done.append("run")
    turns = ["stream 0 waits for stream -5 so far", "run", "stream -5 waits for stream 0 so far"]
    assert done == turns
    with pytest.raises(RuntimeError), side:
        raise RuntimeError
    assert done == [*turns, turns[0], turns[2]], "what follows a failed run waits all the same"


SHARED = RowRule(
    ("views",), ("points",), "detections", max_rows=4, shared=("options",), updated=("faces",)
)


@settings(max_examples=60, deadline=None)
@given(face_requests(), st.sampled_from([lambda rows: rows, row_padding((1, 2, 4))]))
def test_rows_have_their_own_frames_options_and_update_their_own_faces(
    requests: list[dict[str, np.ndarray]], padded_rows: Any
) -> None:
    given_rows = []
    for index, request in enumerate(requests):
        batch = len(request["faces"])
        options = np.full((batch, 3), index, np.float32)
        options += np.arange(batch, dtype=np.float32)[:, None] / 8
        detections = request["faces"]
        given_rows.append({"views": request["crops"], "detections": detections, "options": options})

    def refine(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        mark = inputs["options"][:, :1, None]
        made = inputs["detections"].copy()
        made[:, 0, 5:] = mark[:, 0]
        return {"points": inputs["views"] + mark[..., None, None], "faces": made}

    answers = run_rows(
        given_rows, SHARED, refine, MEMORY, padded_rows=padded_rows,
        output_shape=lambda *_: (3, 2, 2),
    )  # fmt: skip
    for request, answer in zip(given_rows, answers, strict=True):
        batch, slots = request["views"].shape[:2]
        expected = request["detections"].copy()
        points = np.zeros_like(request["views"])
        for b in range(batch):
            for k in range(slots):
                if request["detections"][b, k, 4] != 0:
                    expected[b, k, 5:] = request["options"][b, 0]
                    points[b, k] = request["views"][b, k] + request["options"][b, 0]
        np.testing.assert_array_equal(answer["faces"], expected)
        np.testing.assert_array_equal(answer["points"], points)
        # The request's own memory is given back when it is answered.
        assert not np.shares_memory(answer["faces"], request["detections"])


def test_an_output_that_nobody_reads_is_not_made() -> None:
    def half(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        return {"points": inputs["views"]}

    faces = np.zeros((1, 16, 15), np.float32)
    faces[0, 0, 4] = 1
    views, options = np.ones((1, 2, 3, 2, 2), np.float32), np.zeros((1, 3), np.float32)
    request = {"views": views, "detections": faces, "options": options}
    (answer,) = run_rows([request], SHARED, half, MEMORY, output_shape=lambda *_: (3, 2, 2))
    assert set(answer) == {"points"}


def test_no_face_at_all_means_no_run() -> None:
    def never(*_: object) -> dict[str, np.ndarray]:
        raise AssertionError("the network ran without a face")

    request = {
        "crops": np.ones((1, 2, 3, 2, 2), np.float32),
        "source": np.ones((1, 2, 2), np.float32),
        "faces": np.zeros((1, 16, 15), np.float32),
    }
    (answer,) = run_rows([request], RULE, never, MEMORY, output_shape=lambda *_: (3, 4, 4))
    assert answer["swapped_crops"].shape == (1, 2, 3, 4, 4)
    assert not answer["swapped_crops"].any()


def test_a_single_full_request_reaches_the_network_without_a_copy() -> None:
    crops = np.ones((1, 2, 3, 2, 2), np.float32)
    faces = np.zeros((1, 16, 15), np.float32)
    faces[0, :2, 4] = 1
    seen = []

    def remember(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        seen.append(inputs["crops"])
        return tint(inputs, rows)

    request = {"crops": crops, "source": np.ones((1, 2, 2), np.float32), "faces": faces}
    run_rows([request], RULE, remember, MEMORY, output_shape=lambda *_: (3, 2, 2))
    assert np.shares_memory(seen[0], crops)


def test_batch_rows_are_padded_and_the_padding_is_not_answered() -> None:
    parts = [np.full((rows, 2), rows, np.float32) for rows in (1, 2)]
    shapes = []

    def double(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        shapes.append((inputs["x"].shape, rows))
        return {"y": inputs["x"] * 2}

    answers = run_joined(
        [{"x": part} for part in parts], double, MEMORY, padded_rows=row_padding((1, 2, 4, 8))
    )
    assert shapes == [((4, 2), 3)]
    for part, answer in zip(parts, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], part * 2)


def test_requests_are_grouped_by_shape_and_never_beyond_the_largest_batch() -> None:
    small, large = {"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}
    assert group_by_shape([small, large, small], 8) == [[0, 2], [1]]
    assert group_by_shape([small] * 5, 2) == [[0, 1], [2, 3], [4]]


def test_what_one_client_sends_as_a_batch_stays_one_run() -> None:
    assert group_by_shape([{"x": np.zeros((1, 2))}] * 3, 1) == [[0], [1], [2]]
    assert group_by_shape([{"x": np.zeros((4, 2))}], 1) == [[0]]


def test_an_input_that_is_not_aligned_is_copied_and_others_are_views() -> None:
    raw = np.zeros(65, np.uint8)
    floats = np.ndarray((4, 4), np.float32, raw.data, offset=1)
    pixels = np.ndarray((8, 8), np.uint8, raw.data, offset=1)
    assert not floats.flags.aligned
    viewed = MEMORY.view(floats)
    assert viewed.flags.aligned
    assert not np.shares_memory(viewed, raw)
    assert np.shares_memory(MEMORY.view(pixels), raw)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"passthrough": "copy"}, "passthrough entry 'copy' must read output=input"),
        ({"option_ranges": "order=0-7"}, "entry 'order=0-7' must read name=lowest..highest"),
        ({"option_ranges": "order=a..b"}, r"entry 'order=a..b' must read"),
        (
            {"row_inputs": "a", "row_mask": "b", "row_outputs": "c", "max_rows": "0"},
            "max_rows must be a whole number from 1, and is '0'",
        ),
        ({"max_faces": "few"}, "max_faces of model model must be a whole number, and is 'few'"),
        ({"row_inputs": "crops", "row_mask": "faces"}, "row_outputs, max_rows is not; set all"),
    ],
)
def test_parameters_that_cannot_be_read_are_named(
    parameters: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(parameters=parameters)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (6, (1, 2, 4, 6))]
)
def test_padded_sizes_are_powers_of_two_up_to_the_largest_batch(
    largest: int, sizes: tuple[int, ...]
) -> None:
    found = padded_sizes(read(max_batch_size=largest))
    assert found == sizes
    assert [row_padding(found)(rows) for rows in (1, largest)] == [1, largest]


def test_face_rows_on_a_device_are_run_sixteen_at_most() -> None:
    rows = {"row_inputs": "crops", "row_outputs": "out", "row_mask": "faces", "max_rows": "128"}
    assert padded_sizes(limit_rows(read(parameters=rows))) == (1, 2, 4, 8, 16)


def test_a_warm_up_shows_the_network_a_face_in_every_row() -> None:
    rows = {"row_inputs": "crops", "row_outputs": "out", "row_mask": "faces", "max_rows": "8"}
    tensors = [
        {"name": "crops", "data_type": "TYPE_FP32", "dims": [-1, 3, 4, 4]},
        {"name": "faces", "data_type": "TYPE_FP32", "dims": [16, 15]},
    ]
    inputs = warm_inputs(read(input=tensors, parameters=rows), 4, MEMORY)  # type: ignore[arg-type]
    assert inputs["crops"].shape == (4, 1, 3, 4, 4)
    assert (inputs["faces"][:, 0, 4] == 1).all()
    shapes: list[dict[str, tuple[int, ...]]] = []

    def note(inputs: dict[str, np.ndarray], _: int) -> dict[str, np.ndarray]:
        shapes.append({name: array.shape for name, array in inputs.items()})
        return {"out": inputs["crops"]}

    # Whatever K a config fixes (the landmark network's is 4), one row a face is what is run.
    slots = [{**tensors[0], "dims": [4, 3, 4, 4]}, tensors[1]]
    settings = read(input=slots, parameters=rows)
    faces = np.zeros((4, 16, 15), np.float32)
    faces[:, 0, 4] = 0.9
    asked = {"crops": np.zeros((4, 4, 3, 4, 4), np.float32), "faces": faces}
    assert settings.rows is not None
    run_rows([asked], settings.rows, note, MEMORY, output_shape=lambda *_: (3, 4, 4))
    warm = warm_inputs(settings, 4, MEMORY)  # type: ignore[arg-type]
    assert shapes == [{name: array.shape for name, array in warm.items()}]
    frames = warm_inputs(read(parameters={"frame_format": "bgr"}), 2, MEMORY)  # type: ignore[arg-type]
    assert frames["frame"].shape == (2, 64, 96, 3)
    assert frames["frame"].dtype == np.uint8


def test_numbers_of_nvidias_backend_become_onnx_runtimes_words() -> None:
    parameters = {
        "cudnn_conv_algo_search": "0",
        "arena_extend_strategy": "1",
        "gpu_mem_limit": "4096",
        "prefer_nhwc": "1",
    }
    name, options = provider_entry("cuda", parameters, 1, 77)
    assert name == "CUDAExecutionProvider"
    assert options == {
        "device_id": "1",
        "user_compute_stream": "77",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "4096",
        "prefer_nhwc": "1",
    }
    name, options = provider_entry(
        "tensorrt", {"precision_mode": "FP16", "max_workspace_size_bytes": "5"}, 0, 1
    )
    assert name == "TensorrtExecutionProvider"
    assert options["trt_fp16_enable"] == "1"
    assert options["trt_max_workspace_size"] == "5"


def test_a_missing_provider_is_named_with_the_package_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    optimization = {
        "execution_accelerators": {"gpu_execution_accelerator": [{"name": "cuda"}]},
    }
    entries = accelerators(read(optimization=optimization))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=r"no CUDAExecutionProvider .*install onnxruntime-gpu"):
        check_providers(entries, on_gpu=True)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    check_providers(entries, on_gpu=True)
    with pytest.raises(ValueError, match="'cuda' needs KIND_GPU"):
        check_providers(entries, on_gpu=False)


def test_session_options_come_from_the_config(tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(invert_network(4, with_options=False).SerializeToString())
    session = load_session(
        path,
        read(
            parameters={
                "intra_op_thread_count": "1",
                "inter_op_thread_count": "2",
                "execution_mode": "1",
                "enable_mem_arena": "0",
                "enable_mem_pattern": "0",
                "session.disable_prepacking": "1",
            },
            optimization={"graph": {"level": -1}},
        ),
        ["CPUExecutionProvider"],
    )
    options = session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 2
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)]
)
def test_threads_stay_within_a_containers_quota(
    tmp_path: Any, text: str, cores: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    own = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "cpu.max") == (own if cores is None else cores)
    assert usable_cores(tmp_path / "no such file") == own


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (64, 32)])
def test_a_model_leaves_half_of_the_cores_to_the_others(cores: int, threads: int) -> None:
    assert default_threads(cores) == threads


def test_a_network_without_the_configs_outputs_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tint_network().SerializeToString())
    with pytest.raises(ValueError, match="has no output inverted_frame; build it again"):
        load_session(path, read(), ["CPUExecutionProvider"])
