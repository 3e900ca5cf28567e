"""More pixels of a swapped face, by six ways: a picture sheet, and what each way costs and gives.

    python -m bench.finer_faces --output out/finer_faces

A crop of 128 pixels; the same with Real-ESRGAN behind it, both networks; the same swapped as four
or sixteen interleaved crops (pixel boost); a crop of 256. Pictures are the project's own swapper's,
on paintings, through the served graphs; arithmetic is inswapper_128's, whose weights are not free.

Sharpness: what is left of the Laplacian's energy of the source photo's face, both brought to the
same framing at 512 pixels. Likeness: cosine of SFace's embeddings of the swapped face and of the
photo.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx

from demo.photos import read_photo
from engines.deployment import Deployment
from engines.samples import Image, Samples, answer, open_session
from engines.served_graphs import served_graphs
from engines.shapes import infer_shapes
from engines.typed_graphs import YARDSTICK
from fetching import weights
from graphs.alignment import TEMPLATES
from graphs.contract import LANDMARK_COLUMN
from networks.enhancers import ENHANCERS
from networks.landmarkers import DEFAULT_LANDMARKER, LANDMARKERS
from networks.recognizers import RECOGNIZERS
from networks.swappers import SWAPPERS

INSWAPPER_GFLOP: Final = 349.15
"""A face of 128 pixels (`bench.random_inswapper`); it grows with the number of pixels."""
FRAMED: Final = 512
"""Side of the framing in which faces are compared, pixels."""
INNER: Final = (slice(205, 395), slice(165, 347))
"""Of that framing: brows to mouth between the eyes' outer corners, where nothing of the target is
shown."""
FACE_PX: Final = 520
"""Height of the targets' faces: more pixels than any way's crop but the largest."""
PAIRS: Final = (("newton", "gauss"), ("gauss", "newton"))
"""Source and target."""


@dataclass(frozen=True)
class Way:
    """crop: the swapper's, pixels. boost: pixel boost. enhancer: a name, "" for none."""

    name: str
    crop: int = 128
    boost: int = 1
    enhancer: str = ""

    def deployment(self) -> Deployment:
        row = SWAPPERS["image_swapper_256"]
        swapper = replace(
            row, crop_size=self.crop, source_size=self.crop, source_length=self.crop**2,
            pixel_boosts=(self.boost,),
        )  # fmt: skip
        return Deployment(
            swapper=swapper,
            detector="yunet",
            recognizer=RECOGNIZERS["sface"],
            landmarker=LANDMARKERS[DEFAULT_LANDMARKER],
            pixel_boost=self.boost,
            enhancer=ENHANCERS[self.enhancer] if self.enhancer else None,
        )

    def gflop(self) -> float:
        """Of inswapper_128 at this size, and of the enhancer."""
        pixels = (self.crop * self.boost / 128) ** 2
        return INSWAPPER_GFLOP * pixels + (enhancer_gflop(self.enhancer) if self.enhancer else 0)


WAYS: Final = (
    Way("128"),
    Way("128, animevideov3", enhancer="realesr_animevideov3_x4"),
    Way("128, x4plus", enhancer="realesrgan_x4plus"),
    Way("128, pixel boost 2", boost=2),
    Way("128, pixel boost 4", boost=4),
    Way("256", crop=256),
)


def enhancer_gflop(name: str, side: int = 128) -> float:
    """Of one crop, two operations a multiply-accumulate."""
    return 2e-9 * multiply_accumulates(weights.load_network(name), {"data": (1, 3, side, side)})


def multiply_accumulates(
    network: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> int:
    """Of the convolutions of a network, from its own shapes."""
    renamed = {network.graph.input[0].name: next(iter(shapes.values()))}
    made = {tensor.name: tensor.shape for tensor in infer_shapes(network, renamed).tensors}
    trained = {tensor.name: tensor.dims for tensor in network.graph.initializer}
    return sum(
        int(np.prod(trained[node.input[1]])) * int(np.prod(made[node.output[0]][2:]))
        for node in network.graph.node
        if node.op_type == "Conv"
    )


def painted(name: str) -> Image:
    """A painting whose face is about `FACE_PX` tall; sides even."""
    photo = read_photo(name)
    top, bottom = _face_of(photo)
    scale = FACE_PX / (bottom - top)
    size = (round(photo.shape[1] * scale / 2) * 2, round(photo.shape[0] * scale / 2) * 2)
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _face_of(photo: Image) -> tuple[float, float]:
    even = photo[: photo.shape[0] // 2 * 2, : photo.shape[1] // 2 * 2]
    faces = _samples(WAYS[0], [even]).of("face_landmarker")[0].expected["faces"]
    return float(faces[0, 0, 1]), float(faces[0, 0, 3])


def _samples(way: Way, frames: Sequence[Image]) -> Samples:
    deployment = way.deployment()
    graphs = served_graphs(deployment, YARDSTICK)
    return Samples(
        lambda model: graphs[model].author(weights.load_network), frames, deployment.extras
    )


def framed(frame: Image, face: np.ndarray[Any, Any]) -> Image:
    """(512, 512, 3): a face (15 columns) as GFPGAN's template has it."""
    points = face[LANDMARK_COLUMN:].reshape(5, 2)
    warp, _ = cv2.estimateAffinePartial2D(points, TEMPLATES["ffhq_512"] * FRAMED)
    return np.asarray(cv2.warpAffine(frame, warp, (FRAMED, FRAMED)), np.uint8)


def sharpness(face: Image) -> float:
    """Energy of the Laplacian from brows to mouth."""
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return float(np.var(cv2.Laplacian(grey, cv2.CV_32F)[INNER]))


def embedder() -> Callable[[Image, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """A frame and its faces [1, M, 15] to the embedding of the first."""
    graphs = served_graphs(WAYS[0].deployment(), YARDSTICK)
    session = open_session(graphs["face_recognizer"].author(weights.load_network))
    return lambda frame, faces: answer(session, {"frame": frame[None], "faces": faces})[
        "embedding"
    ][0]


def measure(way: Way, source: Image, target: Image, embed: Any) -> tuple[Image, dict[str, float]]:
    """The swapped face in the framing of comparison, and its figures."""
    samples = _samples(way, [source, target])
    swapped = samples.of("face_blender_bgr")[1].expected["swapped_frame"][0]
    faces = [sample.expected["faces"] for sample in samples.of("face_landmarker")]
    photo = framed(source, faces[0][0, 0])
    shown = framed(swapped, faces[1][0, 0])
    vectors = [embed(source, faces[0]), embed(swapped, faces[1])]
    first, second = (vector / np.linalg.norm(vector) for vector in vectors)
    return shown, {
        "sharpness": sharpness(shown) / sharpness(photo),
        "likeness": float(first @ second),
    }


def sheet(rows: Sequence[Sequence[Image]], names: Sequence[str], side: int = 256) -> Image:
    """Faces beside each other, a row a pair, the ways' names above."""
    head = np.full((28, side * len(names), 3), 255, np.uint8)
    for position, name in enumerate(names):
        cv2.putText(
            head, name, (position * side + 6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
    # the middle of each face at its own resolution: what sharpness is about
    cut = slice((FRAMED - side) // 2 + 24, (FRAMED + side) // 2 + 24)
    middle = slice((FRAMED - side) // 2, (FRAMED + side) // 2)
    return np.vstack([head, *(np.hstack([face[cut, middle] for face in row]) for row in rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("out/finer_faces"))
    output: Path = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name in {way.enhancer for way in WAYS if way.enhancer}:
        weights.fetch(name)
    embed = embedder()
    figures: dict[str, dict[str, float]] = {way.name: {"GFLOP": way.gflop()} for way in WAYS}
    rows = []
    for source_name, target_name in PAIRS:
        source, target = painted(source_name), painted(target_name)
        row = []
        for way in WAYS:
            face, found = measure(way, source, target, embed)
            row.append(face)
            for key, value in found.items():
                mean = figures[way.name].get(key, 0.0) + value / len(PAIRS)
                figures[way.name][key] = mean
            print(f"{source_name} on {target_name}, {way.name}: {found}", flush=True)
        rows.append(row)
    cv2.imwrite(
        str(output / "finer_faces.jpg"), sheet(rows, [way.name for way in WAYS]),
        [cv2.IMWRITE_JPEG_QUALITY, 88],
    )  # fmt: skip
    (output / "finer_faces.json").write_text(json.dumps(figures, indent=2))
    print("| way | GFLOP a face | sharpness | likeness |\n|---|---|---|---|")
    for name, row_figures in figures.items():
        print(
            f"| {name} | {row_figures['GFLOP']:,.0f} | {row_figures['sharpness']:.2f} "
            f"| {row_figures['likeness']:.3f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
