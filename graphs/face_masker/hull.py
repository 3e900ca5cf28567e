"""The hull mask: where the face is seen, from all its landmarks.

The outline of a head turned by up to 40 degrees is convex but for four pixels of a crop of 256
(measured on MediaPipe's canonical face); a background that shows beside a turned cheek lies outside
the landmarks' convex hull. The hull is what lies within its tangents in DIRECTIONS directions, and
how deep a pixel lies in the face is its least distance to one of them. No triangle is filled and
nothing depends on the order of the points, so a landmark that goes astray makes the hull larger and
never tears it.

Distances are made on a grid of GRID points a side: between them they are all but linear.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.face_masker.ramps import grid_positions, smoothstep, to_crop_size
from graphs.shapes import Op, constant
from networks.face_regions import FaceRegions

DIRECTIONS: Final = 64
GRID: Final = 32
INSET: Final = 0.01
FEATHER: Final = 0.07
"""In sides of the crop: nothing is shown up to INSET inside the hull, all from INSET + FEATHER on.
Landmarks sit on the outline, and are off by a pixel or two: what is painted must stay inside."""


def hull_masks(op: Op, x: ir.Value, y: ir.Value, regions: FaceRegions, size: int) -> ir.Value:
    """Masks [N, 1, S, S] float32 in [0, 1].

    Args:
        x, y: landmarks [N, P] float32, pixels of the crop, finite.
        regions: which of them lie along the forehead, above which the hull goes on.
    """
    x, y = (op.Concat(axis, _forehead(op, axis, regions), axis=1) for axis in (x, y))
    angles = np.arange(DIRECTIONS) * 2.0 * np.pi / DIRECTIONS
    along_x, along_y = (turn(angles).astype(np.float32) for turn in (np.cos, np.sin))
    # [N, P, D]: how far out each point lies in each direction
    reach = op.Add(
        op.Mul(op.Unsqueeze(x, [2]), constant(op, along_x)),
        op.Mul(op.Unsqueeze(y, [2]), constant(op, along_y)),
    )
    tangents = op.Unsqueeze(op.ReduceMax(reach, [1], keepdims=0), [2, 3])
    place = grid_positions(size, GRID)
    pixels = along_x[:, None, None] * place[None, :] + along_y[:, None, None] * place[:, None]
    depth = op.ReduceMin(op.Sub(tangents, constant(op, pixels[None])), [1], keepdims=1)
    depth = to_crop_size(op, depth, GRID, size)
    return smoothstep(op, op.Mul(op.Sub(depth, INSET * size), 1.0 / (FEATHER * size)))


def _forehead(op: Op, axis: ir.Value, regions: FaceRegions) -> ir.Value:
    """One coordinate of the face's upper end, moved up the face: [N, points]."""

    def pick(*points: int) -> ir.Value:
        return op.Gather(axis, constant(op, np.array(points, np.int64)), axis=1)

    high, low = regions.axis
    up = op.Mul(op.Sub(pick(high), pick(low)), regions.forehead)
    return op.Add(pick(*regions.top), up)
