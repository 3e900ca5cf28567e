"""Who is put into the frame: one encoded person, and the average of several photos of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frameswap.errors import BadSource
from frameswap.models import Ensemble, SourceKind

__all__ = ["Source", "average_sources"]


@dataclass(frozen=True, eq=False)
class Source:
    """One person, in the form that one swapper wants.

    vector: (D,) float32: an identity, or a flattened picture of the face.
    kind: "identity" (may be averaged over photos) or "image" (may not).
    swapper: the name of the swapper that it was encoded for.
    faces: (F, 15) float32, the faces found in the photo, the one taken first; pixels.
    """

    vector: NDArray[np.float32]
    kind: SourceKind
    swapper: str
    faces: NDArray[np.float32]


def average_sources(sources: Sequence[Source]) -> Source:
    """Average several photos of one person.

    The mean of the vectors is given the mean of their lengths back: unit vectors stay unit
    vectors, and a converter's output keeps its scale.

    Raises:
        BadSource: none, sources of different swapper, or several images for an image swapper.
    """
    if not sources:
        raise BadSource("at least one source is needed, none was given")
    first = sources[0]
    if len(sources) == 1:
        return first
    swappers = sorted({source.swapper for source in sources})
    if len(swappers) > 1:
        raise BadSource(
            f"sources encoded for different swappers cannot be averaged: {', '.join(swappers)}"
        )
    if first.kind != "identity":
        raise BadSource(
            f"the server's swapper {first.swapper} takes one photo, not {len(sources)}: photos are "
            f"averaged for identity swappers only; give the best one"
        )
    vectors = np.stack([source.vector for source in sources]).astype(np.float64)
    mean = vectors.mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise BadSource("the photos' identities cancel each other out: are they of one person?")
    mean *= np.linalg.norm(vectors, axis=1).mean() / length
    return Source(mean.astype(np.float32), first.kind, first.swapper, first.faces)


def slot_count(persons: int, *, most: int) -> int:
    """K for a number of persons: rounded up to 1, 2, 4, 8 or 16, at most `most`.

    Requests of few different K form batches, and C++ TensorRT wants few shapes.
    """
    return min(1 << (persons - 1).bit_length(), most)


def stack_sources(
    sources: Source | Sequence[Source], ensemble: Ensemble, *, persons: int = 0
) -> NDArray[np.float32]:
    """Make the `source` tensor of a request: (K, D) float32, slot k for the k-th face.

    K is the number of sources, or `persons` where that is more, rounded up (`slot_count`); a row of
    zeros is no source.

    Raises:
        BadSource: none or too many, another swapper's, of another length, or not finite.
    """
    several = [sources] if isinstance(sources, Source) else list(sources)
    if not 1 <= len(several) <= ensemble.max_faces:
        raise BadSource(
            f"a frame takes 1 to {ensemble.max_faces} sources on this server, one a face, "
            f"not {len(several)}"
        )
    for source in several:
        if source.swapper != ensemble.swapper:
            raise BadSource(
                f"a source was encoded for the swapper {source.swapper}, but the server has "
                f"{ensemble.swapper}: encode the photo again on this server"
            )
        if source.vector.ndim != 1 or ensemble.source_length not in (-1, source.vector.size):
            raise BadSource(
                f"a source of {ensemble.swapper} is a vector of {ensemble.source_length} numbers, "
                f"not {source.vector.shape}"
            )
        if not np.isfinite(source.vector).all():
            raise BadSource("a source has numbers that are not finite: encode the photo again")
    rows = slot_count(max(persons, len(several)), most=ensemble.max_faces)
    stacked = np.zeros((rows, several[0].vector.size), np.float32)
    for row, source in zip(stacked, several, strict=False):
        row[:] = source.vector
    return stacked
