"""The whole ensemble on one GPU, measured: engine, real Triton under perf_analyzer, client, peers.

    python -m bench.gpu --output out/gpu

inswapper_128's architecture with random weights (349 GFLOP a face; it swaps no face), YuNet, 1080p
I420, float16, the pip-only server. Every number is a cell of OUTPUT/results.json, measured in the
order of what it says; a run that is cut short (`--minutes`) goes on where it stopped, and what was
not run is listed as not run. The report is OUTPUT/report.md.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import numpy as np
import onnxruntime

from bench import gpu_repository, random_inswapper
from bench.peer_way import PeerPipeline, frames_per_second
from bench.scenes import Scene
from engines.precision import to_fp16
from graphs import weights
from server.launcher import EmbeddedServer

ENSEMBLE: Final = "swap_faces_i420"
GFLOP_A_FACE: Final = 349.15
IN_FLIGHT: Final = 32
SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene("one face"),
        Scene("no face", faces=0),
        Scene("one face of four slots", slots=4),
        Scene("four faces", faces=4, slots=4),
        Scene("4K, one face", width=3840, height=2160),
    )
}


@dataclass
class Results:
    """Cells by name, kept in a file after each."""

    path: Path
    deadline: float
    cells: dict[str, Any] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """The cell's value, from an earlier run or measured now; None when late or failed."""
        known = self.cells.get(name)
        if known is not None and "error" not in known:
            return known["value"]
        if time.monotonic() > self.deadline:
            self.not_run.append(name)
            return None
        start = time.perf_counter()
        try:
            cell = {"value": work()}
        except Exception as error:
            cell = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        cell["seconds"] = round(time.perf_counter() - start, 1)
        self.cells[name] = cell
        self.save()
        print(f"{name}: {json.dumps(cell)[:400]}", flush=True)
        return cell.get("value")

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"cells": self.cells, "not_run": self.not_run}, indent=1)
        partial = self.path.with_suffix(".part")
        partial.write_text(text)
        partial.replace(self.path)


class GpuSampler:
    """NVML's utilisation and memory while a block runs, ten times a second."""

    def __enter__(self) -> GpuSampler:
        import pynvml

        pynvml.nvmlInit()
        self._nvml, self._device = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        self._busy: list[int] = []
        self._memory = 0
        self._stop = Event()
        self._thread = Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            self._busy.append(self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu)
            self._memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device).used

    def facts(self) -> dict[str, float]:
        """Of the middle of the block: its start and end hold no load."""
        middle = sorted(self._busy[len(self._busy) // 5 : -len(self._busy) // 5 or None])
        busy = sum(middle) / max(len(middle), 1)
        return {"gpu busy %": round(busy, 1), "gpu memory GiB": round(self._memory / 2**30, 1)}


@dataclass(frozen=True)
class LoadTest:
    """perf_analyzer against one server."""

    binary: Path
    environment: Mapping[str, str]
    folder: Path

    def run(
        self,
        url: str,
        scene: Scene,
        *,
        memory: str = "cuda",
        concurrency: int = IN_FLIGHT,
        rate: float | None = None,
        model: str = ENSEMBLE,
        requests: int = 2400,
    ) -> dict[str, float]:
        """Requests a second, latencies in ms, the GPU's facts.

        Raises:
            RuntimeError: perf_analyzer failed; its own last words.
        """
        table = self.folder / "perf.csv"
        table.unlink(missing_ok=True)
        load = ["--concurrency-range", str(concurrency)]
        if rate is not None:
            load = ["--request-rate-range", f"{rate:.0f}", "--request-distribution", "poisson"]
        shared = ["--shared-memory", memory, "--output-shared-memory-size", "16777216"]
        command = [
            str(self.binary), "-m", model, "-u", url, "-i", "grpc", "-b", "1",
            *scene.write(self.folder / scene.name.replace(" ", "_").replace(",", "")),
            *load, *(shared if memory != "none" else []),
            # one pass of a fixed length: a search for stable windows may end without a table
            "--request-count", str(requests), "--warmup-request-count", str(requests // 8),
            "-f", str(table),
        ]  # fmt: skip
        forget_regions(url)
        with GpuSampler() as sampler:
            done = subprocess.run(
                command, capture_output=True, text=True, env=dict(self.environment), timeout=40
            )
        if not table.exists():
            raise RuntimeError((done.stderr or done.stdout)[-400:])
        with table.open() as file:
            row = next(iter(csv.DictReader(file)))
        kept = {
            "per second": float(row["Inferences/Second"]),
            **{f"p{p} ms": round(float(row[f"p{p} latency"]) / 1e3, 2) for p in (50, 95, 99)},
        }
        for name in ("Server Queue", "Server Compute Input", "Server Compute Infer",
                     "Server Compute Output"):  # fmt: skip
            if row.get(name):
                kept[f"{name.lower()} ms"] = round(float(row[name]) / 1e3, 2)
        return {**kept, **sampler.facts()}


def forget_regions(url: str) -> None:
    """Take back what a perf_analyzer that was stopped left registered; the next would fail."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(url)
    client.unregister_cuda_shared_memory()
    client.unregister_system_shared_memory()
    client.close()


def matrix_rate() -> float:
    """TFLOP/s of a float16 product of two 8192 x 8192 matrices."""
    import torch

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(5):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(40):
        left @ right
    torch.cuda.synchronize()
    rate = 40 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12
    del left, right
    torch.cuda.empty_cache()
    return round(rate, 1)


def engine_rate(model: Path, batch: int, *, options: Mapping[str, str]) -> float:
    """Faces a second of the served swapper graph alone, float32 crops on the device."""
    import cupy

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    provider = {"cudnn_conv_algo_search": "EXHAUSTIVE", **options}
    session = onnxruntime.InferenceSession(
        str(model), settings, providers=[("CUDAExecutionProvider", provider)]
    )
    binding = session.io_binding()
    faces = cupy.zeros((batch, 16, 15), cupy.float32)
    faces[:, 0, 4] = 1
    inputs = {
        "crops": cupy.random.rand(batch, 1, 3, 128, 128, dtype=cupy.float32),
        "source": cupy.random.rand(batch, 1, 512, dtype=cupy.float32),
        "faces": faces,
    }
    output = cupy.empty((batch, 1, 3, 128, 128), cupy.float32)
    for name, array in inputs.items():
        binding.bind_input(name, "cuda", 0, np.float32, array.shape, array.data.ptr)
    binding.bind_output("swapped_crops", "cuda", 0, np.float32, output.shape, output.data.ptr)
    cupy.cuda.Device().synchronize()
    for _ in range(4):
        session.run_with_iobinding(binding)
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < 1.5:
        session.run_with_iobinding(binding)
        runs += 1
    return round(runs * batch / (time.perf_counter() - start), 1)


def compare_with_cpu(url: str, models: Path) -> dict[str, float]:
    """The server's frames against the same graphs in float32 on the CPU, in this very run."""
    import tritonclient.grpc as triton

    client, worst, errors = triton.InferenceServerClient(url), 0.0, []
    landmarks = 0.0
    sessions = {
        name: onnxruntime.InferenceSession(
            str(models / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        for name in gpu_repository.MODELS
    }
    for scene in (Scene("one face"), Scene("four faces", faces=4, slots=4),
                  Scene("no face", faces=0), Scene("small", width=640, height=362)):  # fmt: skip
        feeds = {
            "frame": scene.i420()[None],
            "source": scene.source()[None],
            "options": np.zeros((1, 8), np.float32),
        }
        inputs = []
        for name, array in feeds.items():
            tensor = triton.InferInput(
                name, array.shape, "UINT8" if array.dtype == np.uint8 else "FP32"
            )
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        answer = client.infer(ENSEMBLE, inputs)
        swapped, faces = answer.as_numpy("swapped_frame"), answer.as_numpy("faces")
        detected = dict(
            zip(
                ("faces", "crops", "warps", "frame"),
                sessions["face_detector_i420"].run(None, feeds),
                strict=True,
            )
        )
        crops = sessions["face_swapper"].run(
            None,
            {"crops": detected["crops"], "source": feeds["source"], "faces": detected["faces"]},
        )[0]
        wanted = sessions["face_blender_i420"].run(
            None,
            {
                "frame": feeds["frame"], "swapped_crops": crops, "warps": detected["warps"],
                "faces": detected["faces"], "options": feeds["options"],
            },
        )[0]  # fmt: skip
        found = int((faces[0, :, 4] > 0).sum())
        if found != int((detected["faces"][0, :, 4] > 0).sum()) or found != scene.faces:
            raise RuntimeError(f"{scene.name}: {found} faces, expected {scene.faces}")
        difference = swapped.astype(np.float64) - wanted
        worst = max(worst, float(np.abs(difference).max()))
        if scene.faces:
            touched = wanted != feeds["frame"]
            errors.append(float((difference[touched] ** 2).mean()))
            landmarks = max(landmarks, float(np.abs(faces - detected["faces"])[..., 5:].max()))
        elif (swapped != feeds["frame"]).any():
            raise RuntimeError("a frame without a face came back changed")
    psnr = 10 * np.log10(255**2 / max(max(errors), 1e-12))
    return {
        "PSNR dB of changed pixels, worst frame": round(float(psnr), 1),
        "worst level": worst,
        "worst landmark px": round(landmarks, 4),
    }


def _client_work(url: str, transport: str, seconds: float, in_flight: int, queue: Any) -> None:
    """One process of our own client, copy-only at both ends."""
    from frameswap import FaceSwapper, Source

    frame, vector = Scene("one face").i420(), Scene("one face").source()[0]
    with FaceSwapper(url, transport=transport, in_flight=in_flight) as swapper:  # type: ignore[arg-type]
        source = Source(
            vector=vector,
            kind=swapper.source_kind,
            swapper=swapper.swapper,
            faces=np.zeros((0, 15), np.float32),
        )
        queue.put("ready")
        done, start, cpu = 0, time.perf_counter(), time.process_time()

        def frames() -> Iterator[np.ndarray[Any, Any]]:
            while time.perf_counter() - start < seconds:
                yield frame

        copy = np.empty_like(frame)
        for swapped in swapper.stream(frames(), source):
            np.copyto(copy, swapped.frame)
            done += 1
        elapsed = time.perf_counter() - start
        queue.put((done / elapsed, (time.process_time() - cpu) / max(done, 1) * 1e3))


def client_rate(url: str, transport: str, *, processes: int, in_flight: int) -> dict[str, float]:
    """Frames a second through our own client, all processes together, and its CPU time."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=_client_work, args=(url, transport, 4.0, in_flight, queue))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    answers: list[Any] = [queue.get(timeout=20) for _ in range(2 * processes)]
    for worker in workers:
        worker.join()
    rates = [answer for answer in answers if answer != "ready"]
    return {
        "per second": round(sum(rate for rate, _ in rates), 1),
        "CPU ms a frame": round(float(np.mean([cpu for _, cpu in rates])), 2),
    }


@functools.cache
def peer_pipeline() -> PeerPipeline:
    """The peers' way with the float16 network as published; made once: that takes a while."""
    network = to_fp16(random_inswapper.build(), prefix="")
    provider = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    return PeerPipeline(weights.load_network("yunet"), network, [provider])


def peer_rate(threads: int) -> float:
    """Frames a second of the peers' way."""
    scene = Scene("one face")
    frame, latent = scene.bgr(), scene.source()
    pipeline = peer_pipeline()
    frames_per_second(pipeline, frame, latent, threads=threads, seconds=1.0)
    return round(frames_per_second(pipeline, frame, latent, threads=threads, seconds=3.0), 1)


@contextmanager
def serving(
    repository: Path, output: Path, *, counts: Mapping[str, int], name: str, in_flight: int = 64
) -> Iterator[EmbeddedServer]:
    """A server of the bench's repository."""
    with EmbeddedServer(
        repository,
        variant="cuda",
        models=[ENSEMBLE],
        instance_counts=counts,
        requests_in_flight=in_flight,
        start_timeout_s=240,
        log_file=output / f"server_{name}.log",
    ) as server:
        yield server


def prepare(work: Path, *, precision: str = "fp16") -> Path:
    """The GPU repository."""
    repository = work / f"repository_{precision}"
    if not (repository / "face_swapper" / "1" / "model.cuda.onnx").exists():
        gpu_repository.build(repository, precision=precision)
    return repository


def make_reference(work: Path) -> Path:
    """The same graphs in float32 for the CPU."""
    reference = work / "reference"
    if not (reference / "face_swapper" / "1" / "model.onnx").exists():
        gpu_repository.build(reference, precision="fp32", variant="cpu")
    return reference


def run(options: argparse.Namespace, results: Results) -> None:
    """Measure every cell, the most telling first."""
    work, output = options.work, options.output
    measure = results.measure
    start = time.perf_counter()
    repository = prepare(work)
    print(f"repositories: {time.perf_counter() - start:.0f} s", flush=True)
    load = LoadTest(options.perf_analyzer, dict(os.environ), work / "load")
    measure("matrix rate, TFLOP/s", matrix_rate)
    swapper = repository / "face_swapper" / "1" / "model.cuda.onnx"
    layout = {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
    for batch in (16, 8, 1):
        measure(
            f"engine alone, batch {batch}",
            lambda batch=batch: engine_rate(swapper, batch, options=layout),
        )
    counts = dict(options.instances)
    one = SCENES["one face"]
    if time.monotonic() < results.deadline:
        with serving(repository, output, counts=counts, name="main") as server:
            url = server.grpc_url
            measure("one face, CUDA shared memory", lambda: load.run(url, one))
            for concurrency in (64, 16):
                measure(
                    f"one face, CUDA shared memory, {concurrency} in flight",
                    lambda c=concurrency: load.run(url, one, concurrency=c),
                )
            measure("statistics", lambda: statistics(url))
            headline = results.cells.get("one face, CUDA shared memory", {}).get("value") or {}
            if headline:
                measure(
                    "half of that load",
                    lambda: load.run(url, one, rate=headline["per second"] / 2),
                )
            for name in ("no face", "one face of four slots", "four faces", "4K, one face"):
                measure(f"{name}, CUDA shared memory", lambda n=name: load.run(url, SCENES[n]))
            for memory, label in (("system", "system shared memory"), ("none", "gRPC bytes")):
                measure(f"one face, {label}", lambda m=memory: load.run(url, one, memory=m))
            for transport, processes, in_flight in (
                ("system", 2, 16), ("cuda", 2, 16), ("system", 1, 32), ("cuda", 1, 32),
                ("cuda", 4, 8),
            ):  # fmt: skip
                measure(
                    f"own client, {transport}, {processes} processes",
                    lambda t=transport, p=processes, f=in_flight: client_rate(
                        url, t, processes=p, in_flight=f
                    ),
                )
            detector = "face_detector_i420"
            measure(f"{detector} alone", lambda: load.run(url, one, model=detector))
            measure("64 streams", lambda: client_rate(url, "system", processes=8, in_flight=8))
            measure("GPU against CPU", lambda: compare_with_cpu(url, make_reference(work)))
    for threads in (8, 4, 16, 1):
        measure(f"peers' way, {threads} threads", lambda t=threads: peer_rate(t))
    peer_pipeline.cache_clear()
    for label, other in (
        ("two of each", {"face_detector_i420": 2, "face_swapper": 2, "face_blender_i420": 2}),
        ("two swappers", {"face_swapper": 2}),
    ):
        if f"{label}: one face" not in results.cells and time.monotonic() < results.deadline:
            with serving(repository, output, counts=other, name=label.replace(" ", "_")) as server:
                measure(f"{label}: one face", lambda s=server: load.run(s.grpc_url, one))
        elif f"{label}: one face" not in results.cells:
            results.not_run.append(f"{label}: one face")
    if not options.fp16_only:

        def fp32(batch: int) -> float:
            full = prepare(work, precision="fp32") / "face_swapper" / "1" / "model.cuda.onnx"
            return engine_rate(full, batch, options=layout)

        for batch in (8, 1):
            measure(f"engine alone, float32 (TF32), batch {batch}", lambda b=batch: fp32(b))


def statistics(url: str) -> dict[str, Any]:
    """Mean batch, and where the time of a request goes, of every model."""
    import tritonclient.grpc as triton

    rows: dict[str, Any] = {}
    for model in triton.InferenceServerClient(url).get_inference_statistics().model_stats:
        if not model.execution_count:
            continue
        parts = {
            name: getattr(model.inference_stats, name)
            for name in ("queue", "compute_input", "compute_infer", "compute_output")
        }
        rows[model.name] = {
            "mean batch": round(model.inference_count / model.execution_count, 2),
            **{
                f"{name} ms": round(part.ns / max(part.count, 1) / 1e6, 2)
                for name, part in parts.items()
            },
        }
    return rows


def report(results: Results) -> str:
    """Markdown: the promises with what was measured, then every cell."""
    value = {name: cell.get("value") for name, cell in results.cells.items()}

    def rate(name: str) -> float | None:
        cell = value.get(name)
        return cell["per second"] if isinstance(cell, dict) else cell

    best = max(
        (r for r in (rate(f"one face, CUDA shared memory{s}")
                     for s in ("", ", 64 in flight", ", 16 in flight")) if r),
        default=None,
    )  # fmt: skip
    engine = max(
        (r for r in (rate(f"engine alone, batch {b}") for b in (8, 16)) if r), default=None
    )
    peers = max((r for r in (rate(f"peers' way, {t} threads") for t in (1, 4, 8, 16)) if r),
                default=None)  # fmt: skip
    matrix = value.get("matrix rate, TFLOP/s")
    main = value.get("one face, CUDA shared memory") or {}
    half = value.get("half of that load") or {}
    own = max(
        (r for r in (rate(n) for n in value if n.startswith("own client")) if r), default=None
    )
    four, single = rate("four faces, CUDA shared memory"), best

    def over(top: float | None, bottom: float | None, scale: float = 100) -> str:
        return "not run" if not top or not bottom else f"{scale * top / bottom:.1f}"

    rows = [
        ("frames a second, CUDA shared memory", "600", "1000", f"{best or 'not run'}"),
        ("  system shared memory", "", "", str(rate("one face, system shared memory"))),
        ("  gRPC bytes", "", "", str(rate("one face, gRPC bytes"))),
        ("% of the matrix rate", "28", "45",
         over((best or 0) * GFLOP_A_FACE / 1000, matrix)),
        ("% of the engine alone", "70", "90", over(best, engine)),
        ("times the peers' way", "4", "8", over(best, peers, 1)),
        ("GPU busy, %", "92", "97", str(main.get("gpu busy %", "not run"))),
        ("p99 at half of that load, ms", "60", "30", str(half.get("p99 ms", "not run"))),
        ("frames a second, own client", "400", "800", f"{own or 'not run'}"),
        ("4 faces a frame: faces a second, % of 1 face", "90", "110",
         over(4 * (four or 0), single)),
        ("4K against 1080p, %", "60", "85", over(rate("4K, one face, CUDA shared memory"), best)),
        ("no face, times one face", "2", "4",
         over(rate("no face, CUDA shared memory"), best, 1)),
        ("one face of four slots, % of one slot", "90", "100",
         over(rate("one face of four slots, CUDA shared memory"), best)),
        ("64 streams, % of one stream", "95", "100",
         over(rate("64 streams"), rate("own client, system, 1 processes"))),
    ]  # fmt: skip
    lines = ["| promise | floor | aim | measured |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", "| cell | value |", "|---|---|"]
    for name, cell in results.cells.items():
        shown = cell.get("error") or json.dumps(cell["value"])
        lines.append(f"| {name} | {shown} |")
    if results.not_run:
        lines += ["", "Not run (out of time; run again to go on): " + "; ".join(results.not_run)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("out/gpu"))
    parser.add_argument("--work", type=Path, default=Path("out/gpu_work"), help="repositories")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which to stop")
    parser.add_argument("--perf-analyzer", type=Path, help="default: brought along")
    parser.add_argument("--fp16-only", action="store_true")
    parser.add_argument(
        "--instances", nargs="*", default=[], metavar="MODEL=N",
        type=lambda text: (text.split("=")[0], int(text.split("=")[1])),
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.perf_analyzer is None:
        from server.perf_analyzer import prepare_perf_analyzer

        options.perf_analyzer = prepare_perf_analyzer().binary
    path = options.output / "results.json"
    known = json.loads(path.read_text())["cells"] if path.exists() else {}
    results = Results(path, time.monotonic() + 60 * options.minutes, known)
    run(options, results)
    results.save()
    text = report(results)
    (options.output / "report.md").write_text(text)
    print(text)
    return 1 if any("error" in cell for cell in results.cells.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
