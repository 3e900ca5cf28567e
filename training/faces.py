"""The data directory: face crops, their landmarks, who they are, and the shape statistics.

README.md has the format. Everything is moved to the device once; batches are made there.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from training.face_mesh import CROP, MARGIN, mirror_points
from training.worn import WEARER, glasses_score

LANDMARK_UNITS: Final = 64
"""Landmarks are stored as int16 in 1/64 px of the 256 x 256 crop."""
_SET_WEIGHTS: Final = {"grid": 0.45, "voteview": 0.12, "london": 1.6}
"""How often a crop is drawn, by the beginning of its set's name; 1 for the others. Frames of a clip
repeat each other, voteview is black and white, London is the best lit and has two expressions."""
_NEIGHBOUR_PX: Final = 4.0
_KEPT_OUT_SPEAKERS: Final = slice(3, None, 4)
"""Of the people of set "grid", in order: their clips are for the evaluation alone."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ShapeStatistics:
    """mean: (478, 3) px about its centre; expression: (16, 1434); identity: (48, 1434)."""

    mean: npt.NDArray[np.float32]
    expression: Tensor
    identity: Tensor

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> ShapeStatistics:
        """Read DIR/geometry.npz."""
        with np.load(directory / "geometry.npz", allow_pickle=False) as stored:
            mean = stored["M"].astype(np.float32)
            bases = [torch.from_numpy(stored[key].astype(np.float32)) for key in ("EB", "QB")]
        return cls(mean, bases[0].to(device), bases[1].to(device))


@dataclass(frozen=True)
class Faces:
    """N crops on one device.

    pixels: (N, 3, 320, 320) uint8 RGB. landmarks: (N, 478, 3) px of the inner 256 x 256.
    embeddings: (N, 128) unit vectors. expression, identity: (N, 16), (N, 48) coordinates.
    A shape is `scale * rotation @ (mean + identity + expression + rest) + shift`: (N,), (N, 3, 3),
    (N, 3). person: (N,) int64. frequency: (N,), how often each is drawn, 0 for kept-out speech.
    worn: (N,), 1 for wearers of glasses, else 0. neighbour: (N,) int64, the next frame of the same
    clip, or -1. by_person, first, count: the crops sorted by person, and where a crop's person
    begins in them and how many there are.
    """

    pixels: Tensor
    landmarks: Tensor
    embeddings: Tensor
    expression: Tensor
    identity: Tensor
    rotation: Tensor
    scale: Tensor
    shift: Tensor
    person: Tensor
    frequency: Tensor
    worn: Tensor
    neighbour: Tensor
    by_person: Tensor
    first: Tensor
    count: Tensor
    mirror: Tensor
    shapes: ShapeStatistics

    def __len__(self) -> int:
        """N."""
        return len(self.pixels)

    @property
    def frames_with_neighbour(self) -> Tensor:
        """The numbers of crops to train on that have a next frame."""
        return torch.nonzero((self.neighbour >= 0) & (self.frequency > 0))[:, 0]

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> Faces:
        """Read DIR/train*.npz, train_meta.npz and geometry.npz.

        Raises:
            ValueError: the crops and the table have different lengths.
        """
        pixels = load_crops(directory, "train")
        with np.load(directory / "train_meta.npz", allow_pickle=False) as stored:
            table: dict[str, Array] = {key: stored[key] for key in stored.files}
        if len(pixels) != len(table["pid"]):
            lengths = f"{len(pixels)} crops, {len(table['pid'])} rows in train_meta.npz"
            raise ValueError(f"{directory}: {lengths}; they must belong together")
        shapes = ShapeStatistics.load(directory, device)

        def column(key: str) -> Tensor:
            return torch.from_numpy(table[key].astype(np.float32)).to(device)

        landmarks = column("L") / (LANDMARK_UNITS if table["L"].dtype == np.int16 else 1)
        order, first, count = _sorted_by_person(table["pid"])
        frequency = np.array([_frequency(str(name)) for name in table["sets"]], np.float32)
        speakers = np.unique(table["pid"][table["sets"] == "grid"])
        frequency[np.isin(table["pid"], speakers[_KEPT_OUT_SPEAKERS])] = 0
        neighbour = _neighbours(table["sets"], table["pid"], landmarks.cpu().numpy())

        def numbers(values: Array) -> Tensor:
            return torch.from_numpy(values.astype(np.int64)).to(device)

        on_device = torch.from_numpy(pixels).to(device)
        return cls(
            pixels=on_device,
            landmarks=landmarks,
            embeddings=F.normalize(column("E"), dim=1),
            expression=column("ec"),
            identity=column("qc"),
            rotation=column("R"),
            scale=column("s"),
            shift=column("t"),
            person=numbers(table["pid"]),
            frequency=torch.from_numpy(frequency).to(device),
            worn=_wearers(on_device, landmarks),
            neighbour=numbers(neighbour),
            by_person=numbers(order),
            first=numbers(first),
            count=numbers(count),
            mirror=numbers(mirror_points(shapes.mean)),
            shapes=shapes,
        )


@dataclass(frozen=True)
class HeldOut:
    """Crops of people kept out of training, on the CPU.

    crops: (N, 3, 256, 256) float32 RGB 0..1. landmarks: (N, 478, 3) px. pairs: source, target.
    """

    crops: Tensor
    landmarks: Tensor
    pairs: list[tuple[int, int]]

    @classmethod
    def load(cls, directory: Path) -> HeldOut:
        """Read DIR/eval*.npz and eval_meta.npz."""
        pixels = load_crops(directory, "eval")
        with np.load(directory / "eval_meta.npz", allow_pickle=False) as stored:
            landmarks = torch.from_numpy(stored["L"].astype(np.float32))
            pairs = [(int(source), int(target)) for source, target in stored["pairs"]]
        inner = torch.from_numpy(pixels[:, :, 32:288, 32:288].copy()).float() / 255
        return cls(inner, landmarks, pairs)


def load_crops(directory: Path, stem: str) -> npt.NDArray[np.uint8]:
    """All crops of DIR/<stem>0.npz, <stem>1.npz, ...: (N, 3, 320, 320) RGB.

    Raises:
        FileNotFoundError: there is no such file.
    """
    files = sorted(directory.glob(f"{stem}[0-9].npz"))
    if not files:
        raise FileNotFoundError(f"{directory}/{stem}0.npz is not there; see training/README.md")
    encoded: list[Array] = []
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            data, offsets = stored["bytes"], stored["off"]
            encoded += [data[start:end] for start, end in itertools.pairwise(offsets)]

    def decode(jpeg: Array) -> Array:
        return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1].transpose(2, 0, 1)

    with ThreadPoolExecutor(8) as pool:
        return np.stack(list(pool.map(decode, encoded)))


def _wearers(pixels: Tensor, landmarks: Tensor) -> Tensor:
    inner = slice(MARGIN, MARGIN + CROP)
    scores = [
        glasses_score(crops[:, :, inner, inner].float() / 255, points)
        for crops, points in zip(pixels.split(64), landmarks.split(64), strict=True)
    ]
    return (torch.cat(scores) > WEARER).float()


def _frequency(name: str) -> float:
    return next((weight for stem, weight in _SET_WEIGHTS.items() if name.startswith(stem)), 1.0)


def _sorted_by_person(person: Array) -> tuple[Array, Array, Array]:
    order = np.argsort(person, kind="stable")
    ordered = person[order]
    first = np.searchsorted(ordered, person, "left")
    return order, first, np.searchsorted(ordered, person, "right") - first


def _neighbours(sets: Array, person: Array, landmarks: Array) -> Array:
    """Rows follow each other as frames do; a jump in the landmarks is where another clip begins."""
    following = np.full(len(person), -1)
    for row in range(len(person) - 1):
        same = sets[row] == sets[row + 1] == "grid" and person[row] == person[row + 1]
        moved = np.abs(landmarks[row + 1] - landmarks[row])[:, :2].mean()
        if same and moved < _NEIGHBOUR_PX:
            following[row] = row + 1
    return following
