"""Who a face is: embeddings, and what is known of a person by several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.errors import BadSource

__all__ = ["SAME_PERSON", "Identity", "average_embeddings", "likeness"]

Array = NDArray[np.float32]

SAME_PERSON: Final = 0.363
"""Cosine from which on two faces are one person's: SFace's own threshold (OpenCV's sample
face_match.cpp). ArcFace's networks keep two persons below it, too."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What is known of who somebody is.

    total: (E,) float32: sum of the unit embeddings seen. seen: how many.
    """

    total: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    seen: int = 0

    @property
    def is_known(self) -> bool:
        return self.seen > 0

    @property
    def embedding(self) -> Array:
        """(E,) float32 of unit length; of somebody who is known."""
        return np.asarray(self.total / np.linalg.norm(self.total), np.float32)

    def and_seen(self, embedding: Array) -> Identity:
        """What is known after one more look."""
        return Identity(embedding if not self.seen else self.total + embedding, self.seen + 1)


def likeness(first: Array, second: Array) -> float:
    """The cosine between two embeddings of unit length."""
    return float(np.dot(first, second))


def average_embeddings(embeddings: Sequence[Array]) -> Array:
    """One person by several photos: (E,) float32 of unit length.

    Raises:
        BadSource: none, or photos that cancel each other out.
    """
    if not embeddings:
        raise BadSource("at least one photo of a person is needed, none was given")
    total = np.sum([np.asarray(each, np.float64) for each in embeddings], axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise BadSource("the photos' identities cancel each other out: are they of one person?")
    return np.asarray(total / length, np.float32)
