"""From a landmark network's outputs to points in its view, one way for every row of data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphs.shapes import Op, constant
from networks.landmarkers import Landmarker, PointOutput


def decode_points(
    op: Op, landmarker: Landmarker, outputs: Mapping[str, ir.Value]
) -> ir.Value:
    """Points [N, P, 3] float32 in pixels of the view (`points` rows: sides of the template).

    x and y of a point are those of the last output that answers it; z is 0 where the row has no
    depth.

    Args:
        outputs: the network's outputs by name, [N, ...]; the first one is the one without a name.
    """
    tables = [_table(op, row, outputs) for row in landmarker.outputs]
    x_and_y = [op.Slice(table, [0], [2], [2]) for table in tables]
    order = _last_places(landmarker.outputs)
    flat = op.Gather(op.Concat(*x_and_y, axis=1), constant(op, order), axis=1)
    if landmarker.has_depth:
        depth = _depth(op, landmarker, tables)
    else:
        depth = op.Mul(op.Slice(flat, [0], [1], [2]), 0.0)
    points = op.Concat(flat, depth, axis=2)
    return points if landmarker.unit == 1.0 else op.Mul(points, landmarker.unit)


def _table(op: Op, row: PointOutput, outputs: Mapping[str, ir.Value]) -> ir.Value:
    """An output as [N, points, columns]."""
    value = outputs[row.name] if row.name else next(iter(outputs.values()))
    return op.Reshape(value, [-1, len(row.points), row.columns])


def _last_places(outputs: tuple[PointOutput, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each point, the last row that answers it of the outputs' tables laid end to end."""
    places: dict[int, int] = {}
    place = 0
    for row in outputs:
        for point in row.points:
            places[point] = place
            place += 1
    return np.array([places[point] for point in sorted(places)], np.int64)


def _depth(op: Op, landmarker: Landmarker, tables: list[ir.Value]) -> ir.Value:
    """z [N, P, 1]: of the outputs with three columns, and of means over some of those."""
    sources = [op.Slice(tables[0], [2], [3], [2])]
    rows = [landmarker.outputs[0]]
    for row, table in zip(landmarker.outputs[1:], tables[1:], strict=True):
        if row.columns == 3:
            sources.append(op.Slice(table, [2], [3], [2]))
        elif row.depth_from:
            known = op.Gather(
                sources[0], constant(op, np.array(row.depth_from, np.int64)), axis=1
            )
            mean = op.ReduceMean(known, [1], keepdims=1)
            sources.append(op.Concat(*[mean] * len(row.points), axis=1))
        else:
            continue
        rows.append(row)
    if len(sources) == 1:
        return sources[0]
    order = constant(op, _last_places(tuple(rows)))
    return op.Gather(op.Concat(*sources, axis=1), order, axis=1)


def sees_face(
    op: Op, landmarker: Landmarker, outputs: Mapping[str, ir.Value]
) -> ir.Value | None:
    """Whether the network says that its view shows a face: bool [N, 1]; None: it does not say.

    NaN is no face.
    """
    flag = landmarker.flag
    if flag.kind == "none":
        return None
    if flag.kind == "logit":
        score = outputs[flag.output]
    elif flag.kind == "heatmaps":
        maps = list(outputs.values())[1]
        score = op.ReduceMean(op.ReduceMax(maps, [2, 3], keepdims=0), [1], keepdims=1)
    else:
        table = _table(op, landmarker.outputs[0], outputs)
        score = op.ReduceMean(op.Squeeze(op.Slice(table, [2], [3], [2]), [2]), [1], keepdims=1)
    return op.Greater(score, flag.threshold)
