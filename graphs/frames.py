"""A batch of frames inside a graph, and faces cut out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from graphs.alignment import crop_bgr, crop_i420
from graphs.authoring import GraphAuthor
from graphs.contract import FRAME, NO_EXTRAS, OPTIONS, Extras, FrameFormat, frame_spec
from graphs.pixels import safe_options, valid_options
from graphs.shapes import Op, dimension, to_float, used_slots

Runtime = Literal["tensorrt", "onnxruntime", "onnxruntime_gpu"]
"""Which runtime reads a frame; what is read is the same.

"tensorrt" (ONNX Runtime runs it too): the whole frame is cast first, because TensorRT's parser
takes nothing else on uint8.
"onnxruntime": only the bytes that are read are cast, and slots behind the last face are not read.
"onnxruntime_gpu": nor are they; I420 frames are read by ONNX Runtime's GridSample.
"""


@dataclass(frozen=True)
class Frames:
    """A batch of frames inside the graph.

    pixels: float32 in 0..255, or uint8, shaped as sent.
    options: [B, 16] float32, every row valid.
    sampled: read them by GridSample (`graphs.frame_sampling`); float32 and I420 then.
    counted: leave out the slots behind the last face of the batch, at the price of shapes that
        only a run knows.
    """

    pixels: ir.Value
    frame_format: FrameFormat
    options: ir.Value
    sampled: bool = False
    counted: bool = False


def declare_frame(author: GraphAuthor, frame_format: FrameFormat, runtime: Runtime) -> ir.Value:
    """The input `frame`; the graph imports what `runtime` reads it with."""
    if _is_sampled(frame_format, runtime):
        author.use_onnxruntime_operators()
    return author.input(frame_spec(FRAME, frame_format))


def declare_options(author: GraphAuthor) -> ir.Value:
    """The input `options`."""
    return author.input(OPTIONS)


def read_frames(
    op: Op,
    frame: ir.Value,
    options: ir.Value,
    frame_format: FrameFormat,
    runtime: Runtime,
    extras: Extras = NO_EXTRAS,
) -> tuple[Frames, ir.Value]:
    """Frames as `runtime` reads them, and whether each row's options are valid, bool [B, 1].

    Rows whose options are not valid have the defaults.
    """
    valid = valid_options(op, options, extras)
    sampled = _is_sampled(frame_format, runtime)
    frames = Frames(
        to_float(op, frame) if runtime == "tensorrt" or sampled else frame,
        frame_format,
        safe_options(op, options, valid),
        sampled,
        counted=runtime != "tensorrt",
    )
    return frames, valid


def _is_sampled(frame_format: FrameFormat, runtime: Runtime) -> bool:
    return runtime == "onnxruntime_gpu" and frame_format == "i420"


def crop_faces(op: Op, frames: Frames, warps: ir.Value, side: int) -> ir.Value:
    """Crops [B, K, 3, S, S] float32 RGB in [0, 1]; slots without a warp are 0."""
    if not frames.counted:
        return _crop(op, frames, warps, side)
    # Reading costs as much for an empty slot as for a face. (A GPU is waited for here, but so it is
    # by whoever joins the faces of several frames next.)
    there = op.Greater(op.ReduceMax(op.Abs(warps), [2, 3], keepdims=0), 0.0)
    slots, used = dimension(op, warps, 1), used_slots(op, there)
    crops = _crop(op, frames, op.Slice(warps, [0], used, [1]), side)
    batch, shape = dimension(op, warps, 0), [3, side, side]
    rest = op.Sub(slots, used)
    if frames.sampled:
        # A GPU's Pad takes far longer; a CPU's writes everything once.
        zeros = op.Expand(0.0, op.Concat(batch, rest, shape, axis=0))
        padded = op.Concat(crops, zeros, axis=1)
    else:
        padded = op.Pad(crops, op.Concat([0, 0, 0, 0, 0, 0], rest, [0, 0, 0], axis=0))
    return op.Reshape(padded, op.Concat(batch, slots, shape, axis=0))


def _crop(op: Op, frames: Frames, warps: ir.Value, side: int) -> ir.Value:
    if frames.frame_format == "bgr":
        return crop_bgr(op, frames.pixels, warps, side)
    return crop_i420(op, frames.pixels, frames.options, warps, side, sampled=frames.sampled)
