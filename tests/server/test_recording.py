"""Recorded runs without a GPU: what a driver says of a graph's nodes, and CUDA's names, of NumPy.

What is recorded here are the launches themselves, as CUDA does it: addresses, not values. That
ONNX Runtime's runs can be recorded is shown by `bench.gpu_graphs`, and that they are right by
`bench.gpu` ("GPU against CPU").
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.backends import recording
from server.backends.device import DeviceMemory
from server.backends.recording import NotReplayable, check_nodes


@dataclass
class FakeDriver:
    """libcuda's functions that look at a graph.

    nodes: kind of each; copies: (memory type of the source, of the target) of its copies; plain:
    device addresses that the driver does not know.
    """

    nodes: list[int]
    copies: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    plain: frozenset[int] = frozenset()

    def cuGraphGetNodes(self, graph: Any, nodes: Any, count: Any) -> int:
        count._obj.value = len(self.nodes)
        if nodes is not None:
            for index in range(len(self.nodes)):
                nodes[index] = index + 1
        return 0

    def cuGraphNodeGetType(self, node: Any, kind: Any) -> int:
        kind._obj.value = self.nodes[node.value - 1]
        return 0

    def cuGraphMemcpyNodeGetParams(self, node: Any, copy: Any) -> int:
        source, target = self.copies[node.value - 1]
        copy._obj.source.memory_type, copy._obj.target.memory_type = source, target
        copy._obj.source.device, copy._obj.target.device = 100, 200
        return 0

    def cuPointerGetAttribute(self, answer: Any, attribute: int, pointer: Any) -> int:
        if pointer.value in self.plain:
            return 1
        answer._obj.value = recording.DEVICE_MEMORY
        return 0


def test_a_copys_description_is_laid_out_as_the_drivers() -> None:
    """CUDA_MEMCPY3D of cuda.h on a 64-bit machine: 200 bytes, the second end at 88."""
    assert ctypes.sizeof(recording._Copy) == 200
    assert recording._Copy.target.offset == 88
    assert recording._End.device.offset == 48


DEVICE, HOST, UNIFIED = (
    recording.DEVICE_MEMORY, recording.HOST_MEMORY, recording.UNIFIED_MEMORY
)  # fmt: skip


def test_kernels_and_copies_within_the_device_may_be_replayed() -> None:
    nodes = [recording.KERNEL, recording.MEMCPY, recording.MEMSET, recording.MEMCPY]
    driver = FakeDriver(nodes, {1: (DEVICE, DEVICE), 3: (UNIFIED, UNIFIED)})
    assert check_nodes(7, driver) == 4


@pytest.mark.parametrize("ends", [(HOST, DEVICE), (DEVICE, HOST), (UNIFIED, DEVICE)])
def test_a_copy_from_or_to_the_host_may_not(ends: tuple[int, int]) -> None:
    driver = FakeDriver([recording.KERNEL, recording.MEMCPY], {1: ends}, frozenset({100}))
    with pytest.raises(NotReplayable, match="copies from or to the host"):
        check_nodes(7, driver)


def test_a_call_of_the_host_may_not_be_replayed() -> None:
    with pytest.raises(NotReplayable, match="node of type 3"):
        check_nodes(7, FakeDriver([recording.KERNEL, 3]))


class Stream:
    """Runs what is put on it at once, or records it."""

    ptr = 1

    def __init__(self, **_: Any) -> None:
        self.recorded: list[Callable[[], None]] | None = None

    def put(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def synchronize(self) -> None:
        assert self.recorded is None, "CUDA refuses to wait while it records"

    def begin_capture(self) -> None:
        self.recorded = []

    def end_capture(self) -> Any:
        works, self.recorded = self.recorded, None
        assert works is not None
        return SimpleNamespace(graph=5, launch=lambda stream: [stream.put(work) for work in works])


class OnDevice(np.ndarray):
    """CuPy's arrays: memory with an address that copies go to."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        def copy(source: Any, size: int, stream: Stream) -> None:
            stream.put(lambda: ctypes.memmove(self.ctypes.data, source.ptr, size))

        return SimpleNamespace(ptr=self.ctypes.data, copy_from_device_async=copy)


class Session:
    """ONNX Runtime's: doubles `x` [b, ...], `rows` named; counts what it launches by itself."""

    launches = 0

    def __init__(self, stream: Stream, named: dict[str, int]) -> None:
        self._stream, self.named = stream, named

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=["rows", 3])]

    def io_binding(self) -> Any:
        bound: dict[str, Any] = {}
        made: list[np.ndarray] = []

        def bind(name: str, device: str, number: int, *place: Any) -> None:
            bound[name] = place

        def value() -> list[Any]:
            (array,) = made
            return [SimpleNamespace(
                data_ptr=lambda: array.ctypes.data, shape=lambda: list(array.shape),
                data_type=lambda: "tensor(float)", array=array,
            )]  # fmt: skip

        return SimpleNamespace(
            bound=bound, made=made, bind_input=bind, bind_output=bind, get_outputs=value
        )

    def run_with_iobinding(self, binding: Any, _: Any) -> None:
        _, shape, source = binding.bound["x"]
        if not binding.bound["y"]:
            binding.made[:] = [np.zeros(shape, np.float32)]
        target = binding.bound["y"][2] if binding.bound["y"] else binding.made[0].ctypes.data
        count = int(np.prod(shape))

        def double() -> None:
            place = ctypes.POINTER(ctypes.c_float)
            values = np.ctypeslib.as_array(ctypes.cast(source, place), (count,))
            np.ctypeslib.as_array(ctypes.cast(target, place), (count,))[:] = 2 * values

        Session.launches += 1
        self._stream.put(double)


def wrapped(self: DeviceMemory, pointer: int, shape: Any, kind: str, owner: Any) -> OnDevice:
    return owner.array.view(OnDevice)


def test_a_recorded_run_gives_every_caller_outputs_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    utils = SimpleNamespace(Tensor=None, TritonModelException=RuntimeError)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.delitem(sys.modules, "server.backends.onnxruntime.model", raising=False)
    cuda = SimpleNamespace(
        Device=lambda _: SimpleNamespace(use=lambda: None), Stream=Stream,
    )  # fmt: skip
    cupy = SimpleNamespace(
        cuda=cuda, empty=lambda shape, dtype: np.full(shape, np.nan, dtype).view(OnDevice)
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(DeviceMemory, "wrap", wrapped)
    monkeypatch.setattr("server.backends.device.check_nodes", lambda graph: graph)
    model = importlib.import_module("server.backends.onnxruntime.model")
    memory = DeviceMemory(None, 0)
    opened: list[dict[str, int]] = []

    def open_session(named: dict[str, int]) -> Session:
        opened.append(named)
        return Session(memory._stream, named)  # type: ignore[arg-type]

    def given(rows: int, value: float) -> dict[str, Any]:
        return {"x": np.full((rows, 3), value, np.float32).view(OnDevice)}

    network = model.DeviceNetwork(open_session, memory, per_size=True)
    network.record(given(2, 0), ["y"])
    assert opened == [{}, {"rows": 2}], "the recorded session's shapes are fixed"
    before = Session.launches
    first = network.run(given(2, 1), ["y"], 2)["y"]
    second = network.run(given(2, 5), ["y"], 2)["y"]
    np.testing.assert_array_equal(first, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(second, np.full((2, 3), 10.0))
    assert Session.launches == before, "the session launched nothing itself"
    network.run(given(4, 3), ["y"], 4)
    assert Session.launches == before + 1, "another batch size is not recorded"
    with pytest.raises(ValueError, match=r"x was recorded as \(2, 3\), and has \(2, 4\)"):
        network.run({"x": np.zeros((2, 4), np.float32).view(OnDevice)}, ["y"], 2)
