"""The device part of the `tensorrt` backend on a real GPU: streams, addresses, CUDA graphs.

TensorRT itself is a stand-in here, a kernel that computes y = x + 1 on raw addresses and the given
stream, so that this runs wherever CuPy does.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.backends.device import DeviceMemory
from server.backends.tensorrt_network import CAPTURE_AFTER, TensorRTNetwork, make_log
from tests.server.test_tensorrt_backend import Context, Engine, load_backend, make_trt

pytestmark = pytest.mark.gpu


class DeviceContext(Context):
    """y = x + 1 on device addresses, put on the stream that it is given."""

    def __init__(self, cupy: ModuleType) -> None:
        super().__init__()
        self.cupy = cupy
        self.add_one = cupy.RawKernel(
            r"""extern "C" __global__ void add_one(const float* x, float* y, int count) {
                int i = blockIdx.x * blockDim.x + threadIdx.x;
                if (i < count) y[i] = x[i] + 1.0f;
            }""",
            "add_one",
        )
        self.waits = False

    def execute_async_v3(self, stream: int) -> bool:
        assert self.cupy.cuda.get_current_stream().ptr == stream, "buffers are copied elsewhere"
        count = np.int32(np.prod(self.shapes["x"]))
        self.add_one((1,), (64,), (self.addresses["x"], self.addresses["y"], count))
        self.runs += 1
        if self.waits:  # as a plan does whose loop counts on data
            try:
                self.cupy.cuda.runtime.streamSynchronize(stream)
            except self.cupy.cuda.runtime.CUDARuntimeError:
                return False
        return self.works


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    import cupy

    backend = load_backend(monkeypatch)
    memory = DeviceMemory(object, 0)
    memory.begin()
    trt, context = make_trt(), DeviceContext(cupy)
    network = TensorRTNetwork(
        "face_swapper", trt, Engine(), context, memory, make_log(trt), backend.capture_graph
    )
    return SimpleNamespace(
        cupy=cupy, backend=backend, memory=memory, context=context, network=network
    )


def test_a_captured_graph_replays_on_new_inputs(device: Any) -> None:
    kept = []
    for turn in range(CAPTURE_AFTER + 5):
        x = device.cupy.full((2, 3), turn, dtype="float32")
        kept.append(device.network.run({"x": x}, ["y"], 2)["y"])
    device.memory.finish()
    # Three plain runs, one that warms the capture's buffers, one captured; the rest are replays.
    assert device.context.runs == CAPTURE_AFTER + 2
    for turn, y in enumerate(kept):
        np.testing.assert_array_equal(y.get(), np.full((2, 3), turn + 1, np.float32))


def test_two_captured_shapes_keep_apart(device: Any) -> None:
    for turn in range(CAPTURE_AFTER + 3):
        for width in (2, 4):
            x = device.cupy.full((1, width), turn * width, dtype="float32")
            y = device.network.run({"x": x}, ["y"], 1)["y"]
            device.memory.finish()
            np.testing.assert_array_equal(y.get(), [[turn * width + 1] * width])


@pytest.mark.parametrize("how", ["waits", "fails"])
def test_a_plan_that_cannot_be_captured_runs_on_without_graphs(device: Any, how: str) -> None:
    capturing = device.cupy.cuda.get_current_stream().is_capturing
    if how == "waits":
        device.context.waits = True
    else:
        real = device.context.execute_async_v3
        device.context.execute_async_v3 = lambda stream: real(stream) and not capturing()
    for turn in range(CAPTURE_AFTER + 4):
        x = device.cupy.full((1, 2), turn, dtype="float32")
        y = device.network.run({"x": x}, ["y"], 1)["y"]
        device.memory.finish()
        np.testing.assert_array_equal(y.get(), [[turn + 1] * 2])
    assert device.context.runs >= CAPTURE_AFTER + 4


def test_the_device_is_described_as_plans_name_it(device: Any) -> None:
    name, compute_capability = device.backend.describe_device(0)
    assert name.startswith("NVIDIA")
    assert device.cupy.cuda.Device(0).compute_capability == compute_capability.replace(".", "")
    assert "cupy" in sys.modules
