"""Which nodes a recorded run may have: the driver's answers about a graph, made here."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench import gpu_graphs
from bench.gpu_graphs import NotReplayable, check_nodes


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
        answer._obj.value = gpu_graphs.DEVICE_MEMORY
        return 0


def test_a_copys_description_is_laid_out_as_the_drivers() -> None:
    """CUDA_MEMCPY3D of cuda.h on a 64-bit machine: 200 bytes, the second end at 88."""
    assert ctypes.sizeof(gpu_graphs._Copy) == 200
    assert gpu_graphs._Copy.target.offset == 88
    assert gpu_graphs._End.device.offset == 48


DEVICE, HOST, UNIFIED = (
    gpu_graphs.DEVICE_MEMORY, gpu_graphs.HOST_MEMORY, gpu_graphs.UNIFIED_MEMORY
)  # fmt: skip


def test_kernels_and_copies_within_the_device_may_be_replayed() -> None:
    nodes = [gpu_graphs.KERNEL, gpu_graphs.MEMCPY, gpu_graphs.MEMSET, gpu_graphs.MEMCPY]
    driver = FakeDriver(nodes, {1: (DEVICE, DEVICE), 3: (UNIFIED, UNIFIED)})
    assert check_nodes(7, driver) == 4


@pytest.mark.parametrize("ends", [(HOST, DEVICE), (DEVICE, HOST), (UNIFIED, DEVICE)])
def test_a_copy_from_or_to_the_host_may_not(ends: tuple[int, int]) -> None:
    driver = FakeDriver([gpu_graphs.KERNEL, gpu_graphs.MEMCPY], {1: ends}, frozenset({100}))
    with pytest.raises(NotReplayable, match="copies from or to the host"):
        check_nodes(7, driver)


def test_a_call_of_the_host_may_not_be_replayed() -> None:
    with pytest.raises(NotReplayable, match="node of type 3"):
        check_nodes(7, FakeDriver([gpu_graphs.KERNEL, 3]))
