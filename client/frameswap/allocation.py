"""How the process's allocator treats buffers of the size of frames."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_large_buffers", "zero_new_memory"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_PERTURB: Final = -6
"""Of glibc's malloc.h."""
_LIBRARY: Final = ctypes.CDLL(None)


def keep_large_buffers() -> None:
    """Let glibc use a frame's memory again instead of giving it back to the system each time.

    Every message of a few megabytes would otherwise be made of fresh pages: a fifth to a third of
    the client's CPU time at 1080p over gRPC. It holds for the whole process, which is why the
    command line calls it and the library leaves it to its user. Source: mallopt(3).
    """
    if hasattr(_LIBRARY, "mallopt"):
        _LIBRARY.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        _LIBRARY.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def zero_new_memory(on: bool) -> None:
    """Have glibc hand out memory of zeros, or as it comes.

    x264's macroblock tree reads memory that it never wrote, so what it makes depends on what lay
    there: 64 x 48 pixels gave six outputs in eight runs, 336 x 192 two, and one with this (x264 of
    PyAV 18.1). It holds for the whole process, and costs writing all that is allocated once more.
    Source: mallopt(3).
    """
    if hasattr(_LIBRARY, "mallopt"):
        # Memory is filled with the complement of this byte.
        _LIBRARY.mallopt(_M_PERTURB, 255 if on else 0)
