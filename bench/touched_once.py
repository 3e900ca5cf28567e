"""What a loop that touches each frame's bytes once can reach through shared memory.

It is written around tritonclient's own calls, with as little else as there can be: regions are
registered once, requests are made once, and several are under way.
"""

from __future__ import annotations

import mmap
import os
import queue
import secrets
from collections import deque
from pathlib import Path
from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray

SMALL: Final = {"source": (1, 1, 512), "options": (1, 16)}
"""Other inputs of the ensemble, zeros, which go as bytes in the request."""


class TouchedOnce:
    """A window of requests, each with a region of its own: a frame, and behind it its result.

    Args:
        frames: all of one shape, uint8.
    """

    def __init__(
        self, address: str, model: str, frames: list[NDArray[np.uint8]], in_flight: int
    ) -> None:
        self._client = triton_grpc.InferenceServerClient(address)
        self._model, self._frames = model, frames
        self._slots = [_Slot(frames[0].shape) for _ in range(in_flight)]

    def close(self) -> None:
        """Have the server forget the regions, and remove them."""
        for slot in self._slots:
            slot.close(self._client)
        self._client.close()

    def run(self, count: int) -> None:
        """Send so many frames, in order, and read their results in order."""
        known = self._client.get_system_shared_memory_status().regions
        for slot in self._slots:
            # perf_analyzer makes the server forget the regions of all.
            if slot.name not in known:
                slot.register(self._client)
        free = deque(self._slots)
        under_way: deque[_Slot] = deque()
        for index in range(count):
            if not free:
                free.append(under_way.popleft())
                free[-1].read()
            slot = free.popleft()
            slot.frame[...] = self._frames[index % len(self._frames)].reshape(-1)
            self._client.async_infer(
                self._model, slot.inputs, callback=slot.take, outputs=slot.outputs
            )
            under_way.append(slot)
        while under_way:
            under_way.popleft().read()


class _Slot:
    def __init__(self, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape))
        self.name = f"frameswap-bench-{secrets.token_hex(8)}"
        self._path = Path("/dev/shm") / self.name
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, 2 * size)
            memory = np.frombuffer(mmap.mmap(descriptor, 2 * size), np.uint8)
        finally:
            os.close(descriptor)
        self.frame, self._result = memory[:size], memory[size:]
        tensor = triton_grpc.InferInput("frame", [1, *shape], "UINT8")
        tensor.set_shared_memory(self.name, size)
        self.inputs = [tensor]
        for name, small in SMALL.items():
            other = triton_grpc.InferInput(name, list(small), "FP32")
            other.set_data_from_numpy(np.zeros(small, np.float32))
            self.inputs.append(other)
        swapped = triton_grpc.InferRequestedOutput("swapped_frame")
        swapped.set_shared_memory(self.name, size, size)
        self.outputs = [swapped, *map(triton_grpc.InferRequestedOutput, ("faces", "verdicts"))]
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def register(self, client: Any) -> None:
        size = self.frame.size + self._result.size
        client.register_system_shared_memory(self.name, f"/{self.name}", size)

    def take(self, result: Any, error: Any) -> None:
        self._answers.put(error)

    def read(self) -> None:
        error = self._answers.get()
        if error is not None:
            raise error
        self._result.view(np.uint64).max()

    def close(self, client: Any) -> None:
        client.unregister_system_shared_memory(self.name)
        self._path.unlink()
