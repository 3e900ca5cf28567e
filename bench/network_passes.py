"""What each graph rewrite is worth: the swapper network alone, with and without every pass.

Times inswapper_128's architecture with random weights (bench.random_inswapper; it swaps no face),
or GHOST's (bench.random_ghost), in ONNX Runtime, float16 inside and float32 at its edges, on device
buffers, each pass taken out in turn. Every variant's output is compared with the exported network's
in the same run. Cells that a JSON file already holds are not measured again, so a run that was cut
short goes on.

    python -m bench.network_passes --output out/network_passes

On a host with PyTorch the same architecture compiled by it is timed for comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

if importlib.util.find_spec("torch") is not None:
    # Its wheels bring the CUDA and cuDNN libraries that onnxruntime-gpu looks for.
    import torch
import onnxruntime

from bench import random_ghost, random_inswapper
from engines.precision import to_fp16
from networks.batching import with_free_batch
from networks.passes import CHANNELS_LAST_PASSES, PORTABLE_PASSES, apply_passes

BATCHES: Final = (8, 1, 16, 4, 2)
"""In the order of what they say about a busy server."""

ARCHITECTURES: Final = {"inswapper": random_inswapper, "ghost": random_ghost}

LEAST_PSNR: Final = 50.0
"""Decibels that a float16 crop must keep."""

CHANNELS_LAST_OPTIONS: Final = {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
CUDA_OPTIONS: Final = {
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
}


@dataclass(frozen=True)
class Variant:
    """One form of the network and the provider options that it is meant for."""

    name: str
    passes: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One measurement.

    psnr: of the output against the exported network's in float32, decibels; None where nothing was
        compared.
    error: why there is no rate; empty where there is one.
    """

    variant: str
    batch: int
    cuda_graph: bool
    faces_per_second: float = 0.0
    psnr: float | None = None
    error: str = ""

    @property
    def key(self) -> str:
        return f"{self.variant} | batch {self.batch}{' | CUDA graph' if self.cuda_graph else ''}"


def variants() -> list[Variant]:
    """The exported network, both orders of passes, then each order without one pass."""
    last_options = tuple(CHANNELS_LAST_OPTIONS.items())
    rows = [
        Variant("as exported", ()),
        Variant("portable", PORTABLE_PASSES),
        Variant("channels last", CHANNELS_LAST_PASSES, last_options),
        Variant("as exported, prefer_nhwc", (), last_options),
        # What EXHAUSTIVE and HEURISTIC mean to cuDNN's frontend are two of its heuristics: neither
        # times anything, so which one chooses better is for a measurement to say.
        Variant(
            "channels last, heuristic search",
            CHANNELS_LAST_PASSES,
            (*last_options, ("cudnn_conv_algo_search", "HEURISTIC")),
        ),
    ]
    for order, passes, options in (
        ("portable", PORTABLE_PASSES, ()),
        ("channels last", CHANNELS_LAST_PASSES, last_options),
    ):
        for name in passes:
            rest = tuple(other for other in passes if other != name)
            rows.append(Variant(f"{order} without {name}", rest, options))
    return rows


class Measurement:
    """Builds, checks and times variants on one provider."""

    def __init__(
        self, *, channels: int, provider: str, seconds: float, architecture: str = "inswapper"
    ) -> None:
        self.provider = provider
        self.seconds = seconds
        module = ARCHITECTURES[architecture]
        self.side = module.SIZE
        self.span = module.OUTPUT_SPAN
        self.network = with_free_batch(module.build(channels=channels))
        self._models: dict[str, bytes] = {}
        rng = np.random.default_rng(0)
        self.target = rng.random((max(BATCHES), 3, self.side, self.side), dtype=np.float32)
        source = rng.normal(size=(max(BATCHES), 512)).astype(np.float32)
        self.source = source / np.linalg.norm(source, axis=1, keepdims=True)
        self._expected: npt.NDArray[np.float32] | None = None

    def measure(self, variant: Variant, batch: int, *, cuda_graph: bool) -> Cell:
        """Time one cell; an engine's own refusal becomes the cell's error."""
        cell = Cell(variant.name, batch, cuda_graph)
        try:
            session = self.session(self.typed(variant), variant, cuda_graph=cuda_graph)
            binding, output = self.bind(session, batch)
            rate = self.rate(lambda: session.run_with_iobinding(binding), batch)
        # ONNX Runtime's errors have no base but Exception; a failed cell must not end the run.
        except Exception as error:
            return Cell(**{**asdict(cell), "error": " ".join(str(error).split())[:300]})
        psnr = self.psnr(output.numpy())
        failed = "" if psnr >= LEAST_PSNR else f"output differs: {psnr:.1f} dB"
        return Cell(variant.name, batch, cuda_graph, rate, psnr, failed)

    def typed(self, variant: Variant) -> bytes:
        """The variant's float16 network; one is kept, since cells come variant by variant."""
        if variant.name not in self._models:
            rewritten = apply_passes(self.network, variant.passes)
            self._models = {variant.name: to_fp16(rewritten, prefix="").SerializeToString()}
        return self._models[variant.name]

    def session(
        self, model: bytes, variant: Variant, *, cuda_graph: bool
    ) -> onnxruntime.InferenceSession:
        """Raises RuntimeError where the provider is not the one asked for."""
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.provider == "cuda":
            options = {**CUDA_OPTIONS, **dict(variant.options)}
            if cuda_graph:
                options["enable_cuda_graph"] = "1"
            providers = [("CUDAExecutionProvider", options)]
        session = onnxruntime.InferenceSession(model, settings, providers=providers)
        if self.provider == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
            raise RuntimeError("ONNX Runtime has no CUDA provider here; install onnxruntime-gpu")
        return session

    def bind(self, session: onnxruntime.InferenceSession, batch: int) -> tuple[Any, Any]:
        """Inputs and output in device memory, at addresses that stay."""
        binding, device = session.io_binding(), self.provider
        for name, rows in (("target", self.target), ("source", self.source)):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(rows[:batch]), device, 0
            )
            binding.bind_ortvalue_input(name, value)
        # NaN first: an output that is not written cannot pass for one that is.
        empty = np.full((batch, 3, self.side, self.side), np.nan, np.float32)
        output = onnxruntime.OrtValue.ortvalue_from_numpy(empty, device, 0)
        binding.bind_ortvalue_output("output", output)
        return binding, output

    def rate(self, run: Callable[[], None], batch: int) -> float:
        """Faces a second over at least `seconds`, the first runs left out."""
        for _ in range(3):
            run()
        runs, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < self.seconds:
            run()
            runs += 1
        return runs * batch / elapsed

    def psnr(self, output: npt.NDArray[np.float32]) -> float:
        """Of the first rows, against the exported network in float32 on the CPU."""
        if self._expected is None:
            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                self.network.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
            feeds = {"target": self.target[:1], "source": self.source[:1]}
            self._expected = np.asarray(session.run(None, feeds)[0])
        error = float((((output[:1] - self._expected) / self.span) ** 2).mean())
        return float(-10 * np.log10(max(error, 1e-12))) if np.isfinite(error) else float("-inf")

    def kernels(self, variant: Variant, batch: int, *, rows: int = 20) -> str:
        """Where the GPU's time goes, a line a kernel: milliseconds a run, calls a run, name."""
        from torch.profiler import ProfilerActivity, profile

        session = self.session(self.typed(variant), variant, cuda_graph=False)
        binding, _ = self.bind(session, batch)
        for _ in range(3):
            session.run_with_iobinding(binding)
        runs = 5
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            for _ in range(runs):
                session.run_with_iobinding(binding)
            torch.cuda.synchronize()
        events = sorted(trace.key_averages(), key=lambda event: -event.self_device_time_total)
        total = sum(event.self_device_time_total for event in events) / 1000 / runs
        lines = [f"{variant.name}, batch {batch}: {total:.2f} ms of kernels a run"]
        lines += [
            f"{event.self_device_time_total / 1000 / runs:8.3f} ms {event.count / runs:5.0f} x "
            f"{event.key[:100]}"
            for event in events[:rows]
        ]
        return "\n".join(lines)


def cells(batches: Sequence[int], *, cuda_graph: bool) -> Iterator[tuple[Variant, int, bool]]:
    """Every cell to measure, variant by variant, the most telling ones first."""
    for variant in variants():
        for batch in batches:
            yield variant, batch, False
            if cuda_graph:
                yield variant, batch, True


def load(path: Path) -> dict[str, Cell]:
    """Cells of an earlier run."""
    if not path.exists():
        return {}
    return {key: Cell(**values) for key, values in json.loads(path.read_text())["cells"].items()}


def save(path: Path, settings: dict[str, Any], done: dict[str, Cell], missing: list[str]) -> None:
    content = {
        "what": "random weights, the network alone",
        **settings,
        "cells": {key: asdict(cell) for key, cell in done.items()},
        "not_run": missing,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)


def table(done: dict[str, Cell], batches: Sequence[int], *, cuda_graph: bool) -> str:
    """Markdown: a row a variant, a column a batch, faces a second."""
    columns = [
        (batch, graph)
        for graph in ([False, True] if cuda_graph else [False])
        for batch in sorted(batches)
    ]
    heads = [f"B={batch}{' graph' if graph else ''}" for batch, graph in columns]
    lines = [
        "| faces/s | " + " | ".join(heads) + " | PSNR, dB |",
        "|---" * (len(heads) + 2) + "|",
    ]
    names = dict.fromkeys(cell.variant for cell in done.values())
    for name in names:
        found = [done.get(Cell(name, batch, graph).key) for batch, graph in columns]
        values = [_shown(cell) for cell in found]
        quality = [cell.psnr for cell in found if cell is not None and cell.psnr is not None]
        worst = f"{min(quality):.1f}" if quality else "-"
        lines.append(f"| {name} | " + " | ".join(values) + f" | {worst} |")
    return "\n".join(lines)


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    return "failed" if cell.error else f"{cell.faces_per_second:.0f}"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("out/network_passes"))
    parser.add_argument("--provider", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="inswapper")
    parser.add_argument("--channels", type=int, default=random_inswapper.CHANNELS)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing a cell")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which to stop")
    parser.add_argument("--cuda-graph", action="store_true", help="time captured graphs as well")
    parser.add_argument(
        "--variants", nargs="+", metavar="VARIANT", help="measure these only; all by default"
    )
    parser.add_argument(
        "--kernels", nargs="+", default=[], metavar="VARIANT", help="profile these at batch 8, too"
    )
    return parser.parse_args(arguments)


def measure_torch(
    options: argparse.Namespace, done: dict[str, Cell], missing: list[str], deadline: float
) -> None:
    """Add the compiled PyTorch network's cells, where PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        missing.append("PyTorch compiled (PyTorch is not installed)")
        return
    from bench.torch_network import measure_compiled

    for batch in options.batches:
        key = Cell("PyTorch compiled", batch, True).key
        if key in done:
            continue
        if time.monotonic() > deadline:
            missing.append(key)
            continue
        rate = measure_compiled(batch, options.seconds, channels=options.channels)
        done[key] = Cell("PyTorch compiled", batch, True, rate)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    path = options.output.with_suffix(".json")
    done = load(path)
    settings = {
        "architecture": options.architecture,
        "provider": options.provider,
        "channels": options.channels,
    }
    measurement = Measurement(
        channels=options.channels,
        provider=options.provider,
        seconds=options.seconds,
        architecture=options.architecture,
    )
    missing: list[str] = []
    for variant, batch, graph in cells(options.batches, cuda_graph=options.cuda_graph):
        key = Cell(variant.name, batch, graph).key
        if options.variants and variant.name not in options.variants:
            continue
        if key in done and not done[key].error:
            continue
        if time.monotonic() > deadline:
            missing.append(key)
            continue
        done[key] = measurement.measure(variant, batch, cuda_graph=graph)
        print(f"{key}: {_shown(done[key])} {done[key].error}", flush=True)
        save(path, settings, done, missing)
    compiled = options.provider == "cuda" and options.architecture == "inswapper"
    if compiled and not options.variants:
        measure_torch(options, done, missing, deadline)
    save(path, settings, done, missing)
    for variant in variants():
        if variant.name in options.kernels:
            print(measurement.kernels(variant, 8), flush=True)
    text = table(done, options.batches, cuda_graph=options.cuda_graph)
    if missing:
        text += "\n\nNot run (out of time; run again to go on): " + "; ".join(missing)
    options.output.with_suffix(".md").write_text(text + "\n")
    print(text)
    return 1 if any(cell.error for cell in done.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
