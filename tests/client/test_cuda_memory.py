"""CUDA shared memory on a real device: what we push, another process reads, and the other way."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from frameswap.cuda_memory import CudaRegion

pytestmark = pytest.mark.gpu

OTHER_PROCESS = """
import ctypes, sys
from frameswap.cuda_memory import IpcHandle, load_driver
driver = load_driver()
driver.use()
pointer = ctypes.c_uint64()
handle = IpcHandle.from_buffer_copy(bytes.fromhex(sys.argv[1]))
driver.call("cuIpcOpenMemHandle_v2", ctypes.byref(pointer), handle, ctypes.c_uint(1))
size = int(sys.argv[2])
seen = (ctypes.c_uint8 * size)()
driver.call("cuMemcpyDtoH_v2", seen, pointer, ctypes.c_size_t(size))
inverted = (ctypes.c_uint8 * size)(*(255 - value for value in seen))
driver.call("cuMemcpyHtoD_v2", pointer, inverted, ctypes.c_size_t(size))
driver.call("cuCtxSynchronize")
driver.call("cuIpcCloseMemHandle", pointer)
"""


class Recorder:
    """Takes the place of a connection: keeps what would be registered."""

    def call(self, method: str, request: object, *, doing: str) -> None:
        assert method == "CudaSharedMemoryRegister"
        self.request = request


def test_another_process_reads_what_was_pushed_and_we_pull_what_it_wrote() -> None:
    region = CudaRegion(4096)
    try:
        region.host[:] = np.arange(4096) % 256
        region.push(0, 4096)
        region.host[:] = 0
        recorder = Recorder()
        region.register(recorder)
        assert recorder.request.byte_size == 4096
        handle = recorder.request.raw_handle.hex()
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, handle, "4096"], check=True)
        region.pull(0, 4096)
        np.testing.assert_array_equal(region.host, 255 - np.arange(4096) % 256)
    finally:
        region.close()
