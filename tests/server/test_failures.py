"""What engines say when a GPU fails, and what becomes of the requests: texts copied from engines.

The texts are those of ONNX Runtime 1.31 (core/framework/bfc_arena.cc, cuda_call.cc), CuPy 14
(cupy/cuda/memory.pyx, cupy_backends/cuda/api/runtime.pyx) and TensorRT's log.
"""

from __future__ import annotations

import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from server.backends import failures, serving
from server.backends.common import ModelSettings
from server.backends.failures import explain, is_fatal, is_out_of_memory
from server.backends.serving import RequestLoop
from server.backends.triton_arrays import HostMemory

Fail = ort.capi.onnxruntime_pybind11_state.Fail
RuntimeException = ort.capi.onnxruntime_pybind11_state.RuntimeException

ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
    "Conv node. Name:'/layers/Conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/"
    "bfc_arena.cc:{line} void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
    "onnxruntime::Stream*) {told}\n"
)
REFUSED = ARENA.format(
    line=376, told="Failed to allocate memory for requested buffer of size 3221225472"
)
LIMITED = ARENA.format(
    line=376, told="Available memory of 65536 is smaller than requested bytes of 73728"
)
CUDA_CALL = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure {number}: {told} ; GPU=0 ; hostname=host ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_stream_handle.cc ; line=50 ; "
    "expr=cudaStreamSynchronize(static_cast<cudaStream_t>(GetHandle())); "
)


class OutOfMemoryError(MemoryError):
    """`cupy.cuda.memory.OutOfMemoryError`."""


class CUDARuntimeError(RuntimeError):
    """`cupy_backends.cuda.api.runtime.CUDARuntimeError`."""


CUPY_REFUSED = OutOfMemoryError(
    "Out of memory allocating 67,108,864 bytes (allocated so far: 1,024 bytes)."
)
CUPY_ILLEGAL = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

OUT_OF_MEMORY = {
    "the arena, refused by the device": (RuntimeException(REFUSED), "3.2 GB more were needed"),
    "cudaMalloc": (
        RuntimeException(CUDA_CALL.format(number=2, told="out of memory")),
        "CUDA failure 2: out of memory",
    ),
    "cuBLAS": (
        RuntimeException("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=host"),
        "CUBLAS_STATUS_ALLOC_FAILED",
    ),
    "cuDNN 9": (
        RuntimeException("CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_"
            "DEVICE_ALLOCATION_FAILED"),
        "DEVICE_ALLOCATION_FAILED",
    ),
    "CuPy's pool": (CUPY_REFUSED, "67.1 MB more were needed"),
    "CuPy's calls": (CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"), "out of memory"),
    "TensorRT": (
        RuntimeError("[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was "
                     "1073741824 bytes.)"),
        "1.1 GB more were needed",
    ),
}  # fmt: skip

FATAL = {
    "an illegal access": RuntimeException(
        CUDA_CALL.format(number=700, told="an illegal memory access was encountered")
    ),
    "a failed launch": RuntimeException(
        CUDA_CALL.format(number=719, told="unspecified launch failure")
    ),
    "a number alone": RuntimeException("CUDA failure 716: ; GPU=0"),
    "CuPy": CUPY_ILLEGAL,
    "the driver": RuntimeError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
    "TensorRT": RuntimeError(
        "[genericReformat.cuh] Error Code 1: Cuda Runtime (an illegal memory access was "
        "encountered)"
    ),
    "MPS, by number": RuntimeException(
        CUDA_CALL.format(number=807, told="the MPS server is not ready")
    ),
    "MPS, by name": CUDARuntimeError(
        "cudaErrorMpsClientTerminated: the MPS client has been terminated"
    ),
    "broken memory": RuntimeException(
        CUDA_CALL.format(number=214, told="uncorrectable ECC error encountered")
    ),
}


@pytest.mark.parametrize(("error", "told"), OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_full_gpu_is_named_with_what_to_lower(error: Exception, told: str) -> None:
    sentence = explain(error, 1)
    assert sentence.startswith("GPU 1 is out of memory: ")
    assert told in sentence
    assert "lower the frame size, max_batch_size or the number of instances" in sentence
    assert "\n" not in sentence
    assert is_out_of_memory(error)
    assert not is_fatal(error)


def test_a_limit_that_is_too_low_is_named_with_both_sizes() -> None:
    sentence = explain(RuntimeException(LIMITED), 0)
    assert sentence == (
        "the model's memory limit leaves it 0.0655 MB, and 0.0737 MB more were needed; raise "
        "gpu_mem_limit in its config, or send smaller frames"
    )
    assert is_out_of_memory(RuntimeException(LIMITED))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeException(REFUSED), "3.2 GB more were needed"),
        (MemoryError("Unable to allocate 1.46 TiB for an array with shape (4,)"), "1.46 TiB more"),
        (RuntimeException("[ONNXRuntimeError] : 6 : std::bad_alloc"), "bad_alloc"),
    ],
)
def test_a_full_host_is_not_taken_for_a_gpu(error: Exception, told: str) -> None:
    sentence = explain(error)
    assert sentence.startswith("the server's machine is out of memory: ")
    assert told in sentence


@pytest.mark.parametrize("error", FATAL.values(), ids=FATAL)
def test_an_error_after_which_cuda_refuses_all_work_is_known_as_that(error: Exception) -> None:
    assert is_fatal(error)
    assert not is_out_of_memory(error)
    assert "GPU 2 failed (" in explain(error, 2)
    assert "this process cannot use it any more" in explain(error, 2)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeException(CUDA_CALL.format(number=1, told="invalid argument")),
        RuntimeException(CUDA_CALL.format(number=701, told="too many resources requested")),
        RuntimeException("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions"),
        ValueError("the input has 700 rows"),
    ],
)
def test_any_other_error_is_passed_on_as_it_is(error: Exception) -> None:
    assert not is_fatal(error)
    assert not is_out_of_memory(error)
    assert explain(error, 0) == " ".join(str(error).split())


def test_an_error_without_a_text_is_named_by_its_type() -> None:
    assert explain(KeyError()) == "KeyError"


def test_the_real_arena_says_what_is_looked_for() -> None:
    # The CPU provider has the same arena; 4e18 bytes are refused on every machine.
    session = _session_that_expands()
    with pytest.raises(
        (Fail, RuntimeException), match="Failed to allocate memory for requested"
    ) as caught:
        session.run(None, {"shape": np.array([1 << 30, 1 << 30], np.int64)})
    assert is_out_of_memory(caught.value)
    assert explain(caught.value).startswith("the server's machine is out of memory: ")


def _session_that_expands() -> ort.InferenceSession:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["y"])],
        "expand",
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def test_a_process_that_is_to_end_answers_first_and_is_gone_soon_after() -> None:
    code = (
        "import time\nfrom server.backends.failures import end_soon\n"
        "end_soon()\nprint('answered', flush=True)\ntime.sleep(60)\n"
    )
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "answered\n"
    assert ended.returncode == failures.EXIT_STATUS
    assert time.monotonic() - begun < 30


class Device(HostMemory):
    """Host memory that fails as a device does: what is in `fails` raises when it is called."""

    device_id = 0

    def __init__(self, **fails: Exception) -> None:
        super().__init__(None)
        self.fails = fails

    def _fail(self, call: str, array: Any = None) -> None:
        # An array that starts with 13 is the one that there is no room for.
        if call in self.fails and (array is None or array.flat[0] == 13):
            raise self.fails[call]

    def begin(self) -> None:
        self._fail("begin")

    def view(self, tensor: Any) -> Any:
        self._fail("view", tensor.values)
        return tensor.values

    def place(self, array: Any) -> Any:
        self._fail("place", array)
        return array

    def write(self, name: str, array: Any) -> Any:
        self._fail("write", array)
        return SimpleNamespace(name=name, values=array)

    def finish(self) -> None:
        self._fail("finish")


class Plus:
    """A network of y = x + 0 that fails for a batch with a 13 in it."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.runs = 0

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> dict[str, Any]:
        self.runs += 1
        if self.fails is not None and (inputs["x"] == 13).any():
            raise self.fails
        return {"y": inputs["x"]}


class TritonError:
    INVALID_ARG, INTERNAL, CANCELLED = "invalid argument", "internal", "cancelled"

    def __init__(self, text: str, code: str) -> None:
        self.text, self.code = text, code


class Loop:
    """A request loop with everything around it that can be looked at."""

    def __init__(self, *, network: Plus | None = None, **fails: Exception) -> None:
        self.logged: list[str] = []
        self.ended = 0
        utils = SimpleNamespace(
            TritonError=TritonError,
            InferenceResponse=lambda tensors, error=None: error or tensors[0].values,
            Logger=SimpleNamespace(log_error=self.logged.append),
        )
        tensor = {"data_type": "TYPE_FP32", "dims": [2]}
        config = {
            "name": "swapper",
            "max_batch_size": 8,
            "input": [{"name": "x", **tensor}],
            "output": [{"name": "y", **tensor}],
        }
        settings = ModelSettings.from_config(config, default_filename="model.onnx")
        self.network = network or Plus()
        self._loop = RequestLoop(
            settings, self.network, Device(**fails), utils, end_process=self._end
        )

    def _end(self) -> None:
        self.ended += 1

    def answer(self, *values: float, cancelled: Sequence[float] = ()) -> list[Any]:
        """One request a value; return its number, or the error's text."""
        requests = [_request(value, cancelled=value in cancelled) for value in values]
        answers = self._loop.execute(requests)
        return [a.text if isinstance(a, TritonError) else float(a[0, 0]) for a in answers]


def _request(value: float, *, cancelled: bool = False) -> Any:
    values = np.full((1, 2), value, np.float32)
    tensor = SimpleNamespace(name=lambda: "x", values=values)
    return SimpleNamespace(
        inputs=lambda: [tensor],
        requested_output_names=lambda: ["y"],
        is_cancelled=lambda: cancelled,
    )


FULL = "swapper could not run this request: GPU 0 is out of memory: "


def test_a_request_that_was_given_up_is_not_run() -> None:
    loop = Loop()
    told = "the client gave the request up"
    assert loop.answer(1, 2, 3, cancelled=(1, 3)) == [told, 2, told]
    assert loop.network.runs == 1
    assert loop.answer(4, cancelled=(4,)) == [told]
    assert loop.network.runs == 1


@pytest.mark.parametrize("where", ["view", "place", "write"])
def test_a_request_that_the_device_has_no_room_for_fails_alone(where: str) -> None:
    loop = Loop(**{where: CUPY_REFUSED})
    first, full, last = loop.answer(1, 13, 2)
    assert (first, last) == (1, 2)
    assert full.startswith(FULL + "67.1 MB more were needed; lower ")
    assert loop.answer(3) == [3]
    assert loop.ended == 0


def test_a_batch_without_room_is_tried_request_by_request() -> None:
    loop = Loop(network=Plus(RuntimeException(REFUSED)))
    first, full, last = loop.answer(1, 13, 2)
    assert (first, last) == (1, 2)
    assert full.startswith(FULL + "3.2 GB more were needed")
    assert loop.network.runs == 4
    assert loop.ended == 0


def test_a_device_that_fails_for_good_is_tried_once_and_the_process_ends() -> None:
    loop = Loop(network=Plus(FATAL["an illegal access"]))
    answers = loop.answer(1, 13, 2)
    assert loop.network.runs == 1
    assert all("GPU 0 failed (" in str(answer) for answer in answers)
    assert loop.ended > 0
    assert "CUDA failure 700" in loop.logged[0]


def test_what_was_joined_is_let_go_before_a_batch_is_tried_request_by_request() -> None:
    class Watching(Plus):
        def __init__(self) -> None:
            super().__init__()
            self.joined: list[weakref.ref[Any]] = []
            self.kept: list[bool] = []

        def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], rows: int) -> Any:
            self.kept.append(any(array() is not None for array in self.joined))
            if len(inputs["x"]) > 1:
                self.joined.append(weakref.ref(inputs["x"]))
                raise RuntimeException(REFUSED)  # an error kept elsewhere would keep its frames
            return super().run(inputs, outputs, rows)

    network = Watching()
    Loop(network=network).answer(1, 13)
    assert network.kept == [False, False, False]


def test_a_device_that_another_process_broke_is_noticed_at_the_next_batch() -> None:
    loop = Loop(begin=FATAL["MPS, by name"])
    answers = loop.answer(1, 2)
    assert all("GPU 0 failed (" in str(answer) for answer in answers)
    assert loop.ended > 0
    assert loop.network.runs == 0


def test_frames_that_a_gpu_cannot_count_together_run_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_JOINED_BYTES", 3 * 8)
    loop = Loop()
    assert loop.answer(1, 2, 3, 4) == [1, 2, 3, 4]
    assert loop.network.runs == 2  # 8 bytes a row, three fit: batches are padded to powers of two
    monkeypatch.setattr(serving, "MOST_JOINED_BYTES", 7)
    assert "may have 7 bytes on a GPU, and has 8" in loop.answer(1)[0]


def test_an_error_that_comes_to_light_at_the_end_leaves_no_answer_of_the_batch() -> None:
    loop = Loop(finish=CUPY_ILLEGAL)
    answers = loop.answer(1, 2)
    assert all("cudaErrorIllegalAddress" in str(answer) for answer in answers)
    assert loop.ended > 0


def test_a_cpu_model_does_not_end_for_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "device_id", None)
    loop = Loop(network=Plus(RuntimeError("misaligned address")))
    assert loop.answer(13) == ["swapper could not run this request: misaligned address"]
    assert loop.ended == 0
