"""Whether the frames that are timed are the right ones: against the CPU, and streams apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from numpy.typing import NDArray

from bench.gpu.clients import identity
from bench.gpu.modes import ENSEMBLE
from bench.gpu_repository import MODELS
from bench.scenes import Scene
from graphs.contract import ENSEMBLE_SPECS, OPTION_COUNT

Frame = NDArray[np.uint8]
Vector = NDArray[np.float32]
Infer = Callable[[Frame, Vector], tuple[Frame, NDArray[np.float32]]]
"""(H*3/2, W) and (K, D) to the swapped frame and (16, 15) faces."""

SCENES: Final = (
    Scene("one face"),
    Scene("four faces", faces=4, slots=4),
    Scene("no face", faces=0),
    Scene("small", width=640, height=362),
)
APART_SIZES: Final = ((1920, 1080), (1280, 720), (640, 362))
APART_STREAMS: Final = 12
APART_ROUNDS: Final = 6
LEAST_DB: Final = 55.0
"""Of changed pixels against float32 on the CPU; 59.4 is what float16 and TF32 give."""
MOST_LEVELS: Final = 2.0
MOST_LANDMARK_PX: Final = 0.1
APART_DB: Final = 45.0
"""A batch's convolutions add in another order than a single frame's: float16's rounding, which is
59 dB or more against float32. Two persons' frames differ by far more than 45 dB allows."""


def asker(url: str) -> Infer:
    """Asks the served ensemble over gRPC; may be called from several threads."""
    client = triton.InferenceServerClient(url)

    def infer(frame: Frame, source: Vector) -> tuple[Frame, NDArray[np.float32]]:
        inputs = []
        for name, kind, array in (
            ("frame", "UINT8", frame[None]),
            ("source", "FP32", source[None]),
            ("options", "FP32", np.zeros((1, OPTION_COUNT), np.float32)),
        ):
            tensor = triton.InferInput(name, array.shape, kind)
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            inputs.append(tensor)
        answer = client.infer(ENSEMBLE, inputs)
        return answer.as_numpy("swapped_frame")[0], answer.as_numpy("faces")[0]

    return infer


def cpu_asker(models: Path) -> Callable[[Frame, Vector], dict[str, Any]]:
    """The same graphs in float32 on the CPU, step by step."""
    sessions = {
        name: onnxruntime.InferenceSession(
            str(models / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        for name in MODELS
    }

    def infer(frame: Frame, source: Vector) -> dict[str, Any]:
        options = np.zeros((1, OPTION_COUNT), np.float32)
        values: dict[str, Any] = {"frame": frame[None], "source": source[None], "options": options}
        for step in ENSEMBLE_SPECS[ENSEMBLE].steps:
            feeds = {tensor: values[value] for tensor, value in step.inputs.items()}
            made = sessions[step.model].run(list(step.outputs), feeds)
            values |= dict(zip(step.outputs.values(), made, strict=True))
        return {"frame": values["swapped_frame"][0], "faces": values["faces"][0]}

    return infer


def psnr(left: NDArray[Any], right: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """dB between two uint8 pictures over some of their values; 120 where they are equal."""
    difference = left[where].astype(np.float64) - right[where]
    error = float((difference**2).mean()) if difference.size else 0.0
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-12)))


def compare_with_cpu(url: str, models: Path, *, own: bool = False) -> dict[str, float]:
    """The server's frames against the same graphs in float32 on the CPU, in this very run.

    Args:
        own: the swapper is the project's own network.

    Raises:
        RuntimeError: other faces were found, a frame without a face came back changed, or the
            frames differ by more than float16 explains.
    """
    infer, reference = asker(url), cpu_asker(models)
    worst, landmarks, decibels = 0.0, 0.0, []
    for scene in (replace(scene, own=own) for scene in SCENES):
        frame, source = scene.i420(), scene.source()
        swapped, faces = infer(frame, source)
        wanted = reference(frame, source)
        found = int((faces[:, 4] > 0).sum())
        if found != int((wanted["faces"][:, 4] > 0).sum()) or found != scene.faces:
            raise RuntimeError(f"{scene.name}: {found} faces, expected {scene.faces}")
        if scene.faces:
            difference = swapped.astype(np.float64) - wanted["frame"]
            worst = max(worst, float(np.abs(difference).max()))
            decibels.append(psnr(swapped, wanted["frame"], wanted["frame"] != frame))
            landmarks = max(landmarks, float(np.abs(faces - wanted["faces"])[:, 5:].max()))
        elif (swapped != frame).any():
            raise RuntimeError("a frame without a face came back changed")
    figures = {
        "PSNR dB of changed pixels, worst frame": round(min(decibels), 1),
        "worst level": worst,
        "worst landmark px": round(landmarks, 4),
    }
    if min(decibels) < LEAST_DB or worst > MOST_LEVELS or landmarks > MOST_LANDMARK_PX:
        raise RuntimeError(f"the server's frames are not the CPU's: {figures}")
    return figures


def stream_frames(count: int, sizes: Sequence[tuple[int, int]]) -> list[Frame]:
    """A frame a stream, sizes in turn; grey levels in the first rows are that stream's alone."""
    frames = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        frame = Scene("apart", width=width, height=height).i420().copy()
        frame[:8, :] = 16 + 200 * number // count
        frames.append(frame)
    return frames


def streams_apart(
    infer: Infer,
    *,
    count: int = APART_STREAMS,
    rounds: int = APART_ROUNDS,
    sizes: Sequence[tuple[int, int]] = APART_SIZES,
) -> dict[str, float]:
    """Streams of different persons and sizes at once, each answer against its own serial one.

    Returns:
        the worst PSNR of changed pixels against a stream's own serial answer, and the best one
        against the answer of another person for a frame of that size.

    Raises:
        RuntimeError: an answer is not its stream's: a pixel outside of the blend differs, or the
            face is nearer to another's.
    """
    frames = stream_frames(count, sizes)
    sources = [identity(1000 + number)[None] for number in range(count)]
    serial = [infer(frame, source)[0] for frame, source in zip(frames, sources, strict=True)]
    touched = [answer != frame for answer, frame in zip(serial, frames, strict=True)]
    if not all(mask.any() for mask in touched):
        raise RuntimeError("a stream's serial answer shows no swapped face")
    ready = threading.Barrier(count)

    def work(number: int) -> tuple[float, float]:
        generator = np.random.default_rng(number)
        own, other = 120.0, 0.0
        ready.wait(60)
        for _ in range(rounds):
            # so that neighbours in a batch are others each time
            threading.Event().wait(float(generator.uniform(0, 0.02)))
            answer, _ = infer(frames[number], sources[number])
            if answer.shape != serial[number].shape:
                raise RuntimeError(f"stream {number} got a frame of another size")
            near = psnr(answer, serial[number], touched[number])
            mixed = (answer[:8] != frames[number][:8]).any()
            if mixed or near < APART_DB:
                raise RuntimeError(f"stream {number} got another's frame: {near:.1f} dB to its own")
            own = min(own, near)
            for peer, answered in enumerate(serial):
                if peer != number and answered.shape == answer.shape:
                    other = max(other, psnr(answer, answered, touched[number]))
        return own, other

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(work, range(count)))
    own, other = min(pair[0] for pair in found), max(pair[1] for pair in found)
    if other >= own:
        raise RuntimeError(f"an answer is as near to another person's ({other:.1f} dB) as its own")
    return {
        "streams": count,
        "answers": count * rounds,
        "worst dB to its own serial answer": round(own, 1),
        "best dB to another person's": round(other, 1),
    }
