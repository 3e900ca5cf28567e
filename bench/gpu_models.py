"""Each served graph alone on a GPU: time a run, and where it goes, kernel by kernel.

    python -m bench.gpu_models --output out/gpu_models.json

ONNX Runtime as the served backend sets it up, device buffers, 1080p I420, one face a frame. A run
is timed twice: many in a row (throughput), and the sum of its kernels as PyTorch's profiler sees
them (what the device really does: the difference is launching and waiting). `--host-nodes` lists
what ONNX Runtime placed on the CPU, with its time, since each such node makes the device wait.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime

from bench import gpu_repository
from bench.detector_forms import in_half_until
from bench.scenes import Scene, painted_source
from engines.configs import CudaOptions
from engines.precision import to_fp16
from engines.served_graphs import served_graphs
from engines.targets import TARGETS
from fetching import weights
from graphs import face_blender, face_detector, face_landmarker
from graphs.contract import DETECTED_FRAME, MAX_VIEWS, SEEN_FRAME
from networks.detectors import DETECTORS
from networks.face_points import MEDIAPIPE_POINTS
from networks.landmarkers import view_size

BATCHES: Final = (1, 8, 16)
RUNS: Final = 30
TOP: Final = 14


class BoundSession:
    """A session with its inputs and outputs bound to device memory.

    Args:
        model: serialised.
        feeds: host arrays, copied once.
        profile: write ONNX Runtime's own profile into this folder.
    """

    def __init__(
        self,
        model: bytes,
        feeds: Mapping[str, np.ndarray[Any, Any]],
        options: Mapping[str, str],
        *,
        profile: Path | None = None,
    ) -> None:
        import torch

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile / "ort")
        self.session = onnxruntime.InferenceSession(
            model, settings, providers=[("CUDAExecutionProvider", dict(options)),
                                        "CPUExecutionProvider"]
        )  # fmt: skip
        self._kept = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
        self._binding = self.session.io_binding()
        wanted = {entry.name for entry in self.session.get_inputs()}
        for name, tensor in self._kept.items():
            if name in wanted:
                self._binding.bind_input(
                    name, "cuda", 0, feeds[name].dtype.type, tuple(tensor.shape), tensor.data_ptr()
                )
        for entry in self.session.get_outputs():
            if entry.name not in (DETECTED_FRAME, SEEN_FRAME):
                self._binding.bind_output(entry.name, "cuda", 0)
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        torch.cuda.synchronize()

    def run(self) -> None:
        self.session.run_with_iobinding(self._binding, self._run_options)


def measure(
    model: bytes, feeds: Mapping[str, np.ndarray[Any, Any]], options: Mapping[str, str]
) -> dict[str, Any]:
    """One model at one batch size."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    bound = BoundSession(model, feeds, options)
    for _ in range(5):
        bound.run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(RUNS):
        bound.run()
    launched = time.perf_counter() - start
    torch.cuda.synchronize()
    whole = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(5):
            bound.run()
        torch.cuda.synchronize()
    rows = [
        (event.self_device_time_total / 5e3, event.count / 5, event.key)
        for event in seen.key_averages()
        if event.self_device_time_total > 0
    ]
    rows.sort(reverse=True)
    return {
        "ms a run": round(whole / RUNS * 1e3, 3),
        "ms to launch": round(launched / RUNS * 1e3, 3),
        "ms of kernels": round(sum(row[0] for row in rows), 3),
        "kernels and copies": round(sum(row[1] for row in rows), 1),
        "copies": round(sum(row[1] for row in rows if "Mem" in row[2]), 1),
        "most": [[round(row[0], 4), round(row[1], 1), row[2][:110]] for row in rows[:TOP]],
    }


def host_nodes(
    model: bytes, feeds: Mapping[str, np.ndarray[Any, Any]], options: Mapping[str, str]
) -> dict[str, Any]:
    """What ONNX Runtime placed on the CPU: nodes a run, their time, the slowest kinds."""
    with tempfile.TemporaryDirectory() as folder:
        bound = BoundSession(model, feeds, options, profile=Path(folder))
        for _ in range(3):
            bound.run()
        path = bound.session.end_profiling()
        events = json.loads(Path(path).read_text())
    spent: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in events:
        arguments = event.get("args", {})
        on_host = arguments.get("provider") == "CPUExecutionProvider"
        if on_host and event["name"].endswith("_kernel_time"):
            spent[arguments["op_name"]] += event["dur"]
            counts[arguments["op_name"]] += 1
    return {
        "nodes a run": round(sum(counts.values()) / 3, 1),
        "us a run": round(sum(spent.values()) / 3),
        "kinds": {
            name: [round(counts[name] / 3, 1), round(us / 3)] for name, us in spent.most_common(8)
        },
    }


Case = tuple[str, Callable[[], bytes], Callable[[int], dict[str, Any]], dict[str, str]]


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def detector_feeds(batch: int) -> dict[str, Any]:
    scene = Scene("one face")
    return {
        "frame": np.repeat(scene.i420()[None], batch, axis=0),
        "options": np.zeros((batch, 16), np.float32),
    }


def swapper_feeds(batch: int, *, side: int = 128, own: bool = False) -> dict[str, Any]:
    """Noise for crops and sources; `own`: a source as the project's own network takes it."""
    faces = np.zeros((batch, 16, 15), np.float32)
    faces[:, 0, 4] = 1
    generator = np.random.default_rng(0)
    return {
        "crops": generator.random((batch, 1, 3, side, side), dtype=np.float32),
        "source": np.tile(painted_source(), (batch, 1, 1))
        if own
        else generator.random((batch, 1, 512), dtype=np.float32),
        "faces": faces,
        "landmarks": np.zeros((batch, 1, MEDIAPIPE_POINTS, 3), np.float32),
        "warps": warps(batch),
        "options": np.zeros((batch, 16), np.float32),
    }


def warps(batch: int) -> np.ndarray[Any, Any]:
    """One face a frame, of the size of the scene's."""
    warp = np.array([[0.4, 0.02, -300.0], [-0.02, 0.4, -150.0]], np.float32)
    return np.broadcast_to(warp, (batch, 1, 2, 3)).copy()


def blender_feeds(batch: int) -> dict[str, Any]:
    feeds = detector_feeds(batch) | {"faces": swapper_feeds(batch)["faces"]}
    feeds["swapped_crops"] = swapper_feeds(batch)["crops"]
    feeds["masks"] = np.ones_like(feeds["swapped_crops"][:, :, :1])
    feeds["warps"] = warps(batch)
    return feeds


def landmarker_feeds(batch: int) -> dict[str, Any]:
    """A row a face, as the served backend joins them."""
    side = view_size(gpu_repository.deployment().landmarker)
    generator = np.random.default_rng(0)
    return {
        "views": generator.random((batch, 1, 3, side, side), dtype=np.float32),
        "view_warps": warps(batch),
        "detections": swapper_feeds(1)["faces"].repeat(batch, axis=0),
        "options": np.zeros((batch, 16), np.float32),
    }


def aligner_feeds(batch: int) -> dict[str, Any]:
    feeds = swapper_feeds(batch)
    return detector_feeds(batch) | {
        "faces": feeds["faces"],
        "landmarks": np.zeros((batch, MAX_VIEWS, MEDIAPIPE_POINTS, 3), np.float32),
        "source": feeds["source"],
    }


def masker_feeds(batch: int) -> dict[str, Any]:
    feeds = swapper_feeds(batch)
    points = np.random.default_rng(0).uniform(700, 1000, (batch, 1, MEDIAPIPE_POINTS, 3))
    kept = {name: feeds[name] for name in ("warps", "faces", "options")}
    masks = np.ones_like(feeds["crops"][:, :, :1])
    return kept | {"swap_masks": masks, "landmarks": points.astype(np.float32)}


def cases(repository: Path) -> list[Case]:
    """The served graphs, and the forms that they could have instead."""
    plain = CudaOptions().parameters()
    exact = CudaOptions().parameters(exact=True)
    nhwc = CudaOptions().parameters(channels_last=True)
    searched = {"cudnn_conv_algo_search": "EXHAUSTIVE"}

    def served(model: str) -> Callable[[], bytes]:
        return lambda: (repository / model / "1" / "model.cuda.onnx").read_bytes()

    def detector() -> bytes:
        built = face_detector.build(
            "i420", DETECTORS["yunet"], weights.load_network("yunet"),
            landmarker=gpu_repository.deployment().landmarker, runtime="tensorrt",
        )  # fmt: skip
        return _bytes(built)

    def own() -> bytes:
        wanted = gpu_repository.deployment(swapper="frameswap_256")
        graph = served_graphs(wanted, TARGETS["cuda"])["face_swapper"]
        return _bytes(to_fp16(graph.author(weights.load_network)))

    def in_half(pooling: int) -> Callable[[], bytes]:
        detector = served("face_detector_i420")
        return lambda: _bytes(in_half_until(onnx.load_from_string(detector()), pooling))

    def blender() -> bytes:
        return _bytes(face_blender.build("i420", 128, method="whole"))

    def landmarker() -> bytes:
        row = gpu_repository.deployment().landmarker
        assert row is not None
        network = weights.load_network(row.weight)
        return _bytes(face_landmarker.build(row, network, skip_empty=False))

    return [
        ("detector", served("face_detector_i420"), detector_feeds, exact),
        ("detector, searched", served("face_detector_i420"), detector_feeds, exact | searched),
        ("landmarker, searched", served("face_landmarker"), landmarker_feeds, exact | searched),
        ("landmarker", served("face_landmarker"), landmarker_feeds, exact),
        ("aligner", served("face_aligner_i420"), aligner_feeds, plain),
        ("masker", served("face_masker"), masker_feeds, plain),
        ("detector, rounds written out", detector, detector_feeds, plain),
        ("blender", served("face_blender_i420"), blender_feeds, plain),
        ("swapper", served("face_swapper"), swapper_feeds, nhwc),
        ("swapper, searched", served("face_swapper"), swapper_feeds, nhwc | searched),
        ("frameswap_256", own, partial(swapper_feeds, side=256, own=True), plain),
        ("detector, two stages in half", in_half(2), detector_feeds, plain),
        ("detector, three stages in half", in_half(3), detector_feeds, plain),
        ("blender, whole frames", blender, blender_feeds, plain),
        ("landmarker, as converted", landmarker, landmarker_feeds, exact),
        ("landmarker, in TF32", served("face_landmarker"), landmarker_feeds, plain),
        ("detector, in TF32", served("face_detector_i420"), detector_feeds, plain),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("out/gpu_models.json"))
    parser.add_argument("--repository", type=Path, default=Path("out/gpu_work/repository_fp16"))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--host-nodes", action="store_true",
                        help="list what ONNX Runtime placed on the CPU")  # fmt: skip
    options = parser.parse_args(arguments)
    if not gpu_repository.is_current(options.repository):
        gpu_repository.build(options.repository)
    found: dict[str, Any] = {}
    print("| model | batch | ms a run | to launch | kernels | number |\n|---|---|---|---|---|---|")
    for name, author, feeds, provider in cases(options.repository):
        if options.only and name not in options.only:
            continue
        try:
            model = author()
            for batch in options.batches:
                row = measure(model, feeds(batch), provider)
                found[f"{name}, batch {batch}"] = row
                print(
                    f"| {name} | {batch} | {row['ms a run']} | {row['ms to launch']} | "
                    f"{row['ms of kernels']} | {row['kernels and copies']} |",
                    flush=True,
                )
            if options.host_nodes:
                found[f"{name}, on the CPU"] = host_nodes(model, feeds(8), provider)
                print(f"{name}, on the CPU: {found[f'{name}, on the CPU']}", flush=True)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
            print(f"{name}: {found[name]}", flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
