"""The face blender for ONNX Runtime on a GPU: one patch a face, all frames of a batch at once.

There an operator costs one kernel, whatever the frame: so a slot of every frame is laid on
together, and only the pixels that the largest of their faces covers are touched. Patches of one
slot have one size, and a smaller face's patch simply reaches farther into pixels of weight 0. At
the frame's edge a patch repeats the last pixel: it is computed and written twice, the same both
times. The frame itself is copied once a slot, as the bytes that it is.

(Whole frames as float32 are a form for TensorRT, which fuses what is done to a pixel. ONNX Runtime
would read and write all of them once an operator.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.face_blender.blend import Blend, blend_pixels
from graphs.face_blender.crops import BORDER, sampling_grid, with_border
from graphs.face_blender.frame_layout import LAYERS, FrameLayout, Layer, crop_bounds, frame_layout
from graphs.shapes import (
    Op,
    constant,
    dimension,
    sample_on_gpu,
    to_float,
    to_int64,
    typed_value,
)

_LEAST_SIDE: Final = 2.0
"""Pixels of a patch's side where no frame has a face: an operator on nothing is a special case in
too many places, and a patch of weight 0 changes nothing."""

_MASK: Final = 3
"""Which of a crop's layers is its mask, behind three colours."""


@dataclass(frozen=True)
class _Boxes:
    """What the crops cover: even luma pixels, float32 [B, K], 0 where nothing is shown."""

    left: ir.Value
    top: ir.Value
    wide: ir.Value
    tall: ir.Value


@dataclass(frozen=True)
class _Slot:
    """One slot of every frame: layers [B, 4, S + 2, S + 2], colours and mask with their border;
    warps [B, 2, 3]; a box (each side [B, 1, 1])."""

    layers: ir.Value
    warps: ir.Value
    box: _Boxes


def blend_patches(author: GraphAuthor, blend: Blend) -> ir.Value:
    """Frames with their crops laid on, uint8 like `blend.frame`."""
    op: Op = author.op
    author.use_onnxruntime_operators()
    with author.scope("preprocess"):
        masks = op.Mul(blend.solid, constant(op, blend.box_mask))
    with author.scope("blend"):
        layout = frame_layout(op, blend.frame, blend.frame_format)
        # a hidden slot must not make a patch large, and its weight is 0 whatever its warp
        warps = op.Where(op.Unsqueeze(blend.shown, [2, 3]), blend.warps, 0.0)
        masks = op.Mul(masks, op.Unsqueeze(to_float(op, blend.shown), [2, 3, 4]))
        bordered = with_border(op, blend.crops, masks, leading=3)
        boxes = _bounds(op, blend, warps, layout)
        flat = op.Reshape(blend.frame, op.Concat(dimension(op, blend.frame, 0), [-1], axis=0))

        def one_slot(op: Op, index: ir.Value, go_on: ir.Value, before: ir.Value) -> list[ir.Value]:
            def take(value: ir.Value) -> ir.Value:
                return op.Gather(value, index, axis=1)

            def side(value: ir.Value) -> ir.Value:
                return op.Unsqueeze(take(value), [1, 2])

            box = _Boxes(*(side(v) for v in (boxes.left, boxes.top, boxes.wide, boxes.tall)))
            slot = _Slot(take(bordered), take(warps), box)
            return [op.Identity(go_on), _lay(op, blend, layout, before, slot)]

        # Straight from Shape, [1] where ONNX says a scalar: a Loop of ONNX Runtime 1.31 on a GPU
        # read the frame's height from the buffer that a Squeeze on the CPU had made for K (H100:
        # 360 rounds for one slot; past the last slot they change nothing but the time).
        count = dimension(op, blend.warps, 1)
        (swapped,) = GraphAuthor.loop(
            op,
            one_slot,
            count,
            [flat],
            name="slots",
            index="slot",
            before=[typed_value("before", ir.DataType.UINT8, "B", "frame_bytes")],
            after=[typed_value("after", ir.DataType.UINT8, "B", "frame_bytes")],
        )
        return op.Reshape(swapped, op.Shape(blend.frame))


def _bounds(op: Op, blend: Blend, warps: ir.Value, layout: FrameLayout) -> _Boxes:
    columns, rows = crop_bounds(op, warps, blend.crop_size, layout)
    visible = op.Unsqueeze(blend.shown, [2, 3])
    edges = [
        op.Squeeze(op.Where(visible, edge, 0.0), [2, 3])
        for first, last in (columns, rows)
        for edge in (first, op.Sub(last, first))
    ]
    return _Boxes(left=edges[0], top=edges[2], wide=edges[1], tall=edges[3])


def _lay(op: Op, blend: Blend, layout: FrameLayout, flat: ir.Value, slot: _Slot) -> ir.Value:
    """Flat frames [B, bytes] with one slot laid on."""
    # The patch's size is the only number that the host has to know: it shapes what follows.
    wide, tall = (
        to_int64(op, op.Max(op.ReduceMax(extent, keepdims=0), _LEAST_SIDE))
        for extent in (slot.box.wide, slot.box.tall)
    )
    all_places, all_values = [], []
    for layer in LAYERS[blend.frame_format]:
        columns, rows = (
            _clamped(op, first, extent, size, layer.step, axis)
            for first, extent, size, axis in (
                (slot.box.left, wide, layout.width, 1),
                (slot.box.top, tall, layout.height, 2),
            )
        )
        places = _places(op, columns, rows, layout, layer)
        colors, weight = _sample(op, blend, slot, columns, rows, layer)
        below = to_float(op, op.GatherElements(flat, places, axis=1))
        below = op.Reshape(below, op.Shape(colors))
        mixed = blend_pixels(op, below, colors, weight)
        values = op.Reshape(op.Cast(mixed, to=ir.DataType.UINT8), op.Shape(places))
        all_places.append(places)
        all_values.append(values)
    return op.ScatterElements(flat, _join(op, all_places), _join(op, all_values), axis=1)


def _join(op: Op, parts: Sequence[ir.Value]) -> ir.Value:
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)


def _sample(
    op: Op, blend: Blend, slot: _Slot, columns: ir.Value, rows: ir.Value, layer: Layer
) -> tuple[ir.Value, ir.Value]:
    """A layer's colours [B, C, h, w] at its patches' pixels, and their weight [B, 1, h, w]."""
    origin = blend.offset if layer.step != 1 else None
    x, y = (op.Unsqueeze(numbers, [3]) for numbers in (columns, rows))
    grid = sampling_grid(op, slot.warps, x, y, origin, blend.crop_size + 2 * BORDER)
    wanted = constant(op, np.array([*layer.channels, _MASK]))
    found = sample_on_gpu(op, op.Gather(slot.layers, wanted, axis=1), grid)
    count = len(layer.channels)
    return op.Slice(found, [0], [count], [1]), op.Slice(found, [count], [count + 1], [1])


def _places(
    op: Op, columns: ir.Value, rows: ir.Value, layout: FrameLayout, layer: Layer
) -> ir.Value:
    """Bytes of the frames that a layer's patches are, channel by channel: int32 [B, C * h * w]."""
    line = layout.lines[layer.pictures[0]]
    columns, rows, line = (op.Cast(v, to=ir.DataType.INT32) for v in (columns, rows, line))
    if layer.elements != 1:
        columns = op.Mul(columns, constant(op, np.array(layer.elements, np.int32)))
    index = op.Add(op.Mul(rows, line), columns)
    index = op.Reshape(index, op.Concat(dimension(op, index, 0), [-1], axis=0))
    starts = []
    for position in range(len(layer.channels)):
        picture, element = divmod(position, layer.elements)
        starts.append(op.Add(layout.starts[layer.pictures[picture]], [element]))
    return _join(op, [op.Add(index, op.Cast(s, to=ir.DataType.INT32)) for s in starts])


def _clamped(
    op: Op, first: ir.Value, extent: ir.Value, size: ir.Value, step: int, axis: int
) -> ir.Value:
    """Column or row numbers of a plane's patches, float32 [B, 1, w] or [B, h, 1].

    Args:
        first: [B, 1, 1], luma pixels. extent: int64 scalar, likewise. size: int64 [1], the frame's.
        axis: 1 for columns, 2 for rows: the one that stays of size 1.
    """
    count = op.Div(extent, constant(op, np.array(step)))
    numbers = op.Unsqueeze(to_float(op, op.Range(0, count, 1)), [0, axis])
    last = op.Sub(op.Mul(to_float(op, size), 1.0 / step), 1.0)
    return op.Min(op.Add(op.Mul(first, 1.0 / step), numbers), last)
