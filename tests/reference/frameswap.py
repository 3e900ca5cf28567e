"""The project's own swapper in NumPy, double precision, from its description alone.

Written as the formulas are: every landmark against every node, windows and samples pixel by pixel.
`training/networks.py` is the other account of it; a test of the training compares with that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from skimage.draw import polygon2mask

Array = npt.NDArray[np.floating]
WEIGHTS = Path(__file__).resolve().parent.parent.parent / "weights" / "swapper.npz"

# MediaPipe's numbers of the mesh: around the face, and upper and lower points of eyes and mouth.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
OPENINGS = (
    (246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155),
    (398, 382), (384, 381), (385, 380), (386, 374), (387, 373), (388, 390), (466, 249),
    (191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318),
    (415, 324),
)  # fmt: skip


def small_weights(channels: tuple[int, int, int, int] = (8, 12, 16, 16)) -> dict[str, Array]:
    """The committed weights, but a random U-Net of other widths."""
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files if not key.startswith("generator.")}
        shapes = {key: stored[key].shape for key in stored.files if key.startswith("generator.")}
    narrow = dict(zip((48, 96, 176, 256), channels, strict=True))
    narrow |= {2 * wide: 2 * thin for wide, thin in list(narrow.items())[:3]}
    kept = {"entry.weight": 1, "exit.weight": 0, "exit.bias": 0}
    draw = np.random.default_rng(5)
    for key, shape in shapes.items():
        part = key.removeprefix("generator.")
        axes = range(len(shape))
        size = [
            shape[a] if a == kept.get(part) or part.startswith(("fine", "head"))
            else narrow.get(shape[a], shape[a]) for a in axes
        ]  # fmt: skip
        # Decoders read two maps of one width: 96 channels are twice 48 there, 192 twice 96.
        if part.startswith("decoders") and part.endswith(".0.weight"):
            size[1] = 2 * size[0]
        fan = max(1, int(np.prod(size[1:])))
        arrays[key] = (draw.normal(size=size) / fan**0.5).astype(np.float16)
    return arrays


def five_points(mesh: Array) -> Array:
    """(5, 2): means around the eyes, of the tip of the nose, the corners of the mouth."""
    left = [33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173]
    right = [263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398]
    return np.stack([mesh[some, :2].mean(0) for some in (left, right, [1, 4], [61], [291])])


def likely_mesh(weights: Mapping[str, Array], five: Array) -> Array:
    """(478, 3) px: the likeliest of normally distributed meshes, its five points seen to 3 px."""
    inputs = weights["retargeter.inputs"].astype(np.float64)
    mean = weights["retargeter.mean"].astype(np.float64)
    # rows of `inputs` measure standard deviations: the directions are their pseudo-inverse
    basis = (inputs / (inputs**2).sum(1, keepdims=True)).reshape(-1, 478, 3)
    seen = np.stack([five_points(direction).reshape(-1) for direction in basis])
    rest = (five - five_points(mean.reshape(478, 3))).reshape(-1)
    # ridge regression: the most likely coordinates
    stacked = np.vstack([seen.T / 3.0, np.eye(len(basis))])
    goal = np.concatenate([rest / 3.0, np.zeros(len(basis))])
    coordinates = np.linalg.lstsq(stacked, goal, rcond=None)[0]
    return mean.reshape(478, 3) + np.tensordot(coordinates, basis, 1)


def retarget(weights: Mapping[str, Array], target: Array, source: Array) -> Array:
    """(478, 2) px from two meshes (478, 3) px."""
    get = {k: v.astype(np.float64) for k, v in weights.items() if k.startswith("retargeter.")}
    x = np.concatenate(
        [
            (mesh.reshape(-1) - get["retargeter.mean"]) @ get["retargeter.inputs"].T
            for mesh in (target, source)
        ]
    )
    for layer in (0, 2, 4):
        if layer:
            x = x / (1 + np.exp(-x))
        x = get[f"retargeter.net.{layer}.weight"] @ x + get[f"retargeter.net.{layer}.bias"]
    goal = target[:, :2] + (x @ get["retargeter.outputs"]).reshape(478, 2)
    opened = goal.copy()
    for upper, lower in OPENINGS:
        lacks = (target[upper] - target[lower])[:2] - (goal[upper] - goal[lower])
        opened[upper] += lacks / 2
        opened[lower] -= lacks / 2
    return opened


def canonical(weights: Mapping[str, Array]) -> tuple[Array, float]:
    """(478, 2) points of the open-mouthed mean face in [-1, 1], and its pixels a unit."""
    points = weights["mean_shape"][:, :2].astype(np.float64)
    for k, point in enumerate((95, 88, 178, 87, 14, 317, 402, 318, 324)):
        points[point, 1] += 6.0 * (1 - abs(k - 4) / 5)
    points -= (points.max(0) + points.min(0)) / 2
    unit = np.abs(points).max() * 1.25
    return points / unit, float(unit)


def oval_label(points: Array) -> Array:
    """(128, 128): how much of each pixel the face's oval covers, by 4 x 4 samples."""
    corners = (points[list(OVAL)] + 1) / 2 * 512 - 0.5
    inside = polygon2mask((512, 512), corners[:, ::-1])
    return inside.reshape(128, 4, 128, 4).mean((1, 3))


def regress(weights: Mapping[str, Array], at: Array, values: Array, *, anchored: bool) -> Array:
    """(C, 64, 64): values (478, C) known at (478, 2) px, at the grid's nodes."""
    shape = weights["mean_shape"][:, :2].astype(np.float64)
    apart = np.sort(np.linalg.norm(shape[:, None] - shape, axis=2), axis=1)
    soft = (apart[:, 1:5].mean(1) * 0.8).clip(2.5, 10) ** 2
    line = (np.arange(64) + 0.5) * 4 - 0.5
    nodes = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    squares = ((nodes[:, None] - at) ** 2).sum(2)
    w = (soft / (squares + soft)) ** 2
    total = w.sum(1)
    if anchored:
        edge = np.linspace(-24, 279, 12)
        ends = np.array([(e, side) for e in edge for side in (-24, 279)])
        away = ((nodes[:, None] - np.vstack([ends, ends[:, ::-1]])) ** 2).sum(2)
        total = total + 1.5 * ((64 / (away + 64)) ** 2).sum(1)
    return ((w @ values) / total[:, None]).T.reshape(-1, 64, 64)


def enlarge(fields: Array) -> Array:
    """(C, 64, 64) to (C, 256, 256), bilinear, by OpenCV."""
    large = [cv2.resize(field, (256, 256), interpolation=cv2.INTER_LINEAR) for field in fields]
    return np.stack(large)


def sample(image: Array, x: Array, y: Array, *, border: bool) -> Array:
    """(C, 256, 256): an image (C, h, w) at pixels x, y, bilinear; beyond it its edge, or zeros."""
    height, width = image.shape[1:]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    result = np.zeros((len(image), *x.shape))
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            taken = image[:, row.clip(0, height - 1), column.clip(0, width - 1)]
            result += taken * share * (1.0 if border else inside)
    return result


def window_mean(image: Array, size: int) -> Array:
    """Means over size x size pixels, over fewer at the border."""
    sums, counts = (
        cv2.boxFilter(x, -1, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
        for x in (image, np.ones_like(image))
    )
    return np.asarray(sums / counts)
