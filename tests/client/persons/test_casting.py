"""Who plays what, from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from frameswap import BadOptions, BadSource, FaceOrder
from frameswap.persons.casting import Casting, Director, Present, Role, rank
from frameswap.persons.identity import Identity
from people import person, source_of


def present(track: int, x: float = 0.0, *, side: float = 50.0, who: int | None = None) -> Present:
    identity = Identity() if who is None else Identity().and_seen(person(who))
    return Present(track, np.float32([x, 10, x + side, 10 + side]), 0.9, identity)


def cast(director: Director, *here: Present, shot: bool = False, later: Sequence = ()) -> dict:
    return dict(director.cast(here, begins_shot=shot, ahead=lambda: list(later)))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (FaceOrder.LARGEST_FIRST, [2, 0, 1]), (FaceOrder.SMALLEST_FIRST, [1, 0, 2]),
        (FaceOrder.LEFT_TO_RIGHT, [1, 0, 2]), (FaceOrder.RIGHT_TO_LEFT, [2, 0, 1]),
    ],
)  # fmt: skip
def test_the_order_is_the_servers(order: FaceOrder, expected: list[int]) -> None:
    here = [present(0, 100), present(1, 0, side=20), present(2, 300, side=90)]
    assert [each.track for each in rank(here, order)] == expected


def test_the_largest_keeps_its_role_until_another_is_larger_for_good() -> None:
    director = Director(Casting.everyone(source_of(1)))
    small, large = present(0, side=50), present(1, 200, side=52)
    larger = present(0, side=60)
    assert cast(director, small, large, shot=True) == {0: 1}
    # For a moment.
    assert cast(director, larger, large, later=[[small, large]]) == {0: 1}
    assert cast(director, larger, large, later=[[larger, large]] * 3) == {0: 0}


def test_who_leaves_gives_the_role_to_who_waits() -> None:
    director = Director(Casting.everyone(source_of(1), faces=2))
    a, b, c = present(0, side=90), present(1, 200, side=80), present(2, 400, side=70)
    assert cast(director, a, b, c, shot=True) == {0: 0, 1: 1}
    assert cast(director, b, c) == {1: 1, 0: 2}


def test_a_reference_is_a_person_wherever_she_stands() -> None:
    pairs = [(person(1), source_of(1)), (person(2), source_of(2))]
    director = Director(Casting.by_reference(pairs))
    assert cast(director, present(7, 0, who=2), present(8, 90, who=1), shot=True) == {0: 8, 1: 7}
    assert cast(director, present(9, 0, who=3), present(8, 300, who=1)) == {0: 8}
    # Two who look like one reference: the one who plays it goes on.
    assert cast(director, present(8, 0, who=1), present(5, 60, who=1)) == {0: 8}
    assert cast(director, present(4, 0), shot=True) == {}


def test_a_role_that_was_given_by_place_stays_with_the_person() -> None:
    casting = Casting.by_order([source_of(1), source_of(2)], FaceOrder.LEFT_TO_RIGHT)
    director = Director(casting)
    assert casting.knows_persons
    assert cast(director, present(0, 300, who=5), present(1, 0, who=6), shot=True) == {0: 1, 1: 0}
    # They have changed places; and come back after a cut, as other tracks.
    assert cast(director, present(0, 0, who=5), present(1, 300, who=6)) == {0: 1, 1: 0}
    assert cast(director, present(2, 0, who=5), shot=True) == {1: 2}
    assert cast(director, present(3, 0, who=7), present(4, 90, who=6), shot=True) == {0: 4}


def test_by_place_is_whoever_stands_there() -> None:
    director = Director(Casting.by_place([source_of(1), source_of(2)], FaceOrder.LEFT_TO_RIGHT))
    here = [present(0, 0), present(1, 300)]
    there = [present(0, 300), present(1, 0)]
    assert cast(director, *here, shot=True) == {0: 0, 1: 1}
    assert cast(director, *there, later=[here]) == {0: 0, 1: 1}
    assert cast(director, *there, later=[there] * 3) == {0: 1, 1: 0}


def test_what_is_no_casting_is_refused() -> None:
    with pytest.raises(BadSource, match="1 to 16 persons can be given a face, not 0"):
        Casting(())
    with pytest.raises(BadOptions, match="either all roles have a reference, or none"):
        Casting((Role(source_of(1)), Role(source_of(2), person(1))))


def test_a_reference_of_another_recogniser_is_named() -> None:
    """A sheet that was made with a server of other networks."""
    director = Director(Casting.by_reference([(np.eye(16, dtype=np.float32)[1], source_of(1))]))
    message = (
        "a person is described by 16 numbers, and this server's recogniser gives 8: make the sheet"
    )
    with pytest.raises(BadSource, match=message):
        cast(director, present(7, who=1), shot=True)
