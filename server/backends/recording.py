"""A network's run recorded as one CUDA graph, and replayed.

ONNX Runtime launches each kernel by itself: the 825 of a landmark network take 7 ms to launch and
2 ms to run (H200), one recording of them 0.02 ms and 1.9 ms. What a recording needs:

- The run must not wait for the device, or CUDA refuses it, and every later call of ONNX Runtime in
  that process fails with CUDA's error. So only networks that are known for it are recorded
  (`networks.landmarkers`), while they are loaded.
- No node may read or write the host's memory, which ONNX Runtime gives to others after the run:
  `check_nodes`.
- The memory of the run's own values belongs to the session's arena. It stays as it is while nothing
  else is run by that session, which is why there is a session for each batch size.

Source: CUDA driver API, graph management (`cuGraphGetNodes`, `cuGraphMemcpyNodeGetParams`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

KERNEL, MEMCPY, MEMSET, EMPTY = 0, 1, 2, 5
"""CUgraphNodeType."""
HOST_MEMORY, DEVICE_MEMORY, UNIFIED_MEMORY = 1, 2, 4
"""CUmemorytype."""
_MEMORY_TYPE = 2
"""CU_POINTER_ATTRIBUTE_MEMORY_TYPE."""


class NotReplayable(RuntimeError):
    """Why a recording must not be replayed."""


class _End(ctypes.Structure):
    """One end of a CUDA_MEMCPY3D."""

    _fields_ = (
        ("x", ctypes.c_size_t), ("y", ctypes.c_size_t), ("z", ctypes.c_size_t),
        ("level", ctypes.c_size_t), ("memory_type", ctypes.c_int), ("host", ctypes.c_void_p),
        ("device", ctypes.c_uint64), ("array", ctypes.c_void_p), ("reserved", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t), ("height", ctypes.c_size_t),
    )  # fmt: skip


class _Copy(ctypes.Structure):
    """CUDA_MEMCPY3D."""

    _fields_ = (
        ("source", _End), ("target", _End), ("width", ctypes.c_size_t), ("height", ctypes.c_size_t),
        ("depth", ctypes.c_size_t),
    )  # fmt: skip


def check_nodes(graph: int, driver: Any = None) -> int:
    """Return how many nodes a CUDA graph has, after a look at each.

    Args:
        graph: a cudaGraph_t.
        driver: libcuda; None opens it.

    Raises:
        NotReplayable: one is no kernel, no memset and no copy within the device.
    """
    driver = driver or ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: Any) -> None:
        code = getattr(driver, name)(*arguments)
        if code:
            raise NotReplayable(f"{name} answers {code}")

    handle, count = ctypes.c_void_p(graph), ctypes.c_size_t()
    call("cuGraphGetNodes", handle, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    call("cuGraphGetNodes", handle, nodes, ctypes.byref(count))
    for node in nodes:
        kind = ctypes.c_int()
        call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(kind))
        if kind.value == MEMCPY:
            copy = _Copy()
            call("cuGraphMemcpyNodeGetParams", ctypes.c_void_p(node), ctypes.byref(copy))
            for end in (copy.source, copy.target):
                _check_end(end, driver)
        elif kind.value not in (KERNEL, MEMSET, EMPTY):
            raise NotReplayable(f"it has a node of type {kind.value}")
    return count.value


def _check_end(end: _End, driver: Any) -> None:
    kind = end.memory_type
    if kind == UNIFIED_MEMORY:
        asked = ctypes.c_uint()
        code = driver.cuPointerGetAttribute(
            ctypes.byref(asked), _MEMORY_TYPE, ctypes.c_uint64(end.device)
        )
        # The driver does not know plain host memory, and says so with an error.
        kind = HOST_MEMORY if code else asked.value
    if kind != DEVICE_MEMORY:
        raise NotReplayable("it copies from or to the host")


class RecordedRun:
    """A recorded run between arrays of its own.

    Args:
        memory: the `DeviceMemory` that the arrays are in.
        given, made: device arrays that the run reads and writes, by name.
        launch: puts the recording on the memory's stream.
        kept: what must live as long as the recording.
    """

    def __init__(
        self,
        memory: Any,
        given: Mapping[str, Any],
        made: Mapping[str, Any],
        launch: Callable[[], None],
        *,
        kept: object,
    ) -> None:
        self._memory, self._given, self._made = memory, given, made
        self._launch, self._kept = launch, kept

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Run arrays of the recorded shapes; what it returns is the caller's own.

        Raises:
            ValueError: an array has another shape.
        """
        for name, array in self._given.items():
            if array.shape != inputs[name].shape:
                raise ValueError(
                    f"{name} was recorded as {array.shape}, and has {inputs[name].shape}"
                )
            self._memory.put(array, inputs[name])
        self._launch()
        copies = {name: self._memory.empty_like(self._made[name]) for name in outputs}
        for name, copy in copies.items():
            self._memory.put(copy, self._made[name])
        return copies
