"""A backend's arrays on one CUDA device: CuPy arrays on one stream of the instance.

Tensors come from Triton and go back to it by DLPack, without a host copy. One wait a batch, for
this stream alone. CuPy is imported when a `DeviceMemory` is made, never on a machine without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphs.contract import FRAME, MIN_FRAME_SIDE, PARAMETER_FRAME_FORMAT, SCORE_COLUMN, sizes_up_to
from server.backends.common import ModelSettings
from server.backends.recording import check_nodes
from server.backends.triton_arrays import adopt

CUDA_DEVICE_TYPE = 2
"""DLPack's kDLCUDA."""

HIGH_PRIORITY, LOW_PRIORITY = -5, 0
"""Of streams. CUDA takes the nearest that a GPU has (Runtime API, cudaStreamCreateWithPriority)."""

WARM_HEIGHT, WARM_WIDTH = MIN_FRAME_SIDE, 96
"""Frame size of the warm-up: the networks behind the letterbox see the same shapes as ever."""

MOST_ROWS = 16
"""Face rows of one run: on an H100 inswapper_128's architecture (fp16, channels last) does 895
faces a second at batch 8 and 1,102 at 16; larger ones were not tried."""

ELEMENT_TYPES = {"TYPE_UINT8": "uint8", "TYPE_FP32": "float32", "TYPE_FP16": "float16"}


class _DeviceCapsule:
    """A capsule with the two methods that `from_dlpack` asks for."""

    def __init__(self, capsule: object, device_id: int) -> None:
        self._capsule = capsule
        self._device_id = device_id

    def __dlpack__(self, **_: object) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA_DEVICE_TYPE, self._device_id


class SideStream:
    """A stream of lower priority than a memory's own, for a network of long kernels.

    As a context: what is launched on it within comes after all that the memory's stream was given
    before, and before all that it is given later. Under MPS the kernels of several instances meet
    on a GPU, and the short ones of their other steps get ahead of a swapper's (docs/gpu.md).

    Args:
        cupy: the module.
        main: the memory's stream.
    """

    def __init__(self, cupy: Any, main: Any) -> None:
        self._main = main
        self._stream = cupy.cuda.Stream(non_blocking=True, priority=LOW_PRIORITY)
        self._before, self._after = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    @property
    def ptr(self) -> int:
        """The stream as the number that ONNX Runtime takes."""
        return int(self._stream.ptr)

    def __enter__(self) -> None:
        self._before.record(self._main)
        self._stream.wait_event(self._before)

    def __exit__(self, *_: object) -> None:
        self._after.record(self._stream)
        self._main.wait_event(self._after)


class DeviceMemory:
    """Device arrays (`serving.TensorMemory`).

    Args:
        tensor_type: `triton_python_backend_utils.Tensor`.
        device_id: CUDA device of the instance.
    """

    def __init__(self, tensor_type: Any, device_id: int) -> None:
        import cupy

        self._cupy = cupy
        self._tensor_type = tensor_type
        self.device_id = device_id
        cupy.cuda.Device(device_id).use()
        self._stream = cupy.cuda.Stream(non_blocking=True, priority=HIGH_PRIORITY)

    def side_stream(self) -> SideStream:
        """Return a new stream of lower priority that takes turns with this memory's."""
        return SideStream(self._cupy, self._stream)

    @property
    def stream_ptr(self) -> int:
        """The stream as the number that ONNX Runtime and TensorRT take."""
        return int(self._stream.ptr)

    def begin(self) -> None:
        """Make this device and stream the current ones of the calling thread."""
        self._cupy.cuda.Device(self.device_id).use()
        self._stream.use()

    def finish(self) -> None:
        self._stream.synchronize()

    def view(self, tensor: Any) -> Any:
        """View an input where it is: a NumPy array on the host, or a device array."""
        if tensor.is_cpu():
            return np.from_dlpack(tensor)
        return self._cupy.from_dlpack(_DeviceCapsule(tensor.to_dlpack(), self.device_id))

    def place(self, array: Any) -> Any:
        """Return a device array; a host array is copied on this memory's stream."""
        if not isinstance(array, np.ndarray):
            return array
        placed = self._cupy.empty(array.shape, array.dtype)
        # On this stream: on another one the copy could overtake kernels that still read the block.
        placed.set(array, stream=self._stream)
        return placed

    def write(self, name: str, array: Any) -> Any:
        """Return a Triton tensor of a device array, which it keeps alive."""
        array = self._cupy.ascontiguousarray(array)
        # -1: the consumer reads after `finish`, no stream has to wait for another.
        return adopt(self._tensor_type, name, array.__dlpack__(stream=-1))

    def hand_through(self, name: str, tensor: Any, array: Any) -> Any:
        """Return the device copy of an input, so that the next step need not copy it again."""
        return self.write(name, array)

    def wrap(self, pointer: int, shape: Sequence[int], element_type: str, owner: object) -> Any:
        """View device memory of an engine as an array that keeps its owner alive.

        Args:
            pointer: device address.
            shape: the tensor's.
            element_type: "uint8", "float", "float16", or ONNX's "tensor(...)" of one of them.
            owner: object that frees the memory.
        """
        name = element_type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype({"float": "float32"}.get(name, name))
        size = int(np.prod(shape)) * dtype.itemsize
        memory = self._cupy.cuda.UnownedMemory(pointer, size, owner, self.device_id)
        pointer_into = self._cupy.cuda.MemoryPointer(memory, 0)
        return self._cupy.ndarray(tuple(shape), dtype, pointer_into)

    def join(self, parts: Sequence[Any], rows: int) -> Any:
        """Join device arrays [b_i, ...] along axis 0, zero rows appended up to `rows`."""
        count = sum(int(part.shape[0]) for part in parts)
        if len(parts) == 1 and count == rows and parts[0].flags.c_contiguous:
            return parts[0]
        joined = self._cupy.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
        first = 0
        for part in parts:
            last = first + int(part.shape[0])
            self.put(joined[first:last], part)
            first = last
        if rows > count:
            padding = joined[count:]
            padding.data.memset_async(0, padding.nbytes, self._stream)
        return joined

    def put(self, target: Any, source: Any) -> None:
        """Copy an array over a view of the same shape and dtype, by one memory copy.

        Rows of both are contiguous, and may lie apart. CuPy's own assignment may compile a kernel
        when a request first needs it.
        """
        if target.flags.c_contiguous and source.flags.c_contiguous:
            target.data.copy_from_device_async(source.data, source.nbytes, self._stream)
            return
        runtime = self._cupy.cuda.runtime
        runtime.memcpy2DAsync(
            target.data.ptr, target.strides[0], source.data.ptr, source.strides[0],
            source.nbytes // len(source), len(source),
            runtime.memcpyDeviceToDevice, self._stream.ptr,
        )  # fmt: skip

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        return self._cupy.zeros(tuple(shape), like.dtype)

    def empty(self, shape: Sequence[int], element_type: str) -> Any:
        """Return a device array of any contents, for an engine to write into."""
        return self._cupy.empty(tuple(shape), element_type)

    def empty_like(self, array: Any) -> Any:
        """Return a device array of any contents, of an array's shape and dtype."""
        return self._cupy.empty(array.shape, array.dtype)

    def record(self, run: Callable[[], None]) -> tuple[Callable[[], None], object]:
        """Record what `run` puts on this stream as one CUDA graph.

        Returns:
            What puts it there again, and what must live as long.

        Raises:
            NotReplayable: the host's memory has a part in it.
        """
        self._stream.begin_capture()
        try:
            run()
        finally:
            graph = self._stream.end_capture()
        check_nodes(int(graph.graph))
        return (lambda: graph.launch(self._stream)), graph

    def to_host(self, arrays: Sequence[Any]) -> list[Any]:
        """Return NumPy arrays; device arrays are copied with one wait for all of them."""
        copies = [
            array if isinstance(array, np.ndarray) else self._cupy.asnumpy(array, blocking=False)
            for array in arrays
        ]
        self._stream.synchronize()
        return copies


def limit_rows(settings: ModelSettings) -> ModelSettings:
    """Return the settings with at most MOST_ROWS face rows in one run of the network."""
    if settings.rows is None:
        return settings
    most = min(settings.rows.max_rows, MOST_ROWS)
    return replace(settings, rows=replace(settings.rows, max_rows=most))


def padded_sizes(settings: ModelSettings) -> tuple[int, ...]:
    """Return the batch sizes that a model runs."""
    if settings.rows is not None:
        return sizes_up_to(settings.rows.max_rows)
    return sizes_up_to(max(1, settings.max_batch_size))


def row_padding(sizes: Sequence[int]) -> Callable[[int], int]:
    """Return the function from a number of rows to the smallest size that holds them."""

    def pad(rows: int) -> int:
        return next(size for size in sizes if size >= rows)

    return pad


def warm_inputs(settings: ModelSettings, rows: int, memory: DeviceMemory) -> dict[str, Any]:
    """Return inputs of a size for a warm-up run: zeros, and one face with a score a row.

    Engines choose (and search) their kernels by shape; running each padded size once at load
    leaves no user to wait for that. Face rows have the shape [rows, 1, ...] that `joining.run_rows`
    gives them, however many slots a request of this model has.
    """
    inputs = {}
    of_slots = () if settings.rows is None else settings.rows.inputs
    for name in settings.inputs:
        dims = settings.dims[name]
        if name == FRAME:
            i420 = settings.parameters.get(PARAMETER_FRAME_FORMAT) == "i420"
            dims = (WARM_HEIGHT * 3 // 2, WARM_WIDTH) if i420 else (WARM_HEIGHT, WARM_WIDTH, 3)
        elif name in of_slots:
            dims = (1, *dims[1:])
        shape = (rows, *(1 if size < 0 else size for size in dims))
        if settings.rows is not None and name == settings.rows.mask:
            # Without a face the network would skip itself.
            mask = np.zeros(shape, np.float32)
            mask[:, 0, SCORE_COLUMN] = 1
            inputs[name] = memory.place(mask)
        else:
            like = np.empty(0, ELEMENT_TYPES[settings.data_types[name]])
            inputs[name] = memory.zeros(shape, like)
    return inputs
