"""What an occluder, a parser and an enhancer cost a face on a CPU, beside the steps without them.

    python -m bench.extra_costs

Each served graph alone in ONNX Runtime, one thread, one face: the least of some runs, in turn, so
that a busy machine disturbs all alike. Published architectures with random weights
(`bench.random_extras`) and Real-ESRGAN's own networks; `image_swapper_256`, crops of 256
pixels (128 for Real-ESRGAN's: a crop of 256 takes them four times as long).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from bench import random_extras
from bench.finer_faces import Way
from bench.gpu.extras import row_feed
from bench.scenes import Scene
from engines.deployment import Deployment
from engines.served_graphs import served_graphs
from engines.targets import TARGETS
from fetching import weights
from graphs.alignment import TEMPLATES
from graphs.contract import FACES, FRAME, LANDMARK_COLUMN, MaskFlag, Option
from networks.enhancers import ENHANCERS
from networks.maskers import OCCLUDERS, PARSERS

_PLAIN = Way("256", crop=256).deployment()
_SMALL = Way("128").deployment()
_FREE = ("realesr_animevideov3_x4", "realesrgan_x4plus")

CASES: tuple[tuple[str, str, Deployment, dict[Option, float]], ...] = (
    ("face_swapper", "face_swapper", _PLAIN, {}),
    ("face_aligner_i420, 1080p", "face_aligner_i420", _PLAIN, {}),
    ("face_aligner_i420, 1080p, for gfpgan_1.4", "face_aligner_i420",
     replace(_PLAIN, enhancer=ENHANCERS["gfpgan_1.4"]), {}),
    ("face_masker", "face_masker", _PLAIN, {}),
    ("face_masker, xseg_1", "face_masker", replace(_PLAIN, occluder=OCCLUDERS["xseg_1"]), {}),
    ("face_masker, bisenet_resnet_34", "face_masker",
     replace(_PLAIN, parser=PARSERS["bisenet_resnet_34"]), {}),
    ("face_masker, bisenet_resnet_34, not asked", "face_masker",
     replace(_PLAIN, parser=PARSERS["bisenet_resnet_34"]),
     {Option.MASKS: float(MaskFlag.BOX | MaskFlag.HULL)}),
    ("face_enhancer, gfpgan_1.4", "face_enhancer",
     replace(_PLAIN, enhancer=ENHANCERS["gfpgan_1.4"]), {}),
    ("face_enhancer, gfpgan_1.4, blend 0", "face_enhancer",
     replace(_PLAIN, enhancer=ENHANCERS["gfpgan_1.4"]), {Option.ENHANCER: 1.0}),
    *((f"face_enhancer, {name}, crop 128", "face_enhancer",
       replace(_SMALL, enhancer=ENHANCERS[name]), {}) for name in _FREE),
)  # fmt: skip
"""A name, the model, what it is deployed with, and what a request asks for."""


def load_network(name: str) -> onnx.ModelProto:
    if name in random_extras.BYTES:
        return random_extras.build(name)
    weights.fetch(name)
    return weights.load_network(name)


def prepare(
    model: str, deployment: Deployment, options: dict[Option, float]
) -> tuple[onnxruntime.InferenceSession, dict[str, np.ndarray[Any, Any]]]:
    """The session of a served graph, and one face to run it on."""
    graph = served_graphs(deployment, TARGETS["cpu"])[model].author(load_network)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    feeds = {entry.name: _feed(entry.name, entry.shape) for entry in session.get_inputs()}
    for option, value in options.items():
        feeds["options"][:, option] = value
    return session, feeds


def _feed(name: str, shape: list[Any]) -> np.ndarray[Any, Any]:
    """One face; the aligner's is 300 pixels tall, in a frame of 1080p."""
    if name == FRAME:
        return Scene("one face").i420()[None]
    fed = row_feed(name, shape, 1)
    if name == FACES.name:
        fed[0, 0, LANDMARK_COLUMN:] = (TEMPLATES["ffhq_512"] * 400 + [760, 340]).reshape(-1)
    return fed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, after one")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has it")
    options = parser.parse_args(arguments)
    cases = [c for c in CASES if not options.only or any(t in c[0] for t in options.only)]
    ready = [(name, *prepare(model, made, asked)) for name, model, made, asked in cases]
    least: dict[str, float] = {}
    for _ in range(options.rounds + 1):
        for name, session, feeds in ready:
            start = time.perf_counter()
            session.run(None, feeds)
            spent = time.perf_counter() - start
            least[name] = min(least.get(name, spent), spent)
    print("| graph | ms a face |\n|---|---|")
    for name, spent in least.items():
        print(f"| {name} | {spent * 1e3:,.1f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
