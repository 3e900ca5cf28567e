"""Who becomes whom: roles, and which track plays which of them in a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import MAX_DETECTIONS, FaceOrder
from frameswap.errors import BadOptions, BadSource
from frameswap.persons.identity import SAME_PERSON, Identity, likeness
from frameswap.persons.matching import match
from frameswap.sources import Source

__all__ = ["Casting", "Director", "Present", "Role", "rank"]

Array = NDArray[np.float32]

_LOYALTY: Final = 0.1
"""How much more like somebody else a face must be before its role changes."""


@dataclass(frozen=True, eq=False)
class Role:
    """One person's new face.

    reference: (E,) float32 of unit length, `FaceSwapper.embed` of who is replaced; None: the
        casting's order says who.
    """

    source: Source
    reference: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Casting:
    """Who becomes whom.

    order: which faces the roles without a reference are given to, in this order.
    remembers: whether such a role stays with the person who was given it first, wherever she goes.
        Otherwise it is whoever's stands there.
    """

    roles: tuple[Role, ...]
    order: FaceOrder = FaceOrder.LARGEST_FIRST
    remembers: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.roles) <= MAX_DETECTIONS:
            raise BadSource(f"1 to {MAX_DETECTIONS} persons can be given a face, not "
                            f"{len(self.roles)}")
        given = {role.reference is not None for role in self.roles}
        if len(given) > 1:
            raise BadOptions("either all roles have a reference, or none")

    @classmethod
    def everyone(
        cls, source: Source, *, faces: int = 1, order: FaceOrder = FaceOrder.LARGEST_FIRST
    ) -> Casting:
        """One source for the first so many faces of each frame, in that order."""
        return cls((Role(source),) * faces, order)

    @classmethod
    def by_place(
        cls, sources: Sequence[Source], order: FaceOrder = FaceOrder.LARGEST_FIRST
    ) -> Casting:
        """The k-th face of each frame is given the k-th source."""
        return cls(tuple(Role(source) for source in sources), order)

    @classmethod
    def by_order(cls, sources: Sequence[Source], order: FaceOrder) -> Casting:
        """The k-th person to be seen is given the k-th source, and keeps it; the order decides
        between those who are seen at once."""
        return cls(tuple(Role(source) for source in sources), order, remembers=True)

    @classmethod
    def by_reference(cls, pairs: Sequence[tuple[NDArray[np.float32], Source]]) -> Casting:
        """Each person who is like a reference is given its source, and nobody else any."""
        return cls(tuple(Role(source, reference) for reference, source in pairs))

    @property
    def knows_persons(self) -> bool:
        """Whether it takes embeddings to tell who is meant."""
        return self.remembers or self.roles[0].reference is not None


@dataclass(frozen=True, eq=False)
class Present:
    """A track in a frame. box: (4,) float32, x1 y1 x2 y2, pixels."""

    track: int
    box: Array
    score: float
    identity: Identity


def rank(present: Sequence[Present], order: FaceOrder) -> list[Present]:
    """Those present in an order: as the server ranks the faces of one frame."""

    def key(each: Present) -> float:
        x1, y1, x2, y2 = (float(side) for side in each.box)
        return ((x2 - x1) * (y2 - y1), -x1, -y1, each.score)[order // 2]

    return sorted(present, key=key, reverse=order % 2 == 0)


@dataclass(eq=False)
class Director:
    """Remembers from frame to frame who plays what."""

    casting: Casting
    _players: dict[int, int] = field(default_factory=dict)
    _learned: dict[int, Identity] = field(default_factory=dict)

    def cast(
        self,
        present: Sequence[Present],
        *,
        begins_shot: bool,
        ahead: Callable[[], Sequence[Sequence[Present]]],
    ) -> Mapping[int, int]:
        """The track of each role that is played in a frame.

        Args:
            present: the tracks in it.
            begins_shot: whether it is the first of a shot.
            ahead: gives those of the frames behind it, as far as is known and the shot goes.

        Raises:
            BadSource: a reference of another recogniser than the server's.
        """
        if begins_shot:
            self._players.clear()
        here = {each.track for each in present}
        self._players = {role: who for role, who in self._players.items() if who in here}
        if not self.casting.knows_persons:
            self._players = self._by_place(present, ahead)
        else:
            if self.casting.remembers:
                self._learn(present)
            self._players = self._by_person(present)
        return self._players

    def _by_place(
        self,
        present: Sequence[Present],
        ahead: Callable[[], Sequence[Sequence[Present]]],
    ) -> dict[int, int]:
        """The first so many in the order; who plays already stays until others are in front of her
        for as long as can be seen ahead."""
        wanted = self._first(present)
        playing = [self._players.get(role) for role in range(len(wanted))]
        if playing == wanted or not self._players:
            return dict(enumerate(wanted))
        held = set(self._players.values())
        if len(held) == len(wanted):
            later = [self._first(frame) for frame in ahead()]
            lasts = len(list(takewhile(lambda order: order == wanted, later))) == len(later)
            return dict(enumerate(wanted)) if later and lasts else self._players
        waiting = iter([track for track in wanted if track not in held])
        free = [role for role in range(len(self.casting.roles)) if role not in self._players]
        return {**self._players, **dict(zip(free, waiting, strict=False))}

    def _first(self, present: Sequence[Present]) -> list[int]:
        ranked = rank(present, self.casting.order)
        return [each.track for each in ranked[: len(self.casting.roles)]]

    def _by_person(self, present: Sequence[Present]) -> dict[int, int]:
        costs = [
            [self._unlikeness(role, each) for each in present]
            for role in range(len(self.casting.roles))
        ]
        if not present:
            return {}
        pairs = match(costs, most=1.0 - SAME_PERSON)
        return {role: present[number].track for role, number in pairs}

    def _unlikeness(self, role: int, each: Present) -> float:
        reference = self.casting.roles[role].reference
        if role in self._learned:
            reference = self._learned[role].embedding
        is_playing = self._players.get(role) == each.track
        if reference is None or not each.identity.is_known:
            return 0.0 if is_playing else float("inf")
        if reference.shape != each.identity.embedding.shape:
            raise BadSource(
                f"a person is described by {reference.size} numbers, and this server's recogniser "
                f"gives {each.identity.embedding.size}: make the sheet (`frameswap faces`) with "
                f"this server"
            )
        alike = likeness(reference, each.identity.embedding) + (_LOYALTY if is_playing else 0.0)
        return max(0.0, 1.0 - alike)

    def _learn(self, present: Sequence[Present]) -> None:
        """Give roles that nobody has played yet to those whom no role knows."""
        taken = set(self._by_person(present).values())
        strangers = [
            each for each in rank(present, self.casting.order)
            if each.track not in taken and each.identity.is_known
        ]  # fmt: skip
        free = [role for role in range(len(self.casting.roles)) if role not in self._learned]
        for role, each in zip(free, strangers, strict=False):
            self._learned[role] = each.identity
