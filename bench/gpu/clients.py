"""Our own client, and the peers' way: whole frames from host memory to host memory."""

from __future__ import annotations

import functools
import multiprocessing
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from bench import random_inswapper
from bench.gpu.devices import check_provider, load_cuda
from bench.peer_way import PeerPipeline, frames_per_second
from bench.scenes import Scene
from engines.precision import to_fp16
from fetching import weights

START_LIMIT_S: Final = 60.0
FRAMES_AHEAD: Final = 12
"""That `Steadiness` takes at 25 frames a second."""


@dataclass(frozen=True)
class ClientLoad:
    """What each of the client processes does.

    transport: of `FaceSwapper`. streams: at once in one process, each with its own source and
    connection. in_flight: requests of one stream. steady: faces are followed, as in a video.
    """

    transport: str
    processes: int
    streams: int
    in_flight: int
    seconds: float = 4.0
    scene: Scene = Scene("one face")  # noqa: RUF009  (frozen)
    steady: bool = False

    @property
    def requests_in_flight(self) -> int:
        return self.processes * self.streams * self.in_flight


def identity(number: int) -> NDArray[np.float32]:
    """(512,) float32, unit length: a person that nobody is."""
    vector = np.random.default_rng(number).normal(size=512).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def _stream(url: str, load: ClientLoad, number: int, frame: NDArray[np.uint8], ready: Any) -> int:
    """One stream, copy-only at both ends; returns frames that came within the time."""
    from frameswap import FaceSwapper, Source
    from frameswap.persons.casting import Casting
    from frameswap.persons.following import follow

    with FaceSwapper(url, transport=load.transport, in_flight=load.in_flight) as swapper:  # type: ignore[arg-type]
        source = Source(
            vector=identity(number),
            kind=swapper.source_kind,
            swapper=swapper.swapper,
            faces=np.zeros((0, 15), np.float32),
        )
        if not load.steady:
            swapper.swap(frame, source)
        ready.wait(START_LIMIT_S)
        end = time.perf_counter() + load.seconds

        def frames() -> Iterator[NDArray[np.uint8]]:
            while time.perf_counter() < end:
                yield frame

        answers = (
            follow(
                swapper, frames(), Casting.by_place([source]),
                pixel="i420", ahead=FRAMES_AHEAD, frame_rate=25,
            )
            if load.steady
            else swapper.stream(frames(), source)
        )  # fmt: skip
        done, copy = 0, np.empty_like(frame)
        for swapped in answers:
            np.copyto(copy, swapped.frame)
            done += time.perf_counter() < end
        return done


def _process(url: str, load: ClientLoad, index: int, ready: Any, queue: Any) -> None:
    """All streams of one process: puts frames and CPU seconds, or the error's text."""
    try:
        frame, cpu = load.scene.i420(), time.process_time()
        with ThreadPoolExecutor(load.streams) as pool:
            jobs = [
                pool.submit(_stream, url, load, load.streams * index + stream, frame, ready)
                for stream in range(load.streams)
            ]
            done = sum(job.result() for job in jobs)
        queue.put((done, time.process_time() - cpu))
    except Exception:
        ready.abort()
        queue.put(traceback.format_exc(limit=2))


def answers_of(workers: Sequence[Any], queue: Any, limit_s: float) -> list[Any]:
    """Start processes that put an answer each, or an error's text, and wait for all of them.

    Raises:
        RuntimeError: a process failed; its own words.
    """
    for worker in workers:
        worker.start()
    try:
        answers = [queue.get(timeout=limit_s) for _ in workers]
    except Empty as error:
        told = ", ".join(str(worker.exitcode) for worker in workers)
        raise RuntimeError(f"a client process gave no answer; exit statuses: {told}") from error
    finally:
        for worker in workers:
            worker.join(10)
            if worker.is_alive():
                worker.kill()
    failures = [answer for answer in answers if isinstance(answer, str)]
    if failures:
        # The first to fail breaks the others' barrier: theirs say only that.
        causes = [text for text in failures if "BrokenBarrierError" not in text] or failures
        raise RuntimeError(causes[0])
    return answers


def client_rate(url: str, load: ClientLoad) -> dict[str, float]:
    """Frames a second of all processes together, and CPU time (start-up included) a frame.

    Raises:
        RuntimeError: a process failed; its own words.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ready = context.Barrier(load.processes * load.streams)
    workers = [
        context.Process(target=_process, args=(url, load, index, ready, queue))
        for index in range(load.processes)
    ]
    answers = answers_of(workers, queue, 2 * START_LIMIT_S)
    done = sum(answer[0] for answer in answers)
    return {
        "per second": round(done / load.seconds, 1),
        "CPU ms a frame": round(sum(answer[1] for answer in answers) / max(done, 1) * 1e3, 2),
        "in flight": load.requests_in_flight,
    }


@functools.cache
def peer_networks() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Detector and float16 swapper as published; made once: that takes a while."""
    return weights.load_network("yunet"), to_fp16(random_inswapper.build(), prefix="")


@functools.cache
def peer_pipeline(*, spared: bool) -> PeerPipeline:
    """The peers' way on the GPU; for `spared` see `PeerPipeline`."""
    load_cuda()
    provider = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    pipeline = PeerPipeline(*peer_networks(), [provider], spared=spared)
    check_provider(pipeline.providers)
    return pipeline


def peer_rate(threads: int, *, spared: bool) -> float:
    """Frames a second of the peers' way; for `spared` see `PeerPipeline`."""
    scene = Scene("one face")
    frame, latent = scene.bgr(), scene.source()
    pipeline = peer_pipeline(spared=spared)
    frames_per_second(pipeline, frame, latent, threads=threads, seconds=1.0)
    return round(frames_per_second(pipeline, frame, latent, threads=threads, seconds=3.0), 1)
