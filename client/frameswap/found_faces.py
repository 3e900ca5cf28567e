"""Faces that were found, and which of them are swapped with whom: between the two steps.

`find` looks, the caller decides, `swap_found` swaps: the server keeps nothing in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FACE_COLUMNS, MAX_DETECTIONS
from frameswap.errors import BadFaces
from frameswap.frames import Frame
from frameswap.models import Ensemble
from frameswap.sources import Source

__all__ = [
    "FoundFaces",
    "FoundFrame",
    "Placement",
    "Plan",
    "placement_rows",
    "placement_tensors",
]


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """Faces of one frame, in the order asked for; N of them.

    faces: (N, 15) float32: x1 y1 x2 y2, score, five landmarks x y; pixels. The five landmarks are
        the landmark network's where it looked at the face.
    landmarks: (N, P, 3) float32: x, y in pixels, z in the same unit, away from the viewer. Zeros
        where the network did not look: it sees the first F faces, and is missing in some servers.
    pose: (N, 3) float32: yaw, pitch and roll in degrees; zeros where there are no landmarks.
    """

    faces: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    pose: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FoundFrame:
    """A frame and the faces found in it."""

    frame: Frame
    found: FoundFaces


@dataclass(frozen=True, eq=False)
class Placement:
    """Which faces of one frame are swapped, and with whom: row k of each belongs to slot k.

    faces: (R, 15) float32, at most one row a source is swapped. A row of zeros is an empty slot.
    sources: one a slot.
    landmarks: (R, P, 3) float32, pixels; rows of zeros, or None, for none: the five points stand as
        they are given, and the mask is the box.
    weights: (S,) float32, how much of the swap of each of the first S rows is shown, 0 to 1; None
        is all. A request has one weight for all its faces, so the client mixes (`fading`).
    """

    faces: NDArray[np.float32]
    sources: Source | Sequence[Source]
    landmarks: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None


Plan = Callable[[Iterator[FoundFrame]], Iterable[Placement]]
"""Reads found frames in order, some ahead if it likes, and yields one placement for each."""


def placement_rows(placement: Placement) -> NDArray[np.float32]:
    """`faces` of a request, (M, 15) float32, C-contiguous.

    Raises:
        BadFaces: no such rows, or too many.
    """
    given = np.asarray(placement.faces, np.float32)
    if given.ndim != 2 or given.shape[1] != FACE_COLUMNS or len(given) > MAX_DETECTIONS:
        raise BadFaces(
            f"faces are at most {MAX_DETECTIONS} rows of {FACE_COLUMNS} numbers, not {given.shape}"
        )
    faces = np.zeros((MAX_DETECTIONS, FACE_COLUMNS), np.float32)
    faces[: len(given)] = given
    return faces


def placement_tensors(
    placement: Placement, ensemble: Ensemble
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`faces` (M, 15) and `landmarks` (F, P, 3) of a request, float32, C-contiguous.

    Raises:
        BadFaces: other shapes than the server takes.
    """
    faces = placement_rows(placement)
    rows, points = ensemble.landmark_shape
    if rows < 0 or points < 0:
        raise BadFaces(
            f"the model {ensemble.name} does not say how many landmarks it takes: start the server "
            f"for a target that was built (for example `--model-config-name=cpu`)"
        )
    landmarks = np.zeros((rows, points, 3), np.float32)
    if placement.landmarks is None:
        return faces, landmarks
    meshes = np.asarray(placement.landmarks, np.float32)
    if meshes.ndim != 3 or meshes.shape[1:] != (points, 3) or len(meshes) > MAX_DETECTIONS:
        raise BadFaces(
            f"landmarks are a row of {points} points x, y, z for each face on this server, not "
            f"{meshes.shape}"
        )
    if meshes[rows:].any():
        raise BadFaces(
            f"this server takes landmarks of the first {rows} rows of faces: put the faces that "
            f"have some there, or leave the others' landmarks at zero"
        )
    landmarks[: min(rows, len(meshes))] = meshes[:rows]
    return faces, landmarks
