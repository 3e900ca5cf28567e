"""Triton's Python-backend tensors as NumPy arrays and back, without copies of our own.

The stub of Triton 24.10 was built for NumPy 1: with NumPy 2, `Tensor(name, array)` gives an empty
tensor and `as_numpy()` an array of wrong values. DLPack works with every NumPy. Two details:

- `Tensor.from_dlpack` renames the capsule to "used_dlpack", where the DLPack convention is
  "used_dltensor". The capsule's own destructor then fails loudly (a traceback for every tensor),
  although Triton frees the memory itself (python_backend@r24.10:src/pb_tensor.cc,
  `FromDLPackCapsule` and `DeleteDLPack`). The destructor is taken off the capsule beforehand.
- A tensor's data may start at any byte of the shared memory region. NumPy flags such an array as
  not aligned; C++ code may not read it as float32, so it is copied (small tensors only: uint8
  frames are always aligned).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]
_set_destructor.restype = ctypes.c_int


def adopt(tensor_type: Any, name: str, capsule: object) -> Any:
    """Make a Triton tensor of an unused DLPack capsule; the tensor then owns the memory.

    Args:
        tensor_type: `triton_python_backend_utils.Tensor`.
        name: the output's name.
        capsule: what `array.__dlpack__()` or `tensor.to_dlpack()` returned.
    """
    _set_destructor(capsule, None)
    return tensor_type.from_dlpack(name, capsule)


class HostMemory:
    """A backend's arrays as NumPy arrays in host memory (`common.Memory`)."""

    device_id: int | None = None

    def __init__(self, tensor_type: Any) -> None:
        self._tensor_type = tensor_type

    def begin(self) -> None:
        """Host arrays need no preparation."""

    def view(self, tensor: Any) -> NDArray[Any]:
        """View an input tensor as an aligned NumPy array (read-only where it is a view)."""
        array = np.from_dlpack(tensor)
        return array if array.flags.aligned else array.copy()

    def place(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def write(self, name: str, array: NDArray[Any]) -> Any:
        """Return a Triton tensor of an array of ours; the tensor holds the array's memory."""
        if not (array.flags.c_contiguous and array.flags.writeable):
            array = np.array(array, order="C")
        return adopt(self._tensor_type, name, array.__dlpack__())

    def hand_through(self, name: str, tensor: Any, array: NDArray[Any]) -> Any:
        """Return an input tensor under an output's name."""
        return adopt(self._tensor_type, name, tensor.to_dlpack())

    def join(self, parts: Sequence[NDArray[Any]], rows: int) -> NDArray[Any]:
        """Join arrays [b_i, ...] along axis 0, zero rows appended up to `rows`."""
        count = sum(len(part) for part in parts)
        if len(parts) == 1 and count == rows:
            return np.ascontiguousarray(parts[0])
        joined = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
        np.concatenate(parts, out=joined[:count])
        joined[count:] = 0
        return joined

    def zeros(self, shape: Sequence[int], like: NDArray[Any]) -> NDArray[Any]:
        return np.zeros(tuple(shape), like.dtype)

    def put(self, target: NDArray[Any], source: NDArray[Any]) -> None:
        target[...] = source

    def finish(self) -> None:
        """Host arrays are complete when they are returned."""

    def to_host(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return list(arrays)
