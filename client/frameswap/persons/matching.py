"""Who goes with whom at the least cost: the assignment problem, for the few faces of a frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["match"]


def match(costs: Sequence[Sequence[float]], *, most: float) -> list[tuple[int, int]]:
    """Pair rows with columns so that the pairs' costs sum to the least.

    A row or column may stay alone, as if it had a partner of its own at the cost `most`: no pair
    costs more. The shortest augmenting path of Kuhn and Munkres (Jonker and Volgenant, Computing
    38, 1987), O(n^3): a frame has at most 16 faces, and SciPy is no dependency of the client.

    Args:
        costs: R rows of C numbers, 0 or more; infinite where a pair cannot be.
        most: what a pair may cost, at most; finite.

    Returns:
        (row, column) of each pair, by row.
    """
    rows = len(costs)
    columns = len(costs[0]) if rows else 0
    alone = range(rows)
    # Column `columns + r` is row r staying alone.
    never = 4.0 * most + 1.0
    padded = [
        [*(min(cost, never) for cost in row), *(most if each == own else never for each in alone)]
        for own, row in enumerate(costs)
    ]
    partners = _assign(padded)
    return [
        (row, column)
        for row, column in enumerate(partners)
        if column < columns and costs[row][column] <= most
    ]


def _assign(costs: Sequence[Sequence[float]]) -> list[int]:
    """The column of each row; there are at least as many columns as rows."""
    rows, columns = len(costs), len(costs[0]) if costs else 0
    # Potentials and paths count from 1; row and column 0 stand for "none".
    of_rows, of_columns = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owners = [0] * (columns + 1)
    for row in range(1, rows + 1):
        owners[0] = row
        column = 0
        slack = [math.inf] * (columns + 1)
        before = [0] * (columns + 1)
        used = [False] * (columns + 1)
        while owners[column]:
            used[column] = True
            owner, step, following = owners[column], math.inf, 0
            for other in range(1, columns + 1):
                if used[other]:
                    continue
                left = costs[owner - 1][other - 1] - of_rows[owner] - of_columns[other]
                if left < slack[other]:
                    slack[other], before[other] = left, column
                if slack[other] < step:
                    step, following = slack[other], other
            for other in range(columns + 1):
                if used[other]:
                    of_rows[owners[other]] += step
                    of_columns[other] -= step
                else:
                    slack[other] -= step
            column = following
        while column:
            owners[column] = owners[before[column]]
            column = before[column]
    partners = [0] * rows
    for column, owner in enumerate(owners):
        if column and owner:
            partners[owner - 1] = column - 1
    return partners
