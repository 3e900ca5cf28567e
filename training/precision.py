"""What float16 and 8 bits cost on faces: `python -m training.precision --data DIR`.

Each of the project's swappers is written and typed as a build does it, calibrated on crops of the
training set, and swaps the kept-out pairs. Judged are how far its crops stray from float32's and
what the judges of `training.evaluate` see: whose face it is, lips and eyes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor

from engines.precision import PRECISIONS, Precision, to_fp16
from engines.quantization import calibrate, quantize
from engines.rounding import with_explicit_rounding
from engines.samples import Tensors, answer, open_session
from fetching import weights
from graphs import face_swapper
from graphs.alignment import TEMPLATES
from graphs.contract import (
    FACE_COLUMNS,
    LANDMARK_COLUMN,
    MAX_DETECTIONS,
    OPTION_COUNT,
    SCORE_COLUMN,
)
from networks.swappers import SWAPPERS, Swapper
from training import face_mesh
from training.evaluate import Evaluation, Row, open_evaluation, print_table
from training.faces import load_crops

NAMES: Final = tuple(name for name, row in SWAPPERS.items() if row.points)
CALIBRATED_ON: Final = 16
"""Pairs of training crops."""


class Face(NamedTuple):
    """crop: (1, 3, 256, 256) RGB 0..1. points: (1, 478, 3) px."""

    crop: Tensor
    points: Tensor


def make_request(row: Swapper, source: Face, target: Face) -> Tensors:
    """What `face_swapper` is sent for one face whose frame is its crop."""
    side = row.crop_size
    faces = np.zeros((1, MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[0, 0, :4] = 0, 0, side, side
    faces[0, 0, SCORE_COLUMN] = 1
    faces[0, 0, LANDMARK_COLUMN:] = (TEMPLATES[row.template] * side).reshape(-1)
    levels = (source.crop[0] * 255).round().numpy()
    packed = levels[0] + 256 * levels[1] + 65_536 * levels[2]
    places = source.points[0].numpy() / side
    return {
        "crops": target.crop[None].numpy(),
        "source": np.concatenate([packed.ravel(), places.ravel()])[None, None].astype(np.float32),
        "faces": faces,
        "landmarks": target.points[None].numpy().astype(np.float32),
        "warps": np.eye(2, 3, dtype=np.float32)[None, None],
        "options": np.zeros((1, OPTION_COUNT), np.float32),
    }


def calibration(evaluation: Evaluation, row: Swapper) -> list[Tensors]:
    """Requests of neighbours among some crops that are spread over the training set."""
    pixels = load_crops(evaluation.data, "train")
    inner = slice(face_mesh.MARGIN, face_mesh.MARGIN + face_mesh.CROP)
    chosen = np.linspace(0, len(pixels) - 1, CALIBRATED_ON + 1).astype(int)
    crops = torch.from_numpy(pixels[chosen][:, :, inner, inner].copy()).float() / 255
    seen = [Face(crop[None], evaluation.landmarks(crop[None])) for crop in crops]
    return [make_request(row, *pair) for pair in itertools.pairwise(seen)]


def typed_graphs(
    row: Swapper, requests: Sequence[Tensors]
) -> Iterator[tuple[Precision, onnx.ModelProto]]:
    """The served graph in every precision, all convolutions that can be in 8 bits."""
    assert row.weight is not None
    plain = face_swapper.build(row, weights.load_network(row.weight), skip_empty=False)
    half, ranges = to_fp16(plain), calibrate(plain, requests)
    for precision in PRECISIONS:
        if precision == "fp32":
            yield precision, plain
        elif precision == "fp16":
            yield precision, with_explicit_rounding(half)
        else:
            yield precision, with_explicit_rounding(quantize(half, ranges, precision))


def swap_pairs(
    graph: onnx.ModelProto, row: Swapper, pairs: Sequence[tuple[Face, Face]]
) -> list[Tensor]:
    """The swap of each pair of source and target, (1, 3, 256, 256) RGB 0..1."""
    session, made = open_session(graph), []
    for source, target in pairs:
        found = answer(session, make_request(row, source, target))
        made.append(torch.from_numpy(found["swapped_crops"][0]))
    return made


def strayed(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> Row:
    """How far crops are from float32's."""
    psnr = [
        -10 * float(torch.log10((one - other).square().mean()))
        for one, other in zip(outputs, exact, strict=True)
    ]
    return {
        "crop PSNR, worst pair, dB": min(psnr),
        "crop PSNR, mean, dB": float(np.mean(psnr)),
    }


def judge(
    evaluation: Evaluation, pairs: Sequence[tuple[Face, Face]], outputs: Sequence[Tensor]
) -> Row:
    """Means of what the judges see."""
    found: dict[str, list[float]] = defaultdict(list)
    numbers = evaluation.held_out.pairs
    for both, (_, target), output in zip(numbers, pairs, outputs, strict=True):
        known = [evaluation.describe_held_out(number) for number in both]
        seen = evaluation.judge(output, target.crop, target.points, known)
        for name, value in seen.items():
            found[name].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def measure(
    evaluation: Evaluation, pairs: Sequence[tuple[Face, Face]], name: str
) -> dict[str, Row]:
    """One swapper in every precision."""
    row, rows = SWAPPERS[name], {}
    exact: list[Tensor] = []
    for precision, graph in typed_graphs(row, calibration(evaluation, row)):
        print(f"{name} in {precision}", file=sys.stderr, flush=True)
        outputs = swap_pairs(graph, row, pairs)
        exact = exact or outputs
        lost = strayed(outputs, exact) if precision != "fp32" else {}
        rows[f"{name} {precision}"] = judge(evaluation, pairs, outputs) | lost
    return rows


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.precision",
        description="Compare precisions on kept-out people. dlib judges too where it is installed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--swapper", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
        help="which of the project's networks"
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser.parse_args(arguments)


@torch.inference_mode()
def main() -> int:
    """Print a table."""
    options = parse_arguments()
    evaluation = open_evaluation(options.data)
    crops = evaluation.held_out.crops
    seen = [Face(crop[None], evaluation.landmarks(crop[None])) for crop in crops]
    pairs = [(seen[source], seen[target]) for source, target in evaluation.held_out.pairs]
    rows: dict[str, Row] = {}
    for name in options.swapper:
        rows |= measure(evaluation, pairs, name)
    print_table(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
