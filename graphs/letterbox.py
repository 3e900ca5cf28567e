"""The detector's view of a frame: resized to fit a square, placed top-left, the rest black.

The numbers are insightface 2.1's (`SCRFD.detect`): sizes by truncation, `cv2.resize`'s bilinear
half-pixel maths, and one scale, new height / height, for both axes. Sizes and positions are worked
out in whole numbers, so they cannot round differently on another machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphs.arithmetic import lerp
from graphs.contract import DETECTOR_SIZE, FrameFormat
from graphs.frame_sampling import sample_i420
from graphs.pixels import chroma_offset, color_index, frame_size, yuv_to_rgb
from graphs.shapes import Op, dimension, split, to_float
from networks.detectors import ChannelOrder


@dataclass(frozen=True)
class Letterbox:
    """A letterboxed batch: a position in the frame is the one in the letterbox divided by `scale`.

    pixels: [B, 3, 640, 640] float32 in 0..255, RGB or BGR as asked.
    scale: float32 [1], letterbox pixels per frame pixel.
    """

    pixels: ir.Value
    scale: ir.Value


@dataclass(frozen=True)
class ResizeTaps:
    """Source rows (or columns) that every row of the result is mixed from.

    indices: int64 [n] each. weights: float32, one fewer than indices where the first is implied.
    """

    indices: tuple[ir.Value, ...]
    weights: tuple[ir.Value, ...]


def letterbox_size(op: Op, height: ir.Value, width: ir.Value) -> tuple[ir.Value, ir.Value]:
    """New height and width, int64 [1] each, of a frame that is fitted into the square.

    The longer side becomes 640, the other one is truncated: 640 * short // long. (insightface
    divides in floating point, which for a few portrait sizes comes out one column short: 426 for
    854 x 1280, where 427 is exact.)
    """
    side = [DETECTOR_SIZE]
    new_height = op.Min(op.Div(op.Mul(height, side), width), side)
    new_width = op.Min(op.Div(op.Mul(width, side), height), side)
    return op.Max(new_height, [1]), op.Max(new_width, [1])


def _positions(op: Op, size: ir.Value, new_size: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Source position of every new pixel centre as a fraction: numerators [n], denominator [1].

    cv2.resize: (i + 1/2) size / new_size - 1/2 = ((2 i + 1) size - new_size) / (2 new_size).
    """
    index = op.Range(0, op.Squeeze(new_size, [0]), 1)
    numerator = op.Sub(op.Mul(op.Add(op.Mul(index, [2]), [1]), size), new_size)
    return numerator, op.Mul(new_size, [2])


def _points(op: Op, size: ir.Value, new_size: ir.Value) -> ir.Value:
    """Source position of every new pixel centre, float32 [n], pixels."""
    numerator, denominator = _positions(op, size, new_size)
    return op.Div(to_float(op, numerator), to_float(op, denominator))


def resize_taps(op: Op, size: ir.Value, new_size: ir.Value) -> ResizeTaps:
    """Two taps per new pixel, and the weight [n] of the second; edges repeat.

    Args:
        size, new_size: int64 [1].
    """
    numerator, denominator = _positions(op, size, new_size)
    inside = op.Max(numerator, [0])
    first = op.Div(inside, denominator)
    rest = op.Sub(inside, op.Mul(first, denominator))
    second = op.Min(op.Add(first, [1]), op.Sub(size, [1]))
    return ResizeTaps((first, second), (op.Div(to_float(op, rest), to_float(op, denominator)),))


def chroma_taps(op: Op, size: ir.Value, new_size: ir.Value, offset: ir.Value) -> ResizeTaps:
    """Three taps per new pixel in a chroma plane, shared by rows of any chroma location.

    The position is (luma position - offset) / 2. Offsets differ between rows of a batch by half a
    luma pixel, so the same three samples serve all of them, with weights max(0, 1 - distance).

    Args:
        size, new_size: int64 [1], of the luma plane.
        offset: [B, 1] float32, 0 or 0.5 luma pixels.

    Returns:
        three indices [n] (edges repeat) and three weights [B, n].
    """
    numerator, denominator = _positions(op, size, new_size)
    # first = floor(position / 2 - 1/4); one whole period is added to keep the dividend positive
    period = op.Mul(denominator, [2])
    shifted = op.Add(op.Sub(numerator, new_size), period)
    first = op.Sub(op.Div(shifted, period), [1])
    rest = op.Sub(shifted, op.Mul(op.Add(first, [1]), period))
    beyond_first = op.Div(to_float(op, rest), to_float(op, period))
    at = op.Add(op.Unsqueeze(beyond_first, [0]), op.Sub(0.25, op.Mul(offset, 0.5)))
    last = op.Sub(op.Div(size, [2]), [1])
    indices = tuple(op.Min(op.Max(op.Add(first, [step]), [0]), last) for step in range(3))
    weights = (
        op.Relu(op.Sub(1.0, at)),
        op.Sub(1.0, op.Abs(op.Sub(at, 1.0))),
        op.Relu(op.Sub(at, 1.0)),
    )
    return ResizeTaps(indices, weights)


def _mix_three(op: Op, lines: ir.Value, taps: ResizeTaps) -> ir.Value:
    """Lines (axis 1 of [B, L, w]) mixed by three taps with weights [B, n]."""
    parts = [
        op.Mul(to_float(op, op.Gather(lines, index, axis=1)), op.Unsqueeze(weight, [2]))
        for index, weight in zip(taps.indices, taps.weights, strict=True)
    ]
    return op.Add(op.Add(parts[0], parts[1]), parts[2])


def _resize_turned(
    op: Op, lines: ir.Value, rows: ResizeTaps, columns: ResizeTaps, line: list[ir.Value | list[int]]
) -> ir.Value:
    """Lines [B, H, L] resized and turned, [B, w, ..., h] float32.

    Lines are gathered whole and the picture is turned in between, because a copy of whole lines is
    much faster on a CPU than one of single pixels; values are converted only after that.

    Args:
        line: axes that a line's L elements stand for, its pixels first; the last axis of the turned
            picture is the new rows.
    """
    weight_x, weight_y = columns.weights[0], rows.weights[0]
    for _ in line:
        weight_x = op.Unsqueeze(weight_x, [-1])
    mixed = []
    for row in rows.indices:
        turned = op.Transpose(op.Gather(lines, row, axis=1), perm=[0, 2, 1])
        if len(line) > 1:
            shape = op.Concat(dimension(op, turned, 0), *line, [-1], axis=0)
            turned = op.Reshape(turned, shape)
        left, right = (to_float(op, op.Gather(turned, c, axis=1)) for c in columns.indices)
        mixed.append(lerp(op, left, right, weight_x))
    return lerp(op, mixed[0], mixed[1], weight_y)


def _resize_bgr(op: Op, frame: ir.Value, rows: ResizeTaps, columns: ResizeTaps) -> ir.Value:
    """Channels as they come, [B, 3, h, w] float32, from frames [B, H, W, 3]."""
    batch, height, width = (dimension(op, frame, axis) for axis in range(3))
    lines = op.Reshape(frame, op.Concat(batch, height, [-1], axis=0))
    turned = _resize_turned(op, lines, rows, columns, [width, [3]])
    return op.Transpose(turned, perm=[0, 2, 3, 1])


def _resize_luma(op: Op, frame: ir.Value, rows: ResizeTaps, columns: ResizeTaps) -> ir.Value:
    """Y [B, h, w] float32 from I420 frames [B, H*3/2, W]."""
    turned = _resize_turned(op, frame, rows, columns, [dimension(op, frame, 2)])
    return op.Transpose(turned, perm=[0, 2, 1])


def _resize_chroma(
    op: Op, frame: ir.Value, height: ir.Value, rows: ResizeTaps, columns: ResizeTaps
) -> ir.Value:
    """U and V [B, 2, h, w] from I420 frames [B, H*3/2, W].

    Seen as [B, 3 H, W/2], the frame has U in lines 2 H .. 2.5 H and V behind it, whatever H mod 4.
    """
    batch = dimension(op, frame, 0)
    lines = op.Reshape(frame, op.Concat(batch, op.Mul(height, [3]), [-1], axis=0))
    start_u = op.Mul(height, [2])
    start_v = op.Add(start_u, op.Div(height, [2]))
    both = ResizeTaps(
        tuple(
            op.Concat(op.Add(index, start_u), op.Add(index, start_v), axis=0)
            for index in rows.indices
        ),
        tuple(op.Concat(weight, weight, axis=1) for weight in rows.weights),
    )
    turned = op.Transpose(_mix_three(op, lines, both), perm=[0, 2, 1])
    small = op.Transpose(_mix_three(op, turned, columns), perm=[0, 2, 1])
    size = op.Concat(batch, [2], dimension(op, rows.indices[0], 0), [-1], axis=0)
    return op.Reshape(small, size)


def letterbox(
    op: Op,
    frame: ir.Value,
    frame_format: FrameFormat,
    options: ir.Value,
    channel_order: ChannelOrder,
    *,
    sampled: bool = False,
) -> Letterbox:
    """A batch of frames as the detector sees it.

    Args:
        frame: [B, H*3/2, W] (i420) or [B, H, W, 3] (bgr), float32 in 0..255 or uint8.
        options: [B, 8] float32, valid: the colour space of I420 frames.
        channel_order: of the result.
        sampled: I420 frames by GridSample (`graphs.frame_sampling`): the operator is ONNX
            Runtime's, and the model must import its domain.

    Source: insightface 2.1, model_zoo/scrfd.py; OpenCV, imgproc/resize (INTER_LINEAR).
    """
    height, width = frame_size(op, frame, frame_format)
    new_height, new_width = letterbox_size(op, height, width)
    if frame_format == "bgr":
        rows, columns = resize_taps(op, height, new_height), resize_taps(op, width, new_width)
        picture = _resize_bgr(op, frame, rows, columns)
        if channel_order == "rgb":
            picture = op.Gather(picture, [2, 1, 0], axis=1)
    else:
        offset = chroma_offset(op, options)
        if sampled:
            x = op.Unsqueeze(_points(op, width, new_width), [0, 1])
            y = op.Unsqueeze(_points(op, height, new_height), [0, 2])
            luma, chroma = sample_i420(op, to_float(op, frame), (height, width), (x, y), offset)
        else:
            rows, columns = resize_taps(op, height, new_height), resize_taps(op, width, new_width)
            luma = _resize_luma(op, frame, rows, columns)
            offset_x, offset_y = split(op, offset, 2, 1)
            chroma = _resize_chroma(
                op,
                frame,
                height,
                chroma_taps(op, height, new_height, offset_y),
                chroma_taps(op, width, new_width, offset_x),
            )
        blue, red = (op.Unsqueeze(plane, [1]) for plane in split(op, chroma, 2, 1))
        color = color_index(op, options, height)
        planes = (op.Unsqueeze(luma, [1, 2]), blue, red)
        mixed = yuv_to_rgb(op, *planes, color, channel_order=channel_order, white=255.0)
        picture = op.Squeeze(mixed, [1])
    side = [DETECTOR_SIZE]
    padding = op.Concat(
        [0, 0, 0, 0, 0, 0], op.Sub(side, new_height), op.Sub(side, new_width), axis=0
    )
    # the Reshape changes nothing but tells a compiler that the network's input size is fixed
    square = op.Reshape(op.Pad(picture, padding), [0, 3, DETECTOR_SIZE, DETECTOR_SIZE])
    return Letterbox(square, op.Div(to_float(op, new_height), to_float(op, height)))
