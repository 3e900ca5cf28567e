"""Which NVIDIA GPU is in this machine, asked of the driver: needs neither TensorRT nor CUDA."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from engines.errors import UnsupportedDevice

# CUdevice_attribute values. Source: CUDA Driver API reference, CUdevice_attribute.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One visible GPU."""

    name: str
    compute_capability: str
    memory_bytes: int


def parse_compute_capability(text: str) -> str:
    """ "8.9" from "8.9", "89", "sm_89" or "SM89".

    Raises:
        UnsupportedDevice: it is none of these.
    """
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if match is None:
        raise UnsupportedDevice(
            f"{text!r} is not a compute capability: write it like 8.9 "
            f"(NVIDIA lists each GPU's at developer.nvidia.com/cuda-gpus)"
        )
    return f"{int(match[1])}.{match[2]}"


def visible_gpus() -> list[Gpu]:
    """The GPUs that the driver shows to this process; empty when there is no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_describe(cuda, index) for index in range(count.value)]


def _describe(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    version = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        version.append(value.value)
    return Gpu(name.value.decode(), f"{version[0]}.{version[1]}", memory.value)


def present_compute_capability() -> str | None:
    """The compute capability of the first visible GPU, or None without one."""
    gpus = visible_gpus()
    return gpus[0].compute_capability if gpus else None
