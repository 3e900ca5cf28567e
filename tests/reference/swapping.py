"""NumPy oracles for the swapper, the recogniser and the source encoder, from their contracts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Network = Callable[[Array, Array], Array]

TEMPLATES = {
    # insightface 2.1, utils/face_align.py `arcface_dst`, in pixels of a 112-pixel crop.
    "arcface_112_v2": (
        [38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041],
        112,
    ),
    # FaceFusion 3.8.1, in units of the crop's side.
    "arcface_128": (
        [
            *(0.36167656, 0.40387734, 0.63696719, 0.40235469, 0.50019687, 0.56044219),
            *(0.38710391, 0.72160547, 0.61507734, 0.72034453),
        ],
        1,
    ),
    # FaceFusion 3.8.1, ffhq_512, in units of the crop's side.
    "ffhq_512": (
        [
            *(0.37691676, 0.46864664, 0.62285697, 0.46912813, 0.50123859, 0.61331904),
            *(0.39308822, 0.72541100, 0.61150205, 0.72490465),
        ],
        1,
    ),
}


def fit(landmarks: Array, template: str, size: int) -> Array:
    """(2, 3) similarity from frame pixels to crop pixels, by linear least squares."""
    points, scale = TEMPLATES[template]
    goal = np.array(points).reshape(5, 2) * size / scale
    rows = []
    for x, y in landmarks:
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    (a, b, tx, ty), *_ = np.linalg.lstsq(np.array(rows), goal.reshape(-1), rcond=None)
    return np.array([[a, -b, tx], [b, a, ty]])


def warp(frame_bgr: npt.NDArray[np.uint8], matrix: Array, size: int) -> Array:
    """(3, size, size) RGB in [0, 1]: bilinear, edge pixels repeated."""
    height, width = frame_bgr.shape[:2]
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    grid_y, grid_x = np.mgrid[:size, :size]
    x, y, _ = np.tensordot(inverse, np.stack([grid_x, grid_y, np.ones_like(grid_x)]), 1)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    frame = frame_bgr.astype(np.float64)
    above = frame[top, left] * (1 - fx) + frame[top, right] * fx
    below = frame[bottom, left] * (1 - fx) + frame[bottom, right] * fx
    crop: Array = (above * (1 - fy) + below * fy)[..., ::-1].transpose(2, 0, 1) / 255
    return crop


def pack(image: Array) -> Array:
    """(s * s,) numbers r + 256 g + 65,536 b of an image (3, s, s) RGB in [0, 1]."""
    red, green, blue = np.round(image.clip(0, 1) * 255).astype(np.int64)
    packed: Array = (red | green << 8 | blue << 16).reshape(-1).astype(np.float64)
    return packed


def unpack(packed: Array, size: int) -> Array:
    """(3, size, size) RGB in [0, 1] of packed pixels (size * size,)."""
    numbers = packed.astype(np.int64).reshape(size, size)
    channels = [(numbers >> shift) & 255 for shift in (0, 8, 16)]
    image: Array = np.stack(channels) / 255
    return image


def unit(vector: Array) -> Array:
    result: Array = vector / np.linalg.norm(vector)
    return result


def swap_slot(
    run: Network,
    crop: Array,
    source: Array,
    *,
    mean: Array,
    std: Array,
    denormalize: bool,
    boost: int = 1,
    emap: Array | None = None,
) -> Array:
    """One slot's crop (3, bS, bS) in [0, 1], swapped tile after tile at batch 1."""
    if emap is not None:
        source = unit(source @ emap)
    mean, std = mean.reshape(3, 1, 1), std.reshape(3, 1, 1)
    swapped = np.zeros_like(crop)
    for i in range(boost):
        for j in range(boost):
            output = run((crop[:, i::boost, j::boost] - mean) / std, source)
            if denormalize:
                output = output * std + mean
            swapped[:, i::boost, j::boost] = output.clip(0, 1)
    return swapped
