"""CUDA shared memory through the driver's own library: no package of CUDA's is needed.

A region is device memory with a pinned buffer of the host beside it. The frame is copied once
into the pinned buffer; from there on the device's copy engine moves it, and the server maps the
device memory by its IPC handle.

Source: CUDA Driver API reference, "Memory Management" (cuMemHostAlloc, cuIpcGetMemHandle) and
"Primary Context Management"; names with _v2 are those of the ABI, as cuda.h defines them.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from frameswap.connection import Connection
from frameswap.errors import TransportUnavailable
from frameswap.shared_memory import LockedFile

__all__ = ["CudaRegion", "IpcHandle", "load_driver", "unregister_cuda"]

_HANDLE_SIZE: Final = 64
_DEVICE: Final = 0


class IpcHandle(ctypes.Structure):
    """CUipcMemHandle."""

    _fields_ = (("reserved", ctypes.c_char * _HANDLE_SIZE),)


class CudaDriver:
    """libcuda with the primary context of one device.

    Raises:
        TransportUnavailable: a call failed.
    """

    def __init__(self, library: Any, device: int = _DEVICE) -> None:
        self._library = library
        self.device = device
        self._context = ctypes.c_void_p()
        handle = ctypes.c_int()
        self.call("cuInit", ctypes.c_uint(0))
        self.call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), handle)

    def call(self, name: str, *arguments: Any) -> None:
        """Call one function of the driver and check its answer."""
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {code}"
            raise TransportUnavailable(f"the CUDA driver refused {name} ({reason})")

    def use(self) -> None:
        """Make the context current in this thread; calls on memory need one."""
        self.call("cuCtxSetCurrent", self._context)


@cache
def load_driver() -> CudaDriver:
    """The driver of this machine, loaded once.

    Raises:
        TransportUnavailable: no NVIDIA driver, or no device that answers.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise TransportUnavailable(
            "this machine has no NVIDIA driver (libcuda.so.1), which CUDA shared memory needs"
        ) from error
    return CudaDriver(library)


class CudaRegion:
    """Device memory for the server, pinned host memory for us.

    Args:
        size: bytes.
        server: the address of the server that is to map it.

    Raises:
        TransportUnavailable: no device, or no memory left on it.
    """

    def __init__(self, size: int, driver: CudaDriver | None = None, *, server: str = "") -> None:
        self._driver = driver or load_driver()
        self._size = size
        self._device_pointer = ctypes.c_uint64()
        self._host_pointer = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        # The kernel frees device memory of a killed process, but the server keeps its name: an
        # empty locked file tells the next start which names are nobody's.
        self._file = LockedFile(0, server)
        self.name = self._file.name
        self._driver.use()
        try:
            pointer = ctypes.byref(self._device_pointer)
            self._driver.call("cuMemAlloc_v2", pointer, ctypes.c_size_t(size))
            pointer = ctypes.byref(self._host_pointer)
            self._driver.call("cuMemHostAlloc", pointer, ctypes.c_size_t(size), ctypes.c_uint(0))
            self.host: NDArray[np.uint8] = self._view_host()
            # Not the legacy stream: it would wait for everything else on the device.
            self._driver.call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(1))
        except BaseException:
            self.close()
            raise

    def _view_host(self) -> NDArray[np.uint8]:
        assert self._host_pointer.value is not None
        memory = (ctypes.c_uint8 * self._size).from_address(self._host_pointer.value)
        # A caller may still hold a view when it is closed: the memory then goes when the view does.
        weakref.finalize(memory, _free_host, self._driver, self._host_pointer)
        return np.ctypeslib.as_array(memory)

    def register(self, connection: Connection) -> None:
        handle = IpcHandle()
        self._driver.use()
        self._driver.call("cuIpcGetMemHandle", ctypes.byref(handle), self._device_pointer)
        connection.call(
            "CudaSharedMemoryRegister",
            service_pb2.CudaSharedMemoryRegisterRequest(
                name=self.name,
                raw_handle=bytes(handle),
                device_id=self._driver.device,
                byte_size=self._size,
            ),
            doing="while registering CUDA shared memory",
        )

    def unregister(self, connection: Connection) -> None:
        unregister_cuda(self.name, connection)

    def push(self, start: int, stop: int) -> None:
        """Copy host[start:stop] to the device, and wait: the server reads on another stream."""
        self._copy("cuMemcpyHtoDAsync_v2", start, stop, to_device=True)

    def pull(self, start: int, stop: int) -> None:
        self._copy("cuMemcpyDtoHAsync_v2", start, stop, to_device=False)

    def _copy(self, name: str, start: int, stop: int, *, to_device: bool) -> None:
        assert self._host_pointer.value is not None
        device = ctypes.c_uint64(self._device_pointer.value + start)
        host = ctypes.c_void_p(self._host_pointer.value + start)
        count = ctypes.c_size_t(stop - start)
        self._driver.use()
        ends = (device, host) if to_device else (host, device)
        self._driver.call(name, *ends, count, self._stream)
        self._driver.call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free both memories, the host's when nobody has a view of it any more."""
        self.host = np.empty(0, np.uint8)
        self._driver.use()
        if self._stream:
            self._driver.call("cuStreamDestroy_v2", self._stream)
            self._stream = ctypes.c_void_p()
        if self._device_pointer.value:
            self._driver.call("cuMemFree_v2", self._device_pointer)
            self._device_pointer = ctypes.c_uint64()
        self._file.close()


def _free_host(driver: CudaDriver, pointer: ctypes.c_void_p) -> None:
    driver.use()
    driver.call("cuMemFreeHost", pointer)


def unregister_cuda(name: str, connection: Connection) -> None:
    connection.call(
        "CudaSharedMemoryUnregister",
        service_pb2.CudaSharedMemoryUnregisterRequest(name=name),
        doing="while giving CUDA shared memory back",
    )
