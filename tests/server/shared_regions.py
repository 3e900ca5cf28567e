"""Asking a server through shared memory whose output part is filled with a pattern beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import tritonclient.grpc as triton_grpc
from frameswap.connection import Connection
from frameswap.shared_memory import Region, unregister_when_idle
from tritonclient.utils import np_to_triton_dtype

from tests.server.asking import Array

GUARD = 4096
"""Bytes behind the output that nobody may write."""
FACES = "faces"
SWAPPED = "swapped_frame"

Request = tuple[str, Mapping[str, Array]]
"""Ensemble and inputs."""


class RegionAsker:
    """Sends `frame` through a region and gets `swapped_frame` through it; the rest is bytes.

    Args:
        make_region: of so many bytes, `SystemRegion` or `CudaRegion`.
    """

    def __init__(self, url: str, make_region: Callable[[int], Region]) -> None:
        self.client = triton_grpc.InferenceServerClient(url)
        self._connection = Connection(url, timeout_s=60)
        self._make_region = make_region

    def close(self) -> None:
        self.client.close()
        self._connection.close()

    def ask(self, request: Request, *, fill: int = 0) -> Array:
        """Return the swapped frame, which was written over bytes of `fill`."""
        model, arrays = request
        frame = arrays["frame"]
        size = frame.nbytes
        region = self._make_region(2 * size + GUARD)
        try:
            region.host[:size] = frame.reshape(-1)
            region.host[size:] = fill
            region.push(0, region.host.size)
            region.register(self._connection)
            try:
                self._infer(model, arrays, region.name)
            finally:
                unregister_when_idle(region, self._connection)
            region.pull(size, region.host.size)
            answer = region.host[size:].copy()
            np.testing.assert_array_equal(answer[size:], fill, "written behind the output")
            return answer[:size].reshape(frame.shape)
        finally:
            region.close()

    def _infer(self, model: str, arrays: Mapping[str, Array], region: str) -> None:
        inputs = []
        for name, array in arrays.items():
            tensor = triton_grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            if name == "frame":
                tensor.set_shared_memory(region, array.nbytes)
            else:
                tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        size = arrays["frame"].nbytes
        swapped = triton_grpc.InferRequestedOutput(SWAPPED)
        swapped.set_shared_memory(region, size, offset=size)
        outputs = [swapped, triton_grpc.InferRequestedOutput(FACES)]
        self.client.infer(model, inputs, outputs=outputs, client_timeout=60)


def assert_every_pixel_is_written(asker: RegionAsker, request: Request) -> Array:
    """Ask over two patterns; a pixel that is left out would differ. Returns the answer."""
    over_zeros = asker.ask(request, fill=0x00)
    over_ones = asker.ask(request, fill=0xFF)
    np.testing.assert_array_equal(over_zeros, over_ones)
    return over_zeros


def assert_used_memory_does_not_show(asker: RegionAsker, first: Request, second: Request) -> None:
    """Ask for a frame of a size that is new to the server, for another of that size, and again.

    The second request leaves its contents in the memory that the third one gets: what the
    engines' arenas hand out again is poisoned by it.
    """
    fresh = asker.ask(first)
    other = asker.ask(second)
    assert (fresh != other).any()
    np.testing.assert_array_equal(asker.ask(first), fresh)


def answers_at_once(
    url: str, make_region: Callable[[int], Region], requests: list[Request], *, rounds: int
) -> list[list[Array]]:
    """Let one thread and connection a request ask `rounds` times; return each thread's answers."""
    ready = Barrier(len(requests))

    def work(request: Request) -> list[Array]:
        asker = RegionAsker(url, make_region)
        try:
            ready.wait(60)
            return [asker.ask(request, fill=turn % 2 * 255) for turn in range(rounds)]
        finally:
            asker.close()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(work, requests))
