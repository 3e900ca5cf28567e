"""The assignment of least cost, beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from frameswap.persons.matching import match
from scipy.optimize import linear_sum_assignment


@pytest.mark.parametrize("seed", range(40))
def test_the_sum_is_the_least(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 9, 2)
    costs = random.uniform(0.0, 2.0, (rows, columns))
    costs[random.uniform(size=costs.shape) < 0.2] = np.inf
    pairs = match(costs.tolist(), most=1.0)
    # SciPy's has no "alone": a column of its own for each row stands for it.
    alone = np.where(np.eye(rows, dtype=bool), 1.0, 1e6)
    padded = np.hstack([np.where(np.isinf(costs), 1e6, costs), alone])
    least = padded[linear_sum_assignment(padded)].sum()
    ours = sum(costs[pair] for pair in pairs) + (rows - len(pairs))
    assert ours == pytest.approx(least)
    assert all(costs[pair] <= 1.0 for pair in pairs)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)


def test_nobody_goes_with_nobody() -> None:
    assert match([], most=1.0) == []
    assert match([[], []], most=1.0) == []
    assert match([[float("inf")]], most=1.0) == []


def test_a_near_pair_does_not_take_another_ones_only_chance() -> None:
    """Greedy would give row 0 its nearest, and leave row 1 alone."""
    assert match([[0.1, 0.2], [0.15, float("inf")]], most=1.0) == [(0, 1), (1, 0)]
