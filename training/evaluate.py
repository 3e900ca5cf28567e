"""Measure weights on people kept out of training: `python -m training.evaluate --data DIR W...`."""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training import face_mesh, measures
from training.augment import align_five_points, lid_offsets
from training.checkpoints import SWAPPER_FILE, load_swapper
from training.faces import Faces, HeldOut
from training.judges import Landmarker, Recogniser
from training.networks import Swapper, reach
from training.warping import pixel_grid, sample_pixels

BLINKS = (0.0, 0.25, 0.5, 0.75, 1.0)
BLINK_PAIRS = 8
YAW_DEGREES, TURNED_PAIRS = 35, 8
DRAWN_EVERY = 3
"""Every so many pairs, occluders are drawn on the target and glasses and a fringe on the source."""
Row = dict[str, float]


class Descriptions(NamedTuple):
    """Of one face: sface (1, 128), a unit vector; dlib (128,), where it is installed."""

    sface: Tensor
    dlib: npt.NDArray[np.float64] | None


class Evaluation:
    """The kept-out crops and the judges."""

    def __init__(self, data: Path) -> None:
        self.data, self.held_out = data, HeldOut.load(data)
        self.recogniser = Recogniser(data / "sface.onnx").eval()
        self.landmarker = Landmarker(data / "landmarker.onnx").eval()
        self.independent = measures.IndependentJudge.find()

    def landmarks(self, images: Tensor) -> Tensor:
        """(B, 478, 3) px."""
        return self.landmarker(images)[0]

    def identity(self, images: Tensor) -> Tensor:
        """(B, 128) unit vectors."""
        return self.recogniser(self.recogniser.align(images))[0]

    def pairs(self, swapper: Swapper) -> tuple[Row, list[Tensor]]:
        """Means over the pairs, and a strip a pair: source, target, swap, mask."""
        found: dict[str, list[float]] = defaultdict(list)
        strips = []
        for done, (source, target) in enumerate(self.held_out.pairs):
            if done % 7 == 0:
                print(f"pair {done} of {len(self.held_out.pairs)}", file=sys.stderr, flush=True)
            images = [self.held_out.crops[k : k + 1] for k in (source, target)]
            points = [self.landmarks(image) for image in images]
            known = [self.describe_held_out(k) for k in (source, target)]
            prepared = swapper.prepare(images[1], points[1], images[0], points[0])
            swapped = swapper.paint(prepared)
            image = swapped.image.clamp(0, 1)
            for name, value in self.judge(image, images[1], points[1], known).items():
                found[name].append(value)
            found["rim steps"].append(float(measures.rim_steps(swapped, prepared)))
            if done % DRAWN_EVERY == 0:
                drawn = self._occluded(swapper, images, points)
                drawn |= self._carried(swapper, images, points, image)
                for name, value in drawn.items():
                    found[name].append(value)
            strips.append(torch.cat([*images, image, swapped.mask.expand(-1, 3, -1, -1)], 3)[0])
        return {name: float(np.mean(values)) for name, values in found.items()}, strips

    def _describe(self, image: Tensor) -> Descriptions:
        other = None if self.independent is None else self.independent.describe(image[0])
        return Descriptions(self.identity(image), other)

    @functools.cache  # noqa: B019 - one evaluation is made, and lives as long as the program
    def describe_held_out(self, number: int) -> Descriptions:
        return self._describe(self.held_out.crops[number : number + 1])

    def judge(self, image: Tensor, target: Tensor, goal: Tensor, known: list[Descriptions]) -> Row:
        """`known`: of the source and of the target."""
        points, mine = self.landmarks(image), self._describe(image)
        row = {
            "lips and eyes, px": float(measures.expression_error(points, goal)),
            "mouth opening error": float(
                (measures.mouth_opening(points) - measures.mouth_opening(goal)).abs()
            ),
            "eye opening error": float(
                (measures.eye_opening(points) - measures.eye_opening(goal)).abs()
            ),
            "coarse colour error": float(measures.colour_error(image, target)),
        }
        for whose, other in zip(("source", "target"), known, strict=True):
            row[f"SFace cosine to {whose}"] = float((mine.sface * other.sface).sum())
            if mine.dlib is not None and other.dlib is not None:
                row[f"dlib distance to {whose}"] = float(np.linalg.norm(mine.dlib - other.dlib))
        return row

    def _occluded(self, swapper: Swapper, images: list[Tensor], points: list[Tensor]) -> Row:
        """Share of each drawn occluder's pixels that a swap keeps, a 2 px band left out."""
        row = {}
        for name, draw in measures.OCCLUDERS.items():
            drawn = draw(points[1][0].numpy())
            hidden = drawn.over(images[1])
            # The landmarks, too, come from what the camera sees.
            prepared = swapper.prepare(hidden, self.landmarks(hidden), images[0], points[0])
            at = _origins(swapper, prepared.landmarks, self.landmarks(hidden))
            alpha = measures.eroded(sample_pixels(drawn.alpha, at))
            where = alpha * (reach(prepared.labels) > 0.1)
            image = swapper.paint(prepared).image
            kept = ((image - prepared.target).abs().amax(1, keepdim=True) < 0.05).float()
            row[f"{name} kept"] = float((kept * where).sum() / where.sum().clamp_min(1))
        return row

    def _carried(
        self, swapper: Swapper, images: list[Tensor], points: list[Tensor], clean: Tensor
    ) -> Row:
        """How much of what is drawn on the source shows in the swap; 0 none, 1 all."""
        row = {}
        plain = swapper.prepare(images[1], points[1], images[0], points[0])
        for name, draw in (("fringe", measures.draw_fringe), ("glasses", measures.draw_glasses)):
            drawn = draw(points[0][0].numpy())
            worn = swapper.prepare(images[1], points[1], drawn.over(images[0]), points[0])
            alpha = sample_pixels(drawn.alpha, worn.source_at) * reach(worn.labels)
            shown = (swapper.paint(worn).image - clean).abs() * alpha
            given = (worn.source[:, :3] - plain.source[:, :3]).abs() * alpha
            row[f"source's {name} carried along"] = float(shown.sum() / given.sum().clamp_min(1))
        return row

    def blinks(self, swapper: Swapper) -> Row:
        """Targets whose eyes are closed step by step, by the training's own method."""
        wanted: list[Tensor] = []
        shown: list[Tensor] = []
        for source, target in self.held_out.pairs[:BLINK_PAIRS]:
            image = self.held_out.crops[source : source + 1]
            points = self.landmarks(image)
            open_eyes = self.held_out.crops[target : target + 1]
            closed = torch.cat([self._close(open_eyes, amount) for amount in BLINKS])
            goal = self.landmarks(closed)
            count = len(BLINKS)
            swaps = swapper(
                closed, goal, image.expand(count, -1, -1, -1), points.expand(count, -1, -1)
            ).image
            for openings, marks in ((wanted, goal), (shown, self.landmarks(swaps))):
                opening = measures.eye_opening(marks)
                openings.append(opening / opening[0])
        return {
            "drawn blinks, eye opening correlation": measures.correlation(
                torch.cat(wanted), torch.cat(shown)
            ),
            "opening left when shut: target": float(torch.stack(wanted)[:, -1].mean()),
            "opening left when shut: swap": float(torch.stack(shown)[:, -1].mean()),
        }

    def _close(self, image: Tensor, amount: float) -> Tensor:
        at = pixel_grid()
        offsets = lid_offsets(self.landmarks(image), torch.tensor([amount]))
        return sample_pixels(image, torch.cat([at[:, :1], at[:, 1:] + offsets], 1))

    def turned(self, swapper: Swapper) -> Row:
        """Targets whose heads are turned by the landmarks' own warp, as no photo is at hand."""
        found: dict[str, list[float]] = defaultdict(list)
        for source, target in self.held_out.pairs[:TURNED_PAIRS]:
            image = self.held_out.crops[source : source + 1]
            points = self.landmarks(image)
            known = self.describe_held_out(source)
            for yaw in (-YAW_DEGREES, YAW_DEGREES):
                turned = self._turn(swapper, target, math.radians(yaw))
                goal = self.landmarks(turned)
                swap = swapper(turned, goal, image, points).image.clamp(0, 1)
                error = measures.expression_error(self.landmarks(swap), goal)
                found[f"turned {YAW_DEGREES} degrees: lips and eyes, px"].append(float(error))
                mine = self._describe(swap)
                if mine.dlib is not None and known.dlib is not None:
                    distance = float(np.linalg.norm(mine.dlib - known.dlib))
                    found["the same: dlib distance to source"].append(distance)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _turn(self, swapper: Swapper, number: int, yaw: float) -> Tensor:
        image = self.held_out.crops[number : number + 1]
        own = self.landmarks(image)
        middle = own.mean(1, keepdim=True)
        about_y = torch.tensor([[math.cos(yaw), 0.0, math.sin(yaw)], [0.0, 1.0, 0.0],
                                [-math.sin(yaw), 0.0, math.cos(yaw)]])  # fmt: skip
        goal = (own - middle) @ about_y.T + middle
        place = align_five_points(goal)
        at = place.origin(_origins(swapper, place.move(goal), place.move(own)))
        return sample_pixels(image, at)

    def clips(self, swapper: Swapper, sources: Sequence[int] = (2, 0)) -> Row:
        """Clips that are kept out of training as targets, with kept-out sources."""
        found: dict[str, list[float]] = defaultdict(list)
        for frames, source in zip(self.speech, sources, strict=False):
            image = self.held_out.crops[source : source + 1]
            points = self.landmarks(image)
            goal = torch.cat([self.landmarks(frame[None]) for frame in frames])
            swaps = [
                swapper(frame[None], marks[None], image, points).image
                for frame, marks in zip(frames, goal, strict=True)
            ]
            seen = torch.cat([self.landmarks(swap.clamp(0, 1)) for swap in swaps])
            for name, opening in (("mouth", measures.mouth_opening), ("eye", measures.eye_opening)):
                value = measures.correlation(opening(goal), opening(seen))
                found[f"clips, {name} opening correlation"].append(value)
            unsteady = measures.flicker(torch.cat(swaps)) / measures.flicker(frames)
            found["clips, flicker against the target's"].append(unsteady)
        return {name: float(np.mean(values)) for name, values in found.items()}

    @functools.cached_property
    def speech(self) -> list[Tensor]:
        """The kept-out clips, (T, 3, 256, 256) RGB 0..1 each."""
        faces = Faces.load(self.data, torch.device("cpu"))
        following = set(faces.neighbour.tolist())
        kept_out = (faces.frequency == 0) & (faces.neighbour >= 0)
        starts = [row for row in torch.nonzero(kept_out)[:, 0].tolist() if row not in following]
        clips = []
        for start in starts:
            rows = [start]
            while faces.neighbour[rows[-1]] >= 0:
                rows.append(int(faces.neighbour[rows[-1]]))
            inner = slice(face_mesh.MARGIN, face_mesh.MARGIN + face_mesh.CROP)
            clips.append(faces.pixels[rows][:, :, inner, inner].float() / 255)
        return clips


def _origins(swapper: Swapper, landmarks: Tensor, own: Tensor) -> Tensor:
    """Where a crop's pixels were before `own` landmarks were moved: (B, 2, 256, 256) px."""
    goal = landmarks[..., :2]
    fields = swapper.warper.fields(goal, own[..., :2] - goal, anchored=2)
    return swapper.warper.positions(fields)


def write_sheet(path: Path, strips: list[Tensor], columns: int = 2) -> None:
    """All strips in one PNG. It shows people: look at it, do not publish it."""
    rows = [
        torch.cat(strips[k : k + columns], 2) for k in range(0, len(strips) - columns + 1, columns)
    ]
    pixels = (torch.cat(rows, 1).clamp(0, 1).permute(1, 2, 0).numpy() * 255).round()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels.astype(np.uint8)[:, :, ::-1]):
        raise OSError(f"{path} could not be written")


def open_evaluation(data: Path) -> Evaluation:
    """The kept-out people of a data directory; says where dlib will not judge them."""
    evaluation = Evaluation(data)
    if evaluation.independent is None:
        print("dlib is not installed: no independent judge", file=sys.stderr)
    return evaluation


def print_table(rows: dict[str, Row]) -> None:
    """A Markdown table, a column for each set of weights."""
    print("| what | " + " | ".join(rows) + " |")
    print("|---|" + "---|" * len(rows))
    names = dict.fromkeys(name for row in rows.values() for name in row)
    for name in names:
        cells = [f"{row[name]:.3f}" if name in row else "-" for row in rows.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Compare weights on kept-out people. dlib judges too where it is installed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("weights", type=Path, nargs="+", metavar="W", help="folders of swapper.npz")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sheet", type=Path, metavar="DIR", help="write a sheet for each W here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--no-clips", action="store_true", help="leave the kept-out speech out")
    return parser.parse_args(arguments)


@torch.inference_mode()
def main() -> int:
    """Print the table."""
    options = parse_arguments()
    evaluation = open_evaluation(options.data)
    rows: dict[str, Row] = {}
    for folder in options.weights:
        swapper, step = load_swapper(folder / SWAPPER_FILE)
        name = f"{folder.name} (step {step})"
        rows[name], strips = evaluation.pairs(swapper.eval())
        rows[name] |= evaluation.blinks(swapper)
        rows[name] |= evaluation.turned(swapper)
        if not options.no_clips:
            rows[name] |= evaluation.clips(swapper)
        if options.sheet is not None:
            write_sheet(options.sheet / f"{folder.name}.png", strips)
    print_table(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
