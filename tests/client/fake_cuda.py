"""Stands for libcuda, where there is none."""

from __future__ import annotations

import ctypes


class FakeCuda:
    """Stands for libcuda: device memory is host memory; every allocation is counted."""

    def __init__(self, *, refuse: str | None = None) -> None:
        self.refuse = refuse
        self.memory: dict[int, object] = {}
        self.streams = 0
        self.synchronised = 0

    def __getattr__(self, name: str):
        def answer(*arguments: object) -> int:
            return 2 if name == self.refuse else 0

        return answer

    def _allocate(self, pointer: object, size: ctypes.c_size_t) -> int:
        buffer = (ctypes.c_uint8 * size.value)()
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        pointer._obj.value = address
        return 0

    def cuMemAlloc_v2(self, pointer: object, size: ctypes.c_size_t) -> int:
        return 2 if self.refuse == "cuMemAlloc_v2" else self._allocate(pointer, size)

    def cuMemHostAlloc(self, pointer: object, size: ctypes.c_size_t, flags: object) -> int:
        return 2 if self.refuse == "cuMemHostAlloc" else self._allocate(pointer, size)

    def cuStreamCreate(self, stream: object, flags: object) -> int:
        self.streams += 1
        stream._obj.value = 1
        return 0

    def cuStreamDestroy_v2(self, stream: object) -> int:
        self.streams -= 1
        return 0

    def cuMemFree_v2(self, pointer: ctypes.c_uint64) -> int:
        del self.memory[pointer.value]
        return 0

    def cuMemFreeHost(self, pointer: ctypes.c_void_p) -> int:
        del self.memory[pointer.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, device, host, count, stream) -> int:
        ctypes.memmove(device.value, host.value, count.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, host, device, count, stream) -> int:
        ctypes.memmove(host.value, device.value, count.value)
        return 0

    def cuStreamSynchronize(self, stream: object) -> int:
        self.synchronised += 1
        return 0

    def cuGetErrorName(self, code: object, text: object) -> int:
        text._obj.value = b"CUDA_ERROR_OUT_OF_MEMORY"
        return 0
