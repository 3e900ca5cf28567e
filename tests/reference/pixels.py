"""I420 and colour spaces in NumPy, written from the recommendations in double precision."""

from __future__ import annotations

import numpy as np

# Kr, Kb by contract code: BT.601-7 2.5.1, BT.709-6 3.2, BT.2020-2 table 4 (non-constant luminance)
KR_KB = {1: (0.299, 0.114), 2: (0.2126, 0.0722), 3: (0.2627, 0.0593)}
# Position of the first chroma sample, luma pixels, by contract code: left, centre, top-left
CHROMA_XY = {0: (0.0, 0.5), 1: (0.5, 0.5), 2: (0.0, 0.0)}


def resolve_matrix(code: int, height: int) -> int:
    if code != 0:
        return code
    return 2 if height >= 720 else 1


def yuv_to_rgb(yuv: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """(..., 3) YUV on the 8-bit scale to (..., 3) RGB in 0..1, not clipped."""
    kr, kb = KR_KB[matrix]
    y, u, v = (yuv[..., i].astype(np.float64) for i in range(3))
    if full:
        y, u, v = y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0
    else:
        y, u, v = (y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0
    red = y + 2.0 * (1.0 - kr) * v
    blue = y + 2.0 * (1.0 - kb) * u
    green = (y - kr * red - kb * blue) / (1.0 - kr - kb)
    return np.stack([red, green, blue], axis=-1)


def rgb_to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """(..., 3) RGB in 0..1 to (..., 3) YUV on the 8-bit scale, neither rounded nor clipped."""
    kr, kb = KR_KB[matrix]
    red, green, blue = (rgb[..., i].astype(np.float64) for i in range(3))
    y = kr * red + (1.0 - kr - kb) * green + kb * blue
    u = (blue - y) / (2.0 * (1.0 - kb))
    v = (red - y) / (2.0 * (1.0 - kr))
    if full:
        return np.stack([255.0 * y, 255.0 * u + 128.0, 255.0 * v + 128.0], axis=-1)
    return np.stack([219.0 * y + 16.0, 224.0 * u + 128.0, 224.0 * v + 128.0], axis=-1)


def split_i420(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y (H, W), U and V (H/2, W/2) of one frame (H*3/2, W), by bytes: Y, then U, then V."""
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    flat = frame.reshape(-1)
    luma, quarter = height * width, height * width // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + quarter].reshape(half),
        flat[luma + quarter : luma + 2 * quarter].reshape(half),
    )


def sample_bilinear(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Plane (H, W) read at pixel positions x, y; outside, the nearest edge pixel."""
    height, width = plane.shape
    x = np.clip(x, 0.0, width - 1.0)
    y = np.clip(y, 0.0, height - 1.0)
    left, above = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = np.minimum(left + 1, width - 1), np.minimum(above + 1, height - 1)
    fx, fy = x - left, y - above
    values = plane.astype(np.float64)
    top = values[above, left] * (1 - fx) + values[above, right] * fx
    bottom = values[below, left] * (1 - fx) + values[below, right] * fx
    return top * (1 - fy) + bottom * fy


def read_rgb(
    frame: np.ndarray, frame_format: str, x: np.ndarray, y: np.ndarray, options: np.ndarray
) -> np.ndarray:
    """RGB (..., 3) in 0..1, clipped, of one frame at luma positions x, y."""
    if frame_format == "bgr":
        channels = [sample_bilinear(frame[..., c], x, y) for c in (2, 1, 0)]
        return np.stack(channels, axis=-1) / 255.0
    luma, blue, red = split_i420(frame)
    offset_x, offset_y = CHROMA_XY[int(options[3])]
    chroma_x, chroma_y = (x - offset_x) / 2.0, (y - offset_y) / 2.0
    yuv = np.stack(
        [
            sample_bilinear(luma, x, y),
            sample_bilinear(blue, chroma_x, chroma_y),
            sample_bilinear(red, chroma_x, chroma_y),
        ],
        axis=-1,
    )
    matrix = resolve_matrix(int(options[1]), luma.shape[0])
    return np.clip(yuv_to_rgb(yuv, matrix, bool(options[2])), 0.0, 1.0)
