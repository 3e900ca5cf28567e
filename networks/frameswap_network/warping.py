"""Landmarks retargeted, and both crops moved to them by kernel regression on a 64 x 64 grid.

A field is known at the 478 landmarks p_i and wanted at every node g. With d^2 = |g - p_i|^2 and a
softness s_i, node g takes the mean of the landmarks' values v_i under the weights

    (s_i / (d^2 + s_i))^2  =  s_i^2 r^2,  r = 1 / (d^2 + s_i)

d^2 is a sum of a part for the column and one for the row, so r^2 costs one addition, one reciprocal
and one product a node and landmark; s_i^2 goes to the values, and a last "value" of 1 gives the sum
of the weights in the same matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.contract import KeepFlag
from networks.face_points import LEFT_EYE, MEDIAPIPE_POINTS, RIGHT_EYE
from networks.face_regions import FACE_OVAL, FACE_REGIONS, Band
from networks.frameswap_network.arrays import CROP, Array, Arrays, Op, constant

GRID: Final = 64
_POINTS: Final = MEDIAPIPE_POINTS
_REGIONS: Final = FACE_REGIONS[_POINTS]
_MIDDLE: Final = np.array((127.5, 140.0))
"""Where the canonical face's origin lies in a crop, px."""
_CANONICAL: Final = 128
_BORDER_WEIGHT: Final = 1.5
_BORDER_SOFTNESS: Final = 64.0
_ANCHORED: Final = 4
"""Of the fields, the first ones fade to 0 at the crop's border."""
_FLOW_UNIT: Final = 32.0
_LARGEST_FLOW: Final = 48.0
_DETECTOR_ERROR: Final = 3.0
"""px of a crop: how far a detector's five points lie from the mesh's, a few percent of the eyes'
distance of 70 (docs/landmarks.md)."""
_FIVE: Final = (LEFT_EYE, RIGHT_EYE, (1, 4), (61,), (291,))
"""Whose means stand for a detector's five: around the eyes, tip of the nose, corners of the mouth;
as in the rows of `networks.landmarkers`."""
_TEMPLATE: Final = np.array(
    [
        (0.36167656, 0.40387734),
        (0.63696719, 0.40235469),
        (0.50019687, 0.56044219),
        (0.38710391, 0.72160547),
        (0.61507734, 0.72034453),
    ]
)
"""arcface_128, to which crops are aligned, in sides."""


@dataclass(frozen=True)
class Warped:
    """target, source: moved crops [N, 3, 256, 256] in [0, 1]. labels: what each pixel shows, [N, 5,
    256, 256] in [0, 1]: face, mouth, eyes, lips, brows. flow: how far the source moved, [N, 2, 256,
    256], units of 32 px.
    """

    target: ir.Value
    source: ir.Value
    labels: ir.Value
    flow: ir.Value


def mean_mesh(op: Op, arrays: Arrays, landmarks: ir.Value, five: ir.Value | None) -> ir.Value:
    """Landmarks [N, 478, 3] of a crop in px, of the same in sides; guessed where they are zeros.

    The guess is the most likely face with these five points [N, 5, 2] (sides), given the shapes
    that the retargeter knows: a conditional mean of normal variables. None: the template's own.
    """
    basis = _shape_basis(arrays)
    mean = arrays["retargeter.mean"].astype(np.float64)
    seen = _five_of(np.vstack([mean, basis]))
    regression = np.linalg.solve(
        seen[1:].T @ seen[1:] + _DETECTOR_ERROR**2 * np.eye(10), seen[1:].T @ basis
    )
    if five is None:
        rest = (_TEMPLATE.reshape(-1) * CROP - seen[0]) @ regression
        guess = constant(op, (mean + rest).reshape(1, _POINTS, 3))
    else:
        flat = op.Mul(op.Reshape(five, [-1, 10]), float(CROP))
        moved = op.MatMul(op.Sub(flat, constant(op, seen[0])), constant(op, regression))
        guess = op.Reshape(op.Add(moved, constant(op, mean)), [-1, _POINTS, 3])
    known = op.Greater(op.ReduceMax(op.Abs(landmarks), [1, 2], keepdims=1), 0.0)
    return op.Where(known, op.Mul(landmarks, float(CROP)), guess)


def _shape_basis(arrays: Arrays) -> Array:
    """(64, 1434): one standard deviation along each of the retargeter's directions, px."""
    inputs = arrays["retargeter.inputs"].astype(np.float64)
    basis: Array = inputs / (inputs**2).sum(1, keepdims=True)
    return basis


def _five_of(meshes: Array) -> Array:
    """(n, 10): the five points of flat meshes (n, 1434), or of differences of such."""
    points = meshes.reshape(-1, _POINTS, 3)[..., :2]
    return np.stack([points[:, list(some)].mean(1) for some in _FIVE], 1).reshape(-1, 10)


def retarget(op: Op, arrays: Arrays, target: ir.Value, source: ir.Value) -> ir.Value:
    """The target's pose and expression with the source's face shape: [N, 478, 2] px.

    target, source: landmarks [N, 478, 3] px.
    """
    mean = constant(op, arrays["retargeter.mean"])
    directions = constant(op, arrays["retargeter.inputs"].T)
    flat = (op.Reshape(points, [-1, 3 * _POINTS]) for points in (target, source))
    shapes = [op.MatMul(op.Sub(points, mean), directions) for points in flat]
    hidden = op.Concat(*shapes, axis=1)
    for layer in (0, 2, 4):
        if layer:
            hidden = op.Mul(hidden, op.Sigmoid(hidden))
        weight, bias = (arrays[f"retargeter.net.{layer}.{part}"] for part in ("weight", "bias"))
        hidden = op.Gemm(hidden, constant(op, weight), constant(op, bias), transB=1)
    # Eyes and mouth stay as open as the target's: of every move, the part that opens is left out.
    moves = arrays["retargeter.outputs"].astype(np.float64).reshape(-1, _POINTS, 2)
    moves = moves - np.einsum("pq,kqc->kpc", _openings(), moves)
    moved = op.MatMul(hidden, constant(op, moves.reshape(len(moves), -1)))
    return op.Add(_in_plane(op, target), op.Reshape(moved, [-1, _POINTS, 2]))


def _in_plane(op: Op, landmarks: ir.Value) -> ir.Value:
    """x and y of [N, 478, 3]."""
    return op.Slice(landmarks, [0], [2], [2])


def _openings() -> Array:
    """(478, 478): a move of points times this is what of it opens or closes eyes and mouth.

    Of each upper and lower point, both carry half of how the two move apart.
    """
    parts = _REGIONS.parts
    matrix = np.zeros((_POINTS, _POINTS))
    for band in (*parts[KeepFlag.EYES], *parts[KeepFlag.MOUTH]):
        for upper, lower in zip(band.upper[1:-1], band.lower[1:-1], strict=True):
            for point, other in ((upper, lower), (lower, upper)):
                matrix[point, point], matrix[point, other] = 0.5, -0.5
    return matrix


def warp_crops(
    op: Op,
    arrays: Arrays,
    target: ir.Value,
    source: ir.Value,
    target_marks: ir.Value,
    source_marks: ir.Value,
    goal: ir.Value,
) -> Warped:
    """Both crops [N, 3, 256, 256] moved from their landmarks [N, 478, 3] to `goal` [N, 478, 2]."""
    face = canonical_face(arrays["mean_shape"])
    per_unit = 1.0 / face.px_per_unit
    at_goal = op.Mul(op.Sub(goal, constant(op, _MIDDLE)), per_unit)
    values = op.Concat(
        op.Sub(_in_plane(op, target_marks), goal),
        op.Sub(constant(op, face.points[None]), at_goal),
        op.Sub(_in_plane(op, source_marks), goal),
        axis=2,
    )
    fields = _regress(op, goal, values, _softness(arrays["mean_shape"]))
    # From pixels to what GridSample counts in, before the fields are enlarged.
    to_grid = np.array([2 / CROP] * 2 + [1.0] * 2 + [2 / CROP] * 2).reshape(1, 6, 1, 1)
    start = np.zeros((1, 6, GRID, GRID))
    x, y = (np.broadcast_to(axis, (GRID, GRID)) for axis in (_nodes()[None], _nodes()[:, None]))
    start[0, 2:4] = (np.stack([x, y]) - _MIDDLE.reshape(2, 1, 1)) * per_unit
    coarse = op.Add(op.Mul(fields, constant(op, to_grid)), constant(op, start))
    scales = constant(op, (1, 1, CROP / GRID, CROP / GRID))
    fine = op.Resize(
        coarse, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    moved, labelled, sourced = (op.Slice(fine, [k], [k + 2], [1]) for k in (0, 2, 4))
    flow = op.Clip(
        op.Mul(sourced, CROP / 2 / _FLOW_UNIT),
        -_LARGEST_FLOW / _FLOW_UNIT,
        _LARGEST_FLOW / _FLOW_UNIT,
    )
    line = (np.arange(CROP) + 0.5) * (2 / CROP) - 1
    pixels = constant(op, np.stack(np.meshgrid(line, line))[None])
    batch = op.Shape(target, start=0, end=1)
    drawn = op.Expand(constant(op, face.labels[None]), op.Concat(batch, [1, 1, 1], axis=0))
    return Warped(
        _sample(op, target, op.Add(moved, pixels), "border"),
        _sample(op, source, op.Add(sourced, pixels), "border"),
        _sample(op, drawn, labelled, "zeros"),
        flow,
    )


def _sample(op: Op, images: ir.Value, at: ir.Value, padding: str) -> ir.Value:
    """Bilinear samples of images at [N, 2, 256, 256]; -1 and 1 are the image's outer edges."""
    grid = op.Transpose(at, perm=[0, 2, 3, 1])
    return op.GridSample(images, grid, mode="bilinear", padding_mode=padding, align_corners=0)


def _nodes() -> Array:
    """(64,): where the grid's nodes lie along an axis, px."""
    nodes: Array = (np.arange(GRID) + 0.5) * (CROP / GRID) - 0.5
    return nodes


def _regress(op: Op, points: ir.Value, values: ir.Value, softness: Array) -> ir.Value:
    """[N, C, 64, 64]: values [N, 478, C] known at `points` [N, 478, 2] px, at the grid's nodes."""
    soft = softness.reshape(1, _POINTS, 1, 1)
    x, y = (
        op.Unsqueeze(op.Slice(points, [axis], [axis + 1], [2]), [3]) for axis in (0, 1)
    )
    nodes = _nodes()
    dx = op.Sub(x, constant(op, nodes.reshape(1, 1, 1, GRID)))
    dy = op.Sub(y, constant(op, nodes.reshape(1, 1, GRID, 1)))
    columns = op.Add(op.Mul(dx, dx), constant(op, soft))
    near = op.Reciprocal(op.Add(op.Mul(dy, dy), columns))
    weights = op.Reshape(op.Mul(near, near), [0, 0, GRID * GRID])
    squared = (softness**2).reshape(1, _POINTS, 1)
    known = op.Mul(values, constant(op, squared))
    ones = op.Expand(constant(op, squared), op.Concat(op.Shape(values, end=1), [1, 1], axis=0))
    known = op.Transpose(op.Concat(known, ones, axis=2), perm=[0, 2, 1])
    # sums: [N, C + 1, 4096]
    sums = op.MatMul(known, weights)
    channels = 6
    total = op.Slice(sums, [channels], [channels + 1], [1])
    held = op.Div(
        op.Slice(sums, [0], [_ANCHORED], [1]), op.Add(total, constant(op, _border_pull()))
    )
    free = op.Div(op.Slice(sums, [_ANCHORED], [channels], [1]), total)
    return op.Reshape(op.Concat(held, free, axis=1), [0, 0, GRID, GRID])


def _border_pull() -> Array:
    """(1, 1, 4096): weight at each node of 48 points, 24 px outside the crop, that do not move."""
    line = np.linspace(-24, 279, 12)
    ends = [(at, end) for at in line for end in (-24, 279)]
    points = np.array([*ends, *((y, x) for x, y in ends)])
    x, y = np.meshgrid(_nodes(), _nodes())
    squares = (x.reshape(-1, 1) - points[:, 0]) ** 2 + (y.reshape(-1, 1) - points[:, 1]) ** 2
    weights = (_BORDER_SOFTNESS / (squares + _BORDER_SOFTNESS)) ** 2
    pull: Array = _BORDER_WEIGHT * weights.sum(1).reshape(1, 1, -1)
    return pull


def _softness(mean_shape: Array) -> Array:
    """(478,) px^2: from how far the next four landmarks are away in the mean shape."""
    flat = mean_shape[:, :2].astype(np.float64)
    distances = np.sqrt(((flat[:, None] - flat) ** 2).sum(2))
    spacing = np.sort(distances, 1)[:, 1:5].mean(1) * 0.8
    soft: Array = spacing.clip(2.5, 10.0) ** 2
    return soft


class CanonicalFace(NamedTuple):
    """points: (478, 2) in [-1, 1]; labels: (5, 128, 128) in [0, 1]; px_per_unit: of a crop."""

    points: Array
    labels: Array
    px_per_unit: float


def canonical_face(mean_shape: Array) -> CanonicalFace:
    """The mean face (478, 3), mouth opened, and what each of its pixels shows."""
    parts = _REGIONS.parts
    (mouth,) = parts[KeepFlag.MOUTH]
    points = mean_shape[:, :2].astype(np.float64)
    # The mean mouth is closed; its inside needs an area to be a label.
    share = 1 - np.abs(np.arange(-4, 5)) / 5.0
    points[list(mouth.lower[1:-1]), 1] += 6.0 * share
    points -= (points.max(0) + points.min(0)) / 2
    px_per_unit = float(np.abs(points).max() * 1.25)
    points /= px_per_unit

    def fill(*outlines: tuple[int, ...]) -> Array:
        return _fill([points[list(outline)] for outline in outlines])

    def outlines(part: KeepFlag) -> list[tuple[int, ...]]:
        return [_outline(band) for band in parts[part]]

    inside = fill(_outline(mouth))
    lips = (fill(*outlines(KeepFlag.LIPS)) - inside).clip(0, 1)
    eyes, brows = (fill(*outlines(part)) for part in (KeepFlag.EYES, KeepFlag.BROWS))
    labels = np.stack([fill(FACE_OVAL), inside, eyes, lips, brows])
    return CanonicalFace(points, labels, px_per_unit)


def _outline(band: Band) -> tuple[int, ...]:
    """Around a band; where its curves share their ends, each end once."""
    back = [point for point in reversed(band.lower) if point not in band.upper]
    return (*band.upper, *back)


def _fill(outlines: list[Array]) -> Array:
    """(128, 128) in [0, 1]: how much of each pixel lies in outlines (n, 2) of [-1, 1]."""
    side = 4 * _CANONICAL
    image: npt.NDArray[np.uint8] = np.zeros((side, side), np.uint8)
    for outline in outlines:
        corners = np.round(((outline + 1) / 2 * side - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(image, [corners], 255, lineType=cv2.LINE_8, shift=4)
    small = cv2.resize(image, (_CANONICAL, _CANONICAL), interpolation=cv2.INTER_AREA)
    filled: Array = small.astype(np.float32) / 255
    return filled
