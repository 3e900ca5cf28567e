"""What an occluder, a parser and an enhancer cost: cells of their own, and their table.

Each beside its engine alone and the peers' way, with networks of the published architectures and
random weights (`bench.random_extras`); and Real-ESRGAN's own two behind a crop of 128 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from bench import random_extras
from bench.gpu.cells import CUDA, PRICE_MODE, SCENES, Bench, Cell, engine_name
from bench.gpu.clients import peer_networks
from bench.gpu.devices import check_provider, faces_a_second, load_cuda
from bench.gpu.load import IN_FLIGHT
from bench.gpu.repositories import FORMS
from bench.gpu.results import Results
from bench.gpu.serving import Setup
from bench.peer_extras import Kind, PeerWithExtra
from bench.peer_way import frames_per_second
from bench.scenes import Scene
from engines.configs import CudaOptions
from engines.targets import TARGETS
from graphs.contract import OPTIONS

KINDS: Final[tuple[Kind, ...]] = ("occluder", "parser", "enhancer")
FINER: Final = ("super-resolution animevideov3", "super-resolution x4plus")
"""Forms whose networks are the real ones; the peers have none of them for a face."""
MASKED_MODE: Final = "one process, 4 instances, MPS"
"""Of an occluder and of a parser, with whom two instances leave the GPU idle; of an enhancer two
take 61 GiB."""
BATCH: Final = 8
ONE_FACE: Final = next(iter(SCENES))
PEER_THREADS: Final = 8
"""FaceFusion's default."""
PEER_SECONDS: Final = 3.0


def served_name(form: str) -> str:
    return f"{ONE_FACE}, with {form}, {CUDA}"


def alone_name(kind: str) -> str:
    return f"engine alone, {kind}, batch {BATCH}"


def peers_name(kind: str, *, spared: bool) -> str:
    return f"peers' way{' spared' if spared else ''} with {kind}, {PEER_THREADS} threads"


def extra_cells() -> list[Cell]:
    """For each: the engine alone, the ensemble, and the peers' way twice where they have it."""
    cells = []
    for kind in KINDS:
        cells += [_alone(kind), _served(kind), *(_peers(kind, spared=s) for s in (False, True))]
    for form in FINER:
        cells += [_alone(form), _served(form)]
    return cells


def _served(kind: str) -> Cell:
    def work(bench: Bench) -> Any:
        return bench.scene(ONE_FACE)

    mode = MASKED_MODE if kind in KINDS[:2] else PRICE_MODE
    return Cell(served_name(kind), work, Setup(kind, mode))


def _alone(kind: str) -> Cell:
    def work(bench: Bench) -> float:
        model = "face_masker" if kind in ("occluder", "parser") else "face_enhancer"
        path = bench.repositories(kind) / model / "1" / TARGETS[FORMS[kind].target].filename
        return graph_rate(path, BATCH)

    return Cell(alone_name(kind), work)


def _peers(kind: Kind, *, spared: bool) -> Cell:
    return Cell(peers_name(kind, spared=spared), lambda _: peer_extra_rate(kind, spared=spared))


def graph_rate(model: Path, batch: int) -> float:
    """Faces a second of a served graph of rows alone, everything on the device."""
    load_cuda()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(model), settings, providers=[("CUDAExecutionProvider", CudaOptions().parameters())]
    )
    check_provider(session.get_providers())
    binding = session.io_binding()
    kept = []
    for entry in session.get_inputs():
        array = row_feed(entry.name, entry.shape, batch)
        kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
        binding.bind_ortvalue_input(entry.name, kept[-1])
    for entry in session.get_outputs():
        binding.bind_output(entry.name, "cuda", 0)
    return faces_a_second(session, binding, batch, binding.synchronize_outputs)


def row_feed(name: str, shape: list[Any], batch: int) -> np.ndarray[Any, Any]:
    """What a joined run brings of one input: rows of one slot, each with a face."""
    letters = {"B": batch, "K": 1}
    sizes = [letters[size] if isinstance(size, str) else int(size) for size in shape]
    if name == OPTIONS.name or name == "landmarks":
        return np.zeros(sizes, np.float32)
    if name.endswith("warps"):
        warp = np.array([[0.5, 0.02, -3.0], [-0.02, 0.5, -2.0]], np.float32)
        return np.broadcast_to(warp, sizes).copy()
    if name == "faces":
        faces = np.zeros(sizes, np.float32)
        faces[:, 0, 4] = 1
        return faces
    return np.random.default_rng(0).random(sizes, dtype=np.float32)


def peer_extra_rate(kind: Kind, *, spared: bool) -> float:
    """Frames a second of the peers' way with that network, float32 as the peers run it."""
    load_cuda()
    scene = Scene("one face")
    provider = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    pipeline = PeerWithExtra(
        *peer_networks(), [provider],
        kind=kind, network=random_extras.build(FORMS[kind].extra), spared=spared,
    )  # fmt: skip
    check_provider(pipeline.providers)
    frame, latent = scene.bgr(), scene.source()
    frames_per_second(pipeline, frame, latent, threads=PEER_THREADS, seconds=1.0)
    rate = frames_per_second(
        pipeline, frame, latent, threads=PEER_THREADS, seconds=PEER_SECONDS
    )
    return round(rate, 1)


def extra_table(results: Results) -> list[tuple[Any, ...]]:
    """Rows: kind, its engine, swapper and it in turn, the ensemble, %, peers, times, spared."""
    rows: list[tuple[Any, ...]] = []
    swapper = results.rate(engine_name(BATCH))
    for kind in (*KINDS, *FINER):
        alone, served = results.rate(alone_name(kind)), results.rate(served_name(kind))
        peers, spared = (results.rate(peers_name(kind, spared=each)) for each in (False, True))
        if all(each is None for each in (alone, served, peers, spared)):
            continue
        both = 1 / (1 / alone + 1 / swapper) if alone and swapper else None
        percent = f"{100 * served / both:.0f}" if served and both else None
        times = f"{served / peers:.1f}" if served and peers else None
        shown = None if both is None else round(both, 1)
        rows.append((kind, alone, shown, served, percent, peers, times, spared))
    return rows


NOTE: Final = (
    f"One face a frame, 1080p. Served as {MASKED_MODE} (an enhancer: {PRICE_MODE}), {IN_FLIGHT} "
    "requests in flight, float16; "
    f"the peers' networks are float32 but the swapper's, {PEER_THREADS} threads. In turn: what "
    "both engines make alone if one runs after the other."
)

EXTRA_HEAD: Final = (
    "", f"its engine, faces/s at batch {BATCH}", "swapper's and its engine in turn, faces/s",
    "ensemble, frames/s", "% of the engines", "peers' way, frames/s", "times the peers' way",
    "peers' way spared, frames/s",
)  # fmt: skip
