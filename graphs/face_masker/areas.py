"""FaceFusion's area mask: the convex hull of some areas of the face, filled and faded inwards.

Landmarks are cut to whole pixels, the hull of those of the areas asked for is filled as OpenCV's
`fillConvexPoly` fills it, and blurred with a sigma of 5 pixels; of the blur's upper half 0 to 1 are
made, so that nothing is shown outside the hull.

No hull is looked for. In each row of pixels a hull reaches as far as the outermost of all lines
between two of its points does, so that every pair is asked. The blur is a product with a constant
matrix from either side.

Source: facefusion@33cc6b40, face_masker.py, `create_area_mask`; OpenCV's `FillConvexPoly` (columns
in steps of 2^-16, rounded, halves up) and `LineIterator` (halves toward the left end), whose
outline is filled with it.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.contract import AreaFlag
from graphs.shapes import Op, constant, to_float, to_int64
from networks.face_regions import FaceRegions

SIGMA_PX: Final = 5.0
_FIXED: Final = 65536.0
_FAR: Final = 1e6


def area_masks(
    op: Op, x: ir.Value, y: ir.Value, flags: ir.Value, regions: FaceRegions, size: int
) -> ir.Value:
    """Masks [N, 1, S, S] float32 in [0, 1]; of a row that names no area, one that means nothing.

    Args:
        x, y: landmarks [N, P] float32, pixels of the crop, finite.
        flags: [N, 1] whole numbers, sums of `AreaFlag`.
    """
    table = _points_of_areas(regions)
    longest = table.shape[1]
    index = op.Gather(constant(op, table), op.Squeeze(to_int64(op, flags), [1]), axis=0)
    # As near as this all that follows is exact in float32.
    places = (
        _cut(op, op.Clip(op.GatherElements(axis, index, axis=1), -float(size), 2.0 * size))
        for axis in (x, y)
    )
    left, right = _reach(op, *places, pairs=np.triu_indices(longest, 1), size=size)
    columns = constant(op, np.arange(size, dtype=np.float32))
    filled = op.And(
        op.GreaterOrEqual(columns, op.Unsqueeze(left, [2])),
        op.LessOrEqual(columns, op.Unsqueeze(right, [2])),
    )
    blur = _blur_matrix(size)
    blurred = op.MatMul(constant(op, blur), op.MatMul(to_float(op, filled), constant(op, blur.T)))
    faded = op.Mul(op.Sub(op.Clip(blurred, 0.5, 1.0), 0.5), 2.0)
    return op.Unsqueeze(faded, [1])


def _points_of_areas(regions: FaceRegions) -> npt.NDArray[np.int64]:
    """Landmarks of every sum of flags, a row each, the first once more where there are fewer."""
    everything = sum(AreaFlag)
    rows = []
    for value in range(everything + 1):
        wanted = AreaFlag(value or everything)
        points = (regions.areas[flag] for flag in AreaFlag if flag in wanted and flag)
        rows.append(list(dict.fromkeys(point for area in points for point in area)))
    longest = max(map(len, rows))
    return np.array([row + [row[0]] * (longest - len(row)) for row in rows], np.int64)


def _cut(op: Op, values: ir.Value) -> ir.Value:
    """Toward 0, as C++ does."""
    return op.Mul(op.Sign(values), op.Floor(op.Abs(values)))


def _reach(
    op: Op,
    x: ir.Value,
    y: ir.Value,
    *,
    pairs: tuple[npt.NDArray[np.int64], ...],
    size: int,
) -> tuple[ir.Value, ir.Value]:
    """First and last column of each row of pixels [N, S]; first behind last where there is none.

    Args:
        x, y: [N, L] float32, whole numbers. pairs: of their indices, each once.
    """
    (first_x, second_x), (first_y, second_y) = (
        [op.Gather(axis, constant(op, ends), axis=1) for ends in pairs] for axis in (x, y)
    )
    down = op.Greater(second_y, first_y)
    # [N, pairs, 1]: the upper end, and from there to the lower one
    top_x, top_y, end_x, end_y = (
        op.Unsqueeze(op.Where(down, one, other), [2])
        for one, other in (
            (first_x, second_x), (first_y, second_y), (second_x, first_x), (second_y, first_y),
        )
    )  # fmt: skip
    across, height = op.Sub(end_x, top_x), op.Sub(end_y, top_y)
    least, most = op.Min(top_x, end_x), op.Max(top_x, end_x)
    width, whole = op.Abs(across), op.Max(height, 1.0)
    rows = constant(op, np.arange(size, dtype=np.float32))
    below = op.Sub(rows, top_y)
    # Twice the height times the column, a whole number.
    twice = op.Mul(whole, 2.0)
    column = op.Add(op.Mul(top_x, twice), op.Mul(op.Mul(across, 2.0), below))
    # A flat line covers every column in which it lies nearest to this row...
    flat_left = op.Add(op.Floor(op.Div(op.Sub(column, width), twice)), 1.0)
    flat_right = op.Floor(op.Div(op.Add(column, width), twice))
    level = op.Less(height, 0.5)
    flat_left = op.Where(level, least, op.Max(flat_left, least))
    flat_right = op.Where(level, most, op.Min(flat_right, most))
    # ... and a steep one the column that is nearest to it, as outline and as edge.
    drawn = op.Ceil(op.Div(op.Sub(column, whole), twice))
    step = _cut(op, op.Add(op.Mul(op.Div(across, whole), _FIXED), 0.5))
    edge = op.Floor(op.Add(op.Add(top_x, op.Mul(below, op.Mul(step, 1.0 / _FIXED))), 0.5))
    flat = op.Greater(width, height)
    there = op.And(op.GreaterOrEqual(below, 0.0), op.LessOrEqual(rows, end_y))
    left = op.Where(flat, flat_left, op.Min(drawn, edge))
    right = op.Where(flat, flat_right, op.Max(drawn, edge))
    return (
        op.ReduceMin(op.Where(there, left, _FAR), [1], keepdims=0),
        op.ReduceMax(op.Where(there, right, -_FAR), [1], keepdims=0),
    )


def _blur_matrix(size: int) -> npt.NDArray[np.float32]:
    """[S, S]: a column of pixels to the blurred one, edges mirrored without repeating them."""
    kernel = cv2.getGaussianKernel(2 * round(4 * SIGMA_PX) + 1, SIGMA_PX, cv2.CV_32F)[:, 0]
    matrix = np.zeros((size, size), np.float32)
    rows = np.arange(size)
    for offset, weight in enumerate(kernel, start=-(len(kernel) // 2)):
        place = np.abs(rows + offset)
        np.add.at(matrix, (rows, np.minimum(place, 2 * (size - 1) - place)), weight)
    return matrix
