"""Two requests a frame over shared memory: faces are found, come back, and are swapped.

As perf_analyzer does with one request, a frame lies in the region that it is sent from, and nothing
is copied on this side; but no tool sends what the answer to another request said. What is found
(24 kB) crosses gRPC, as it does for a client that chooses who is swapped.
"""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

from bench.gpu.clients import answers_of
from bench.scenes import Scene
from graphs.contract import FACES, LANDMARKS, OPTION_COUNT, SWAPPED_FRAME

if TYPE_CHECKING:
    from frameswap.shared_memory import Region

FIND: Final = "find_faces_i420"
SWAP_FOUND: Final = "swap_found_faces_i420"
WARM_S: Final = 2.0
LIMIT_S: Final = 60.0


@dataclass(frozen=True)
class TwoStepLoad:
    """processes, each with `in_flight` frames under way; `seconds` count, after a warm-up."""

    processes: int
    in_flight: int
    seconds: float = 6.0
    memory: Literal["cuda", "system"] = "cuda"
    scene: Scene = Scene("one face")  # noqa: RUF009  (frozen)


class _Place:
    """One frame under way at a time: it is found and swapped again and again until told to stop.

    Args:
        region: holds the frame, then room for the swapped one.
    """

    def __init__(
        self,
        client: triton.InferenceServerClient,
        region: Region,
        load: TwoStepLoad,
        until: float,
    ) -> None:
        self._client, self._until = client, until
        frame, source = load.scene.i420()[None], load.scene.source()[None]
        options = np.zeros((1, OPTION_COUNT), np.float32)
        shared = triton.InferInput("frame", list(frame.shape), "UINT8")
        shared.set_shared_memory(region.name, frame.nbytes, 0)
        self._asked = [shared, _input("options", options)]
        self._given = [*self._asked, _input("source", source)]
        swapped = triton.InferRequestedOutput(SWAPPED_FRAME)
        swapped.set_shared_memory(region.name, frame.nbytes, frame.nbytes)
        self._outputs = [swapped, triton.InferRequestedOutput("verdicts")]
        self.frames: list[tuple[float, float]] = []
        """When each was answered, and how long it took: `time.perf_counter()`, seconds."""
        self.error: Exception | None = None
        self.done = threading.Event()
        self._find()

    def _find(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._until:
            self.done.set()
            return
        self._client.async_infer(FIND, self._asked, self._swap)

    def _swap(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self._fail(error)
            return
        found = [_input(name, result.as_numpy(name)) for name in (FACES.name, LANDMARKS.name)]
        self._client.async_infer(
            SWAP_FOUND, [*self._given, *found], self._finish, outputs=self._outputs
        )

    def _finish(self, result: Any, error: Exception | None) -> None:
        if error is None and (result.as_numpy("verdicts") != 0).any():
            error = RuntimeError("a face was left as it is")
        if error is not None:
            self._fail(error)
            return
        now = time.perf_counter()
        self.frames.append((now, now - self._began))
        self._find()

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.done.set()


def _input(name: str, array: NDArray[np.float32]) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), "FP32")
    return made.set_data_from_numpy(np.ascontiguousarray(array))


def _process(url: str, load: TwoStepLoad, ready: Any, queue: Any) -> None:
    """One process: puts its frames' times and its CPU seconds, or the error's text."""
    try:
        queue.put(_answer(url, load, ready))
    except Exception:
        ready.abort()
        queue.put(traceback.format_exc(limit=3))


def _answer(url: str, load: TwoStepLoad, ready: Any) -> tuple[list[tuple[float, float]], float]:
    from frameswap.connection import Connection
    from frameswap.cuda_memory import CudaRegion
    from frameswap.shared_memory import SystemRegion, unregister_when_idle

    frame, cpu = load.scene.i420(), time.process_time()
    connection = Connection(url, timeout_s=LIMIT_S)
    make = CudaRegion if load.memory == "cuda" else SystemRegion
    regions: list[Region] = [make(2 * frame.nbytes, server=url) for _ in range(load.in_flight)]
    for region in regions:
        region.host[: frame.nbytes] = frame.reshape(-1)
        region.push(0, frame.nbytes)
        region.register(connection)
    client = triton.InferenceServerClient(url)
    ready.wait(LIMIT_S)
    begin = time.perf_counter() + WARM_S
    places = [_Place(client, region, load, begin + load.seconds) for region in regions]
    for place in places:
        if not place.done.wait(load.seconds + LIMIT_S):
            raise RuntimeError("the server left a request unanswered")
    client.close()
    for region in regions:
        unregister_when_idle(region, connection)
        region.close()
    connection.close()
    errors = [place.error for place in places if place.error is not None]
    if errors:
        raise errors[0]
    frames = itertools.chain.from_iterable(place.frames for place in places)
    counted = [(at - begin, took) for at, took in frames if at >= begin]
    return counted, time.process_time() - cpu


def two_step_rate(url: str, load: TwoStepLoad) -> dict[str, Any]:
    """Frames a second of all processes together, latency of a frame from end to end.

    Raises:
        RuntimeError: a process failed; its own words.
    """
    context = multiprocessing.get_context("spawn")
    queue, ready = context.Queue(), context.Barrier(load.processes)
    workers = [
        context.Process(target=_process, args=(url, load, ready, queue))
        for _ in range(load.processes)
    ]
    answers = answers_of(workers, queue, 2 * LIMIT_S + load.seconds)
    frames = [frame for answer in answers for frame in answer[0] if frame[0] <= load.seconds]
    return {
        **_latencies([took for _, took in frames]),
        "per second": round(len(frames) / load.seconds, 1),
        "CPU ms a frame": round(sum(each[1] for each in answers) / max(len(frames), 1) * 1e3, 2),
        "in flight": load.processes * load.in_flight,
        "seconds": load.seconds,
    }


def _latencies(seconds: list[float]) -> Mapping[str, float]:
    if not seconds:
        raise RuntimeError("no frame was swapped in the time that counts")
    return {
        f"p{share} ms": round(float(np.percentile(seconds, share)) * 1e3, 1)
        for share in (50, 95, 99)
    }
