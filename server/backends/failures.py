"""What an engine's error means for a client: one sentence, and whether the process can go on.

Engines say why they fail in texts alone, so the texts are looked for. They come from:

- ONNX Runtime's arena, core/framework/bfc_arena.cc, `Extend`: "Failed to allocate memory for
  requested buffer of size N" (the device refused) and "Available memory of A is smaller than
  requested bytes of N" (`gpu_mem_limit` refused). Its exceptions derive from `Exception`, not from
  `RuntimeError`.
- ONNX Runtime's calls of CUDA's libraries, core/providers/cuda/cuda_call.cc, `CudaCall`:
  "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; ...", "CUBLAS failure 3:
  CUBLAS_STATUS_ALLOC_FAILED ; ..."; the middle is `cudaGetErrorString`'s.
- CuPy 14, cupy/cuda/memory.pyx, `OutOfMemoryError` (a `MemoryError`): "Out of memory allocating
  1,024 bytes (allocated so far: 0 bytes)."; cupy_backends/cuda/api/runtime.pyx,
  `CUDARuntimeError` (a `RuntimeError`): "cudaErrorIllegalAddress: an illegal memory access was
  encountered", `cudaGetErrorName` and `cudaGetErrorString`.
- TensorRT's log: "... Error Code 1: Cuda Runtime (an illegal memory access was encountered)",
  "... Error Code 2: OutOfMemory (Requested size was N bytes.)".
"""

from __future__ import annotations

import os
import re
import threading
from typing import Final

FATAL_TEXTS: Final = (
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "MPS client failed to connect to the MPS control daemon or the MPS server",
    "MPS server failed to communicate with the MPS control daemon",
    "MPS server is not ready to accept new MPS client requests",
    "the client termination was requested by MPS",
    "the MPS client has been terminated",
)
"""`cudaGetErrorString` of the errors after which "the process must be terminated and relaunched".

Source: CUDA Runtime API reference, cudaError_t, 700, 702, 710, 714 to 719 and 721; 214 and 220 are
memory and links that are broken until the driver has taken them out of use; 805, 806, 807 and 810
come from NVIDIA's Multi-Process Service, when it or a process that shares it has failed.
"""

_FATAL_NUMBER: Final = re.compile(
    r"\bCUDA failure (?:214|220|700|702|710|71[4-9]|721|80[567]|810)\b"
)
_FATAL_NAME: Final = re.compile(
    r"\b(?:cudaError(?:IllegalAddress|LaunchTimeout|Assert|HardwareStackError|IllegalInstruction"
    r"|MisalignedAddress|InvalidAddressSpace|InvalidPc|LaunchFailure|ECCUncorrectable|Contained"
    r"|MpsConnectionFailed|MpsRpcFailure|MpsServerNotReady|MpsClientTerminated)"
    r"|CUDA_ERROR_(?:ILLEGAL_ADDRESS|LAUNCH_TIMEOUT|ASSERT|HARDWARE_STACK_ERROR"
    r"|ILLEGAL_INSTRUCTION|MISALIGNED_ADDRESS|INVALID_ADDRESS_SPACE|INVALID_PC|LAUNCH_FAILED"
    r"|ECC_UNCORRECTABLE|CONTAINED|MPS_CONNECTION_FAILED|MPS_RPC_FAILURE|MPS_SERVER_NOT_READY"
    r"|MPS_CLIENT_TERMINATED))\b"
)

_LIMITED: Final = re.compile(
    r"Available memory of (?P<left>\d+) is smaller than requested bytes of (?P<size>\d+)"
)
_SIZES: Final = (
    re.compile(r"Failed to allocate memory for requested buffer of size (?P<size>\d+)"),
    re.compile(r"Out of memory allocating (?P<size>[\d,]+) bytes"),
    re.compile(r"OutOfMemory \(.*?[Rr]equested size was (?P<size>\d+) bytes"),
    re.compile(r"Unable to allocate (?P<told>[\d.]+ \w?i?B)"),  # NumPy's, host memory
)
_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|_STATUS_ALLOC_FAILED|DEVICE_ALLOCATION_FAILED|bad_alloc|bad allocation"
    r"|despite calling Extend",
    re.IGNORECASE,
)

ANSWER_S: Final = 0.5
"""How long a process lives on after a fatal error, so that its answers leave it."""
EXIT_STATUS: Final = 70
"""sysexits.h, EX_SOFTWARE."""


def explain(error: Exception, device_id: int | None = None) -> str:
    """Return an engine's error as one line for the client, or for whoever loads the model.

    Args:
        error: what was raised while a model was loaded or run.
        device_id: the CUDA device of the model; None where it runs on the CPU.
    """
    told = _one_line(error)
    if device_id is not None and is_fatal(error):
        return (
            f"GPU {device_id} failed ({told}), and this process cannot use it any more; the model "
            "is served again when it has been loaded anew"
        )
    limited = _LIMITED.search(told)
    if limited is not None:
        return (
            f"the model's memory limit leaves it {_amount(limited['left'])}, and "
            f"{_amount(limited['size'])} more were needed; raise gpu_mem_limit in its config, or "
            "send smaller frames"
        )
    if not is_out_of_memory(error):
        return told
    size = _wanted(told)
    needed = f"{size} more were needed" if size else told
    if device_id is None:
        return (
            f"the server's machine is out of memory: {needed}; lower the frame size or the number "
            "of requests in flight"
        )
    return (
        f"GPU {device_id} is out of memory: {needed}; lower the frame size, max_batch_size or "
        "the number of instances, or end what else runs on this GPU"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out, on the device or on the host; the process can go on."""
    told = _one_line(error)
    return (
        isinstance(error, MemoryError)
        or _LIMITED.search(told) is not None
        or _wanted(told) != ""
        or _OUT_OF_MEMORY.search(told) is not None
    )


def is_fatal(error: Exception) -> bool:
    """Tell whether CUDA refuses all further work of this process after such an error."""
    told = _one_line(error)
    return (
        any(text in told for text in FATAL_TEXTS)
        or _FATAL_NUMBER.search(told) is not None
        or _FATAL_NAME.search(told) is not None
    )


def end_soon() -> None:
    """End this process in a moment: whoever watches the model then loads it again.

    Without a clean-up, which would call CUDA, and hang or fail.
    """
    timer = threading.Timer(ANSWER_S, os._exit, (EXIT_STATUS,))
    timer.daemon = True
    timer.start()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _wanted(told: str) -> str:
    """Return how much was asked for, in words; empty where the text does not say."""
    for pattern in _SIZES:
        match = pattern.search(told)
        if match is not None:
            groups = match.groupdict()
            return groups.get("told") or _amount(groups["size"].replace(",", ""))
    return ""


def _amount(digits: str) -> str:
    """Return bytes in words: 73728 is "0.07 MB"."""
    size = int(digits)
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
