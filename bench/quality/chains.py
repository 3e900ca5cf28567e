"""Both chains, with one server, one swapper and the same frames; and what a row of the table is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from frameswap import Casting, FaceSwapper, FoundFrame, Placement, Source, SwapOptions, SwappedFrame
from frameswap.found_faces import FoundFaces
from frameswap.persons import follow
from frameswap.persons.looking import ServerLooker
from frameswap.persons.plan import SteadyPlan, finding_options
from numpy.typing import NDArray

from bench.quality.relief import Relief, make_relief
from bench.quality.scenes import CROPS, Head, Image, Points, Pose, affine, cut_head, scene

Floats = NDArray[np.float32]

AHEAD: Final = 12
FPS: Final = 25
SIZES: Final = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
FRAMES: Final = 48


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    off: str
    on: str
    bar: str
    holds: bool | None = None


@dataclass
class Bench:
    """What every row needs.

    pictures: a folder for clips to look at; None: none.
    rows: of each head, its row of `faces` and its landmarks, pixels of its picture.
    """

    swapper: FaceSwapper
    pictures: Path | None = None
    heads: dict[str, Head] = field(default_factory=dict)
    reliefs: dict[str, Relief] = field(default_factory=dict)
    rows: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in CROPS:
            image = cut_head(name)
            found = self.swapper.find(image)
            head = Head(name, image, found.faces[0, 5:].reshape(5, 2).astype(np.float64))
            self.heads[name] = head
            self.rows[name] = found.faces[0], found.landmarks[0]
            yaw_deg = float(found.pose[0, 0])
            self.reliefs[name] = make_relief(head, found.landmarks[0], yaw_deg)
            drawn = scene(640, 360, [(head, Pose(320, 180, 300))])
            if len(self.swapper.find(drawn).faces) != 1:
                raise ValueError(f"the picture of {name} shows more than one face, or none")
        for name in ("gauss", "newton"):
            self.sources[name] = self.swapper.encode_source(self.heads[name].image)

    @property
    def everyone(self) -> Casting:
        return Casting.everyone(self.sources["newton"])

    def off(self, frames: Sequence[Image]) -> list[SwappedFrame]:
        return list(self.swapper.stream(frames, self.sources["newton"]))

    def on(self, frames: Sequence[Image]) -> list[SwappedFrame]:
        return list(
            follow(self.swapper, frames, self.everyone, pixel="i420", ahead=AHEAD, frame_rate=FPS)
        )

    def at_true_places(
        self, frames: Sequence[Image], head: Head, poses: Sequence[Pose]
    ) -> list[SwappedFrame]:
        """Swap a head with its points where they truly are: no chain can place it better."""
        face, mesh = self.rows[head.name]
        sources = [self.sources["newton"]]

        def plan(founds: Iterator[FoundFrame]) -> Iterator[Placement]:
            for pose, _ in zip(poses, founds, strict=True):
                row, points = move_face(face, mesh, affine(head, pose))
                yield Placement(row[None], sources, points[None])

        return list(self.swapper.stream_found(frames, plan, persons=1, ahead=AHEAD + 1))

    def planned(
        self, frames: Sequence[Image], *, ahead: int = AHEAD
    ) -> tuple[list[FoundFrame], list[Placement]]:
        """What is found in frames, and where it is placed; nothing is swapped."""
        founds = list(self.swapper.find_stream(frames, finding_options(SwapOptions())))
        plan = SteadyPlan(
            self.everyone, ahead=ahead, options=SwapOptions(), looker=_Nobody(), mesh_rows=4,
            frame_rate=FPS,
        )  # fmt: skip
        return founds, list(plan(iter(founds)))

    def cast(
        self, frames: Sequence[Image], casting: Casting
    ) -> tuple[list[SwappedFrame], list[Placement]]:
        """Swap frames, and tell what was placed in each."""
        finding, placed = finding_options(SwapOptions()), []
        plan = SteadyPlan(
            casting, ahead=AHEAD, options=SwapOptions(), looker=ServerLooker(self.swapper, finding),
            mesh_rows=4, frame_rate=FPS,
        )  # fmt: skip

        def kept(founds: Iterator[FoundFrame]) -> Iterator[Placement]:
            for placement in plan(founds):
                placed.append(placement)
                yield placement

        swapped = self.swapper.stream_found(
            frames, kept, finding=finding, persons=len(casting.roles), ahead=AHEAD + 1
        )
        return list(swapped), placed

    def show(self, name: str, swapped: Sequence[SwappedFrame]) -> None:
        """Write frames as pictures that a person may look at."""
        if self.pictures is None:
            return
        folder = self.pictures / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, each in enumerate(swapped):
            bgr = cv2.cvtColor(each.frame, cv2.COLOR_YUV2BGR_I420)
            cv2.imwrite(str(folder / f"{index:03d}.png"), bgr)


def move_face(face: Floats, mesh: Floats, matrix: Points) -> tuple[Floats, Floats]:
    """A row of `faces` and its landmarks (P, 3), moved by a similarity (2, 3)."""
    row, points = face.copy(), mesh.copy()
    # A turned box is the one around it.
    x1, y1, x2, y2 = face[:4]
    corners = move_points(np.array([[x1, y1], [x2, y1], [x1, y2], [x2, y2]], np.float32), matrix)
    row[:2], row[2:4] = corners.min(axis=0), corners.max(axis=0)
    row[5:] = move_points(face[5:].reshape(5, 2), matrix).reshape(-1)
    points[:, :2] = move_points(mesh, matrix)
    points[:, 2] *= np.float32(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    return row, points


def move_points(points: Floats, matrix: Points) -> Floats:
    """x and y (N, 2) of points (N, 2 or more), moved by a similarity (2, 3)."""
    return np.asarray(points[:, :2] @ matrix[:, :2].T + matrix[:, 2], np.float32)


class _Nobody:
    """A looker where nobody is to be asked."""

    def embed(self, frame: object, face: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("an embedding was asked for")

    def find_in(self, *asked: object) -> list[FoundFaces]:
        raise AssertionError("a part of a frame was asked for")


def to_bgr(swapped: SwappedFrame) -> Image:
    return np.asarray(cv2.cvtColor(swapped.frame, cv2.COLOR_YUV2BGR_I420), np.uint8)


def is_swapped(swapped: SwappedFrame) -> bool:
    return any(verdict == 0 for verdict in swapped.verdicts)
