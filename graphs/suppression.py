"""Non-maximum suppression and the order of faces, without data-dependent shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.contract import FACE_COLUMNS, MAX_DETECTIONS
from graphs.shapes import Op, constant, dimension, split, to_float, to_int64, typed_value

_DEAD = -1.0
"""Score of a candidate that is out; thresholds are never negative."""

_LAST = float(np.finfo(np.float32).min)
"""Sort key of an empty row."""


@dataclass(frozen=True)
class Kept:
    """The candidates that survive, best first, 16 rows.

    index: [B, 16] int64, which candidate; arbitrary where nothing was found.
    scores: [B, 16] float32. found: [B, 16] bool.
    """

    index: ir.Value
    scores: ir.Value
    found: ir.Value


@dataclass(frozen=True)
class _Boxes:
    """What every round reads. low, high: [B, 2, N] corners, the high ones exclusive; area:
    [B, 1, N]; table: [B, 5, N], all of these; number: [1, 1, N], 0 .. N - 1; limit: [B, 1, 1]."""

    low: ir.Value
    high: ir.Value
    area: ir.Value
    table: ir.Value
    number: ir.Value
    limit: ir.Value
    count: int


def _prepare(op: Op, boxes: ir.Value, count: int, nms_threshold: ir.Value) -> _Boxes:
    low, last = split(op, boxes, 2, 1)
    high = op.Add(last, 1.0)
    width, height = split(op, op.Sub(high, low), 2, 1)
    area = op.Mul(width, height)
    table = op.Concat(low, high, area, axis=1)
    number = constant(op, np.arange(count, dtype=np.float32)[None, None])
    return _Boxes(low, high, area, table, number, op.Unsqueeze(nms_threshold, [2]), count)


def _first_of(op: Op, boxes: _Boxes, alive: ir.Value, best: ir.Value) -> ir.Value:
    """Index [B, 1, 1] int64 of the first candidate that scores `best`."""
    tied = op.Where(op.Equal(alive, best), boxes.number, float(boxes.count))
    return to_int64(op, op.ReduceMin(tied, [2], keepdims=1))


def _drop_overlapping(op: Op, boxes: _Boxes, alive: ir.Value, index: ir.Value) -> ir.Value:
    """Scores [B, 1, N] with the pick and what it suppresses out.

    Args:
        alive: [B, 1, N] float32, scores; `_DEAD` for candidates that are out.
        index: [B, 1, 1] int64, the pick.
    """
    row = op.GatherElements(boxes.table, op.Expand(index, [1, 5, 1]), axis=2)
    low = op.Slice(row, [0], [2], [1])
    high = op.Slice(row, [2], [4], [1])
    area = op.Slice(row, [4], [5], [1])
    sides = op.Relu(op.Sub(op.Min(boxes.high, high), op.Max(boxes.low, low)))
    wide, tall = split(op, sides, 2, 1)
    shared = op.Mul(wide, tall)
    overlap = op.Div(shared, op.Sub(op.Add(boxes.area, area), shared))
    # the pick itself is out too, even where its box is so small that it has no overlap
    pick = to_float(op, index)
    out = op.Or(op.Greater(overlap, boxes.limit), op.Equal(boxes.number, pick))
    return op.Where(out, _DEAD, alive)


def suppress(
    op: Op,
    scores: ir.Value,
    boxes: ir.Value,
    *,
    anchor_count: int,
    score_threshold: ir.Value,
    nms_threshold: ir.Value,
    loop: bool = False,
) -> Kept:
    """Exact greedy non-maximum suppression, the first 16 that it keeps.

    Sixteen rounds of "take the best, suppress what overlaps it", over all candidates. (A fixed
    point over an overlap matrix is not exact on chains: A suppresses B, so B must not suppress C.)
    Of equal scores the lowest index is taken.
    Overlap is measured with insightface's inclusive pixels, width = x2 - x1 + 1, and a candidate
    is suppressed when intersection / union > threshold. NaN scores are never candidates.

    Args:
        scores: [B, N] float32. boxes: [B, 4, N] float32, x1 y1 x2 y2, frame pixels.
        anchor_count: N.
        score_threshold, nms_threshold: [B, 1] float32, the first above 0.
        loop: write the rounds as a `Loop` that ends when no row of the batch has a candidate
            left, not one after the other. A compiler fuses written-out rounds; an interpreter
            pays for every operator, and most frames have one face.

    Source: insightface 2.1, model_zoo/scrfd.py, SCRFD.nms.
    """
    eligible = op.GreaterOrEqual(scores, score_threshold)
    alive = op.Unsqueeze(op.Where(eligible, scores, _DEAD), [1])
    prepared = _prepare(op, boxes, anchor_count, nms_threshold)
    if loop:
        found = _loop(op, prepared, alive)
    else:
        picks, bests = [], []
        for _ in range(MAX_DETECTIONS):
            best = op.ReduceMax(alive, [2], keepdims=1)
            index = _first_of(op, prepared, alive, best)
            alive = _drop_overlapping(op, prepared, alive, index)
            picks.append(index)
            bests.append(best)
        found = op.Concat(*picks, axis=2), op.Concat(*bests, axis=2)
    index, top = (op.Squeeze(value, [1]) for value in found)
    return Kept(index, top, op.Greater(top, 0.0))


def _best(op: Op, alive: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Index int64 and score float32 [B, 1, 1] of the first candidate with the highest score.

    ArgMax, not a maximum over the scores: in ONNX Runtime the latter is cuDNN's on a GPU, which
    takes 0.42 ms for 16 rows of 8,400 on an H100 where ArgMax takes 4 us; of equal values it
    gives the first (its `select_last_index` is 0).
    """
    index = op.ArgMax(alive, axis=2, keepdims=1)
    return index, op.GatherElements(alive, index, axis=2)


def _loop(op: Op, boxes: _Boxes, alive: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Indices int64 and scores float32 [B, 1, 16] of the picks; `_DEAD` after the last."""

    def any_left(op: Op, best: ir.Value) -> ir.Value:
        return op.Squeeze(op.Greater(op.ReduceMax(best, keepdims=1), 0.0), [0, 1, 2])

    def body(
        op: Op, _round: ir.Value, _go: ir.Value, alive: ir.Value, index: ir.Value, best: ir.Value
    ) -> list[ir.Value]:
        rest = _drop_overlapping(op, boxes, alive, index)
        next_index, next_best = _best(op, rest)
        picked = [op.Identity(index), op.Identity(best)]
        return [any_left(op, next_best), rest, next_index, next_best, *picked]

    floats, whole = ir.DataType.FLOAT, ir.DataType.INT64
    one, all_of_them = ("B", 1, 1), ("B", 1, boxes.count)
    index, best = _best(op, alive)
    *_, picks, scores = GraphAuthor.loop(
        op,
        body,
        constant(op, np.array(MAX_DETECTIONS)),
        [alive, index, best],
        name="suppression_round",
        index="round",
        before=[
            typed_value("alive_before", floats, *all_of_them),
            typed_value("index_before", whole, *one),
            typed_value("best_before", floats, *one),
        ],
        after=[
            typed_value("alive_after", floats, *all_of_them),
            typed_value("index_after", whole, *one),
            typed_value("best_after", floats, *one),
            typed_value("pick", whole, *one),
            typed_value("pick_score", floats, *one),
        ],
        start=lambda: any_left(op, best),
    )
    filled = []
    for rows, filler in ((picks, 0), (scores, _DEAD)):
        size = op.Concat([MAX_DETECTIONS], dimension(op, alive, 0), [1], [1], axis=0)
        padded = op.Concat(rows, op.Expand(op.CastLike(filler, rows), size), axis=0)
        first = op.Slice(padded, [0], [MAX_DETECTIONS], [0])
        filled.append(op.Transpose(op.Squeeze(first, [3]), perm=[1, 2, 0]))
    return filled[0], filled[1]


def order_faces(op: Op, rows: ir.Value, order: ir.Value) -> ir.Value:
    """Rows of `faces` in the order that each batch row asks for; empty rows last.

    Largest and smallest by box area, left and right by x1, top and bottom by y1, best and worst by
    score. Equal keys keep the given order.

    Args:
        rows: [B, 16, 15] float32, best score first; score 0 marks an empty row.
        order: [B, 1] float32, a `FaceOrder` code.
    """
    x1, y1, x2, y2, score = (op.Slice(rows, [i], [i + 1], [2]) for i in range(5))
    area = op.Mul(op.Sub(x2, x1), op.Sub(y2, y1))
    # codes come in pairs: 2 k sorts downwards by column k of these, 2 k + 1 upwards
    keys = op.Concat(area, op.Neg(x1), op.Neg(y1), score, axis=2)
    pair = op.Floor(op.Mul(order, 0.5))
    sign = op.Sub(1.0, op.Mul(op.Sub(order, op.Mul(pair, 2.0)), 2.0))
    column = op.Expand(op.Unsqueeze(to_int64(op, pair), [1]), [1, MAX_DETECTIONS, 1])
    key = op.Mul(op.GatherElements(keys, column, axis=2), op.Unsqueeze(sign, [1]))
    key = op.Where(op.Greater(score, 0.0), key, _LAST)
    # rank = number of rows that go before this one
    count = np.arange(MAX_DETECTIONS)
    earlier = constant(op, (count[None, :] < count[:, None])[None])
    other = op.Transpose(key, perm=[0, 2, 1])
    before = op.Or(op.Greater(other, key), op.And(op.Equal(other, key), earlier))
    rank = op.ReduceSum(to_float(op, before), [2], keepdims=0)
    place = constant(op, count.astype(np.float32)[None, :, None])
    chosen = to_float(op, op.Equal(op.Unsqueeze(rank, [1]), place))
    source = op.ReduceSum(
        op.Mul(chosen, constant(op, count.astype(np.float32)[None, None])), [2], keepdims=1
    )
    index = op.Expand(to_int64(op, source), [1, 1, FACE_COLUMNS])
    return op.GatherElements(rows, index, axis=1)
