"""Made-up faces and people for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from frameswap.found_faces import FoundFaces
from frameswap.persons.eyes import Eyes
from frameswap.sources import Source

# Five points of an upright face, in units of the distance of its eyes.
FIVE = np.float32([[-0.5, -0.4], [0.5, -0.4], [0.0, 0.1], [-0.35, 0.55], [0.35, 0.55]])
POINTS = 6


def face_at(x: float, y: float, eyes_px: float = 40.0, score: float = 0.9) -> np.ndarray:
    """(15,) float32: a row of `faces`."""
    points = FIVE * eyes_px + np.float32([x, y])
    box = [x - eyes_px, y - 1.2 * eyes_px, x + eyes_px, y + 1.2 * eyes_px]
    return np.concatenate([box, [score], points.reshape(-1)]).astype(np.float32)


def found(*faces: np.ndarray) -> FoundFaces:
    rows = np.stack(faces) if faces else np.zeros((0, 15), np.float32)
    meshes = np.zeros((len(rows), POINTS, 3), np.float32)
    for mesh, row in zip(meshes, rows, strict=True):
        mesh[:5, :2] = row[5:].reshape(5, 2)
    return FoundFaces(rows, meshes, np.zeros((len(rows), 3), np.float32))


def person(number: int) -> np.ndarray:
    """(8,) float32: a person's embedding, at a right angle to everybody else's."""
    return np.eye(8, dtype=np.float32)[number]


def source_of(number: int) -> Source:
    return Source(
        np.full(4, number, np.float32), "identity", "fake_identity", np.zeros((0, 15), np.float32)
    )


class PaintedEyes(Eyes):
    """Of a frame whose people stand at known places; counts who is asked for.

    people: place (x) to person's number.
    """

    def __init__(self, people: Mapping[float, int], *, shot: int = 0) -> None:
        super().__init__([])
        self._people = people
        self._shot = shot
        self.asked = 0

    def thumbnail(self) -> np.ndarray:
        return np.full((9, 16), 100.0 * self._shot, np.float32)

    def found(self, given: FoundFaces | None) -> FoundFaces:
        assert given is not None
        return given

    def embed(self, face: np.ndarray) -> np.ndarray:
        self.asked += 1
        x = float(face[5:].reshape(5, 2).mean(axis=0)[0])
        return person(self._people[min(self._people, key=lambda place: abs(place - x))])


def tracks_of(samples: Sequence[object]) -> list[int]:
    return [sample.track for sample in samples]  # type: ignore[attr-defined]
