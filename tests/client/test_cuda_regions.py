"""CUDA shared memory without a device: what is asked of the driver, and what is given back."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_server import FakeServer
from frameswap import TransportUnavailable
from frameswap.cuda_memory import CudaDriver, CudaRegion
from shared_frames import connect, nothing_is_left  # noqa: F401


def test_a_cuda_region_moves_the_part_that_is_asked_for_and_frees_all() -> None:
    library = FakeCuda()
    region = CudaRegion(64, CudaDriver(library))
    region.host[:] = np.arange(64)
    region.push(8, 24)
    region.host[:] = 0
    region.pull(0, 64)
    expected = np.zeros(64, np.uint8)
    expected[8:24] = np.arange(8, 24)
    np.testing.assert_array_equal(region.host, expected)
    assert library.synchronised == 2
    region.close()
    assert library.memory == {}
    assert library.streams == 0


@pytest.mark.parametrize("refuse", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_a_full_device_is_said_and_nothing_is_kept(refuse: str) -> None:
    library = FakeCuda(refuse=refuse)
    with pytest.raises(TransportUnavailable, match=f"refused {refuse}.*OUT_OF_MEMORY"):
        CudaRegion(64, CudaDriver(library))
    assert library.memory == {}


def test_a_machine_without_a_driver_is_said(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frameswap import cuda_memory

    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    cuda_memory.load_driver.cache_clear()
    with pytest.raises(TransportUnavailable, match=r"no NVIDIA driver \(libcuda\.so\.1\)"):
        connect(server, transport="cuda")
