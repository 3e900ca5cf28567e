"""Pixel formats and colour spaces, in one place: I420 planes, luma matrices, ranges, chroma siting.

Functions take an onnxscript op builder and `ir.Value`s and append nodes. Planes hold floats on the
8-bit scale (0..255); RGB is in [0, 1]. What a row of a batch means (matrix, range, chroma location)
is read from its own row of `options`, so one batch may mix frames of different colour spaces.

Sources: ITU-R BT.601-7, BT.709-6 and BT.2020-2 (matrix coefficients, quantisation levels);
ITU-T H.264 annex E, figure E-1 (chroma sample locations).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.contract import (
    NO_EXTRAS,
    OPTION_COUNT,
    ChromaLocation,
    ColorMatrix,
    ColorRange,
    Extras,
    FrameFormat,
    Option,
    mask_codes,
    option_highest,
)
from graphs.shapes import Op, constant, dimension, to_float, to_int64
from networks.detectors import ChannelOrder

Array = npt.NDArray[np.float64]

LUMA_WEIGHTS: Final[Mapping[ColorMatrix, tuple[float, float]]] = MappingProxyType(
    {
        ColorMatrix.BT601: (0.299, 0.114),
        ColorMatrix.BT709: (0.2126, 0.0722),
        ColorMatrix.BT2020: (0.2627, 0.0593),
    }
)
"""Kr and Kb of each matrix (BT.2020: non-constant luminance)."""

HD_HEIGHT: Final = 720
"""From this many rows up, ColorMatrix.AUTO means BT.709."""

CHROMA_OFFSETS: Final[Mapping[ChromaLocation, tuple[float, float]]] = MappingProxyType(
    {
        ChromaLocation.LEFT: (0.0, 0.5),
        ChromaLocation.CENTER: (0.5, 0.5),
        ChromaLocation.TOP_LEFT: (0.0, 0.0),
    }
)
"""Position x, y of chroma sample (0, 0), in luma pixels; sample (i, j) is at 2 (i, j) + offset."""

def rgb_to_yuv_matrix(matrix: ColorMatrix, color_range: ColorRange) -> tuple[Array, Array]:
    """A (3, 3) and b (3,) of yuv = A @ rgb + b, for RGB in [0, 1] and YUV on the 8-bit scale.

    Raises:
        ValueError: `matrix` is AUTO, which no frame height has resolved yet.
    """
    if matrix not in LUMA_WEIGHTS:
        raise ValueError(f"a matrix that is decided is expected, got {matrix!r}")
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = np.array([kr, 1.0 - kr - kb, kb])
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - kr))
    full = color_range == ColorRange.FULL
    luma_steps, chroma_steps, black = (255.0, 255.0, 0.0) if full else (219.0, 224.0, 16.0)
    scaled = np.stack([luma * luma_steps, blue * chroma_steps, red * chroma_steps])
    return scaled, np.array([black, 128.0, 128.0])


def yuv_to_rgb_matrix(matrix: ColorMatrix, color_range: ColorRange) -> tuple[Array, Array]:
    """A (3, 3) and b (3,) of rgb = A @ yuv + b: the inverse of `rgb_to_yuv_matrix`."""
    forward, offset = rgb_to_yuv_matrix(matrix, color_range)
    inverse = np.linalg.inv(forward).astype(np.float64)
    return inverse, -inverse @ offset


def _color_table(*, to_rgb: bool) -> npt.NDArray[np.float32]:
    """(6, 12) rows of matrix columns then bias; row = (matrix code - 1) * 2 + range code."""
    pick = yuv_to_rgb_matrix if to_rgb else rgb_to_yuv_matrix
    rows = []
    for matrix in LUMA_WEIGHTS:
        for color_range in ColorRange:
            weights, bias = pick(matrix, color_range)
            rows.append(np.concatenate([weights.T.reshape(-1), bias]))
    return np.array(rows, dtype=np.float32)


def frame_size(op: Op, frame: ir.Value, frame_format: FrameFormat) -> tuple[ir.Value, ir.Value]:
    """Height and width of a batch of frames, int64 [1] each.

    Args:
        frame: [B, H*3/2, W] (i420) or [B, H, W, 3] (bgr), any dtype.
    """
    rows = dimension(op, frame, 1)
    if frame_format == "i420":
        rows = op.Div(op.Mul(rows, [2]), [3])
    return rows, dimension(op, frame, 2)


def split_i420(op: Op, frame: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Luma and chroma planes of I420 frames.

    The chroma planes are the flat tail behind the luma, reshaped: with H mod 4 = 2, U ends in the
    middle of a row of the frame, so rows cannot be cut.

    Args:
        frame: [B, H*3/2, W] float32, H and W even.

    Returns:
        luma [B, 1, H, W] and chroma [B, 2, H/2, W/2] (U, then V), float32 as given.
    """
    height, width = frame_size(op, frame, "i420")
    tail = op.Slice(frame, height, [np.iinfo(np.int64).max], [1])
    luma = op.Unsqueeze(op.Slice(frame, [0], height, [1]), [1])
    half = [op.Div(height, [2]), op.Div(width, [2])]
    chroma = op.Reshape(tail, op.Concat(dimension(op, frame, 0), [2], *half, axis=0))
    return luma, chroma


def join_i420(op: Op, luma: ir.Value, chroma: ir.Value) -> ir.Value:
    """I420 frames [B, H*3/2, W] from luma [B, 1, H, W] and chroma [B, 2, H/2, W/2], same dtype."""
    batch, width = dimension(op, luma, 0), dimension(op, luma, 3)
    tail = op.Reshape(chroma, op.Concat(batch, [-1], width, axis=0))
    return op.Concat(op.Squeeze(luma, [1]), tail, axis=1)


def valid_options(op: Op, options: ir.Value, extras: Extras = NO_EXTRAS) -> ir.Value:
    """Whether each row of `options` [B, 16] float32 obeys the contract: bool [B, 1].

    Valid: every value finite and from 0 to what `option_highest` says, codes whole numbers, masks
    those that the deployment has, reserved positions 0. Comparisons with NaN are false, so NaN is
    invalid.
    """
    highest = np.zeros(OPTION_COUNT, dtype=np.float32)
    free = np.zeros(OPTION_COUNT, dtype=np.bool_)
    for name, most in option_highest(extras).items():
        highest[name] = most
        free[name] = not isinstance(most, int)
    inside = op.And(
        op.GreaterOrEqual(options, 0.0),
        op.LessOrEqual(options, constant(op, highest)),
    )
    whole = op.Or(op.Equal(op.Floor(options), options), constant(op, free))
    refused = to_float(op, op.Not(op.And(inside, whole)))
    valid = op.Less(op.ReduceSum(refused, [1], keepdims=1), 0.5)
    codes = mask_codes(extras)
    if codes == tuple(range(len(codes))):
        return valid
    known = np.isin(np.arange(codes[-1] + 1), codes).astype(np.float32)
    # a code is an index: what is no number must not become one
    code = to_int64(op, op.Where(valid, option(op, options, Option.MASKS), 0.0))
    return op.And(valid, op.Greater(op.Gather(constant(op, known), code, axis=0), 0.5))


def safe_options(op: Op, options: ir.Value, valid: ir.Value) -> ir.Value:
    """`options` [B, 16] with every row that is not `valid` [B, 1] replaced by the defaults.

    A code is used as an index: what is not a number must not get that far. The caller still has
    to make the row's outputs say that its options were refused.
    """
    return op.Where(valid, options, 0.0)


def option(op: Op, options: ir.Value, name: Option) -> ir.Value:
    """Column `name` of `options` [B, 16]: float32 [B, 1]."""
    return op.Slice(options, [int(name)], [int(name) + 1], [1])


def color_index(op: Op, options: ir.Value, height: ir.Value) -> ir.Value:
    """Which luma matrix and range each row uses: int64 [B], for `yuv_to_rgb` and `rgb_to_yuv`.

    Args:
        options: [B, 16] float32, valid (see `safe_options`).
        height: int64 [1], rows of the frame: decides ColorMatrix.AUTO.
    """
    by_height = op.Where(
        op.GreaterOrEqual(height, [HD_HEIGHT]),
        [int(ColorMatrix.BT709)],
        [int(ColorMatrix.BT601)],
    )
    code = to_int64(op, option(op, options, Option.COLOR_MATRIX))
    matrix = op.Where(op.Equal(code, [int(ColorMatrix.AUTO)]), by_height, code)
    color_range = to_int64(op, option(op, options, Option.COLOR_RANGE))
    row = op.Add(op.Mul(op.Sub(matrix, [1]), [len(ColorRange)]), color_range)
    return op.Squeeze(row, [1])


def _mix(op: Op, channels: tuple[ir.Value, ...], table: ir.Value) -> ir.Value:
    """Sum of channel * its column, plus bias. channels: three [B, N, 1, h, w]; table: [B, 12]."""
    columns = [
        op.Unsqueeze(op.Slice(table, [3 * i], [3 * i + 3], [1]), [1, 3, 4]) for i in range(4)
    ]
    mixed = columns[3]
    for channel, column in zip(channels, columns, strict=False):
        mixed = op.Add(mixed, op.Mul(channel, column))
    return mixed


def yuv_to_rgb(
    op: Op,
    luma: ir.Value,
    blue: ir.Value,
    red: ir.Value,
    color: ir.Value,
    *,
    channel_order: ChannelOrder = "rgb",
    white: float = 1.0,
) -> ir.Value:
    """RGB (or BGR) [B, N, 3, h, w] float32, clipped to [0, white].

    Args:
        luma, blue, red: Y, U (Cb) and V (Cr) at the same points, each [B, N, 1, h, w] float32 on
            the 8-bit scale.
        color: int64 [B] from `color_index`.
        white: what full intensity is, 1 or 255.
    """
    rows = _color_table(to_rgb=True) * np.float32(white)
    if channel_order == "bgr":
        rows = rows.reshape(-1, 4, 3)[..., ::-1].reshape(-1, 12)
    table = op.Gather(constant(op, np.ascontiguousarray(rows)), color, axis=0)
    return op.Clip(_mix(op, (luma, blue, red), table), 0.0, white)


def rgb_to_yuv(op: Op, rgb: ir.Value, color: ir.Value) -> ir.Value:
    """Y, U, V [B, N, 3, h, w] float32 on the 8-bit scale, neither rounded nor clipped.

    Args:
        rgb: [B, N, 3, h, w] float32 in [0, 1].
        color: int64 [B] from `color_index`.
    """
    table = op.Gather(constant(op, _color_table(to_rgb=False)), color, axis=0)
    channels = tuple(op.Slice(rgb, [i], [i + 1], [2]) for i in range(3))
    return _mix(op, channels, table)


def chroma_offset(op: Op, options: ir.Value) -> ir.Value:
    """Position x, y of chroma sample (0, 0) in luma pixels, per row: float32 [B, 2].

    A chroma plane is read at chroma coordinates (luma coordinates - offset) / 2.

    Args:
        options: [B, 16] float32, valid (see `safe_options`).
    """
    table = np.array([CHROMA_OFFSETS[code] for code in ChromaLocation], dtype=np.float32)
    code = to_int64(op, option(op, options, Option.CHROMA_LOCATION))
    return op.Gather(constant(op, table), op.Squeeze(code, [1]), axis=0)
