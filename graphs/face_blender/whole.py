"""The face blender for TensorRT: one pass over every pixel of every row, slot after slot.

A compiler fuses what is done to a pixel, and rows of a batch run together. The state of the `Loop`
is the frame as float32, so memory does not grow with K.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.face_blender.blend import Blend, blend_pixels
from graphs.face_blender.crops import BORDER, sampling_grid, with_border
from graphs.pixels import join_i420, split_i420
from graphs.shapes import Op, constant, dimension, to_float, typed_value


def blend_whole(author: GraphAuthor, blend: Blend) -> ir.Value:
    """Frames with their crops laid on, uint8 like `blend.frame`."""
    op: Op = author.op
    with author.scope("preprocess"):
        mask = constant(op, blend.box_mask)
        gate = op.Unsqueeze(to_float(op, blend.shown), [2, 3, 4])
        weights = op.Mul(op.Mul(blend.solid, mask), gate)
        layers = with_border(op, blend.crops, weights, leading=3)
        usable = op.Where(op.Unsqueeze(blend.shown, [2, 3]), blend.warps, 0.0)
        if blend.frame_format == "bgr":
            planes = [to_float(op, blend.frame)]
        else:
            planes = list(split_i420(op, to_float(op, blend.frame)))
    with author.scope("blend"):
        planes = _loop_over_slots(op, blend, planes, layers, usable)
    with author.scope("postprocess"):
        if blend.frame_format == "bgr":
            return op.Cast(planes[0], to=ir.DataType.UINT8)
        return op.Cast(join_i420(op, *planes), to=ir.DataType.UINT8)


def _loop_over_slots(
    op: Op, blend: Blend, planes: Sequence[ir.Value], layers: ir.Value, warps: ir.Value
) -> list[ir.Value]:
    """Lay slot 0, 1, ... onto the planes.

    Args:
        planes: [B, H, W, 3] (BGR), or [B, 1, H, W] and [B, 2, H/2, W/2], float32 whole numbers.
            BGR stays interleaved: TensorRT-RTX 1.7 does not compile a transposed loop state.
        layers: [B, K, 4, S + 2, S + 2]: three colours in the planes' order, then the mask.
        warps: [B, K, 2, 3], to crops without their extra border; 0 where nothing is shown.
    """
    interleaved = blend.frame_format == "bgr"
    axes = [_axes(op, plane, interleaved=interleaved) for plane in planes]
    origins = [None] if interleaved else [None, blend.offset]
    channels = [(0, 3)] if interleaved else [(0, 1), (1, 3)]
    side = blend.crop_size + 2 * BORDER

    def one_slot(op: Op, index: ir.Value, go_on: ir.Value, *state: ir.Value) -> list[ir.Value]:
        layer, warp = op.Gather(layers, index, axis=1), op.Gather(warps, index, axis=1)
        results = [op.Identity(go_on)]
        for plane, (x, y), origin, (first, last) in zip(
            state, axes, origins, channels, strict=True
        ):
            grid = sampling_grid(op, warp, x, y, origin, side)
            mask = op.Slice(layer, [3], [4], [1])
            chosen = op.Slice(layer, [first], [last], [1])
            looked = op.Concat(chosen, mask, axis=1)
            found = op.GridSample(
                looked, grid, mode="bilinear", padding_mode="border", align_corners=0
            )
            if interleaved:
                found = op.Transpose(found, perm=[0, 2, 3, 1])
            along = [3 if interleaved else 1]
            color = op.Slice(found, [0], [last - first], along)
            weight = op.Slice(found, [last - first], [last - first + 1], along)
            results.append(op.Clip(blend_pixels(op, plane, color, weight), 0.0, 255.0))
        return results

    def carried(name: str) -> list[ir.Value]:
        shapes: list[list[str | int]] = (
            [["B", "H0", "W0", 3]] if interleaved else [["B", 1, "H0", "W0"], ["B", 2, "H1", "W1"]]
        )
        floats = ir.DataType.FLOAT
        return [typed_value(f"{name}_{i}", floats, *shape) for i, shape in enumerate(shapes)]

    return GraphAuthor.loop(
        op,
        one_slot,
        op.Squeeze(dimension(op, warps, 1), [0]),
        planes,
        name="one_slot",
        index="slot",
        before=carried("before"),
        after=carried("after"),
    )


def _axes(op: Op, plane: ir.Value, *, interleaved: bool) -> tuple[ir.Value, ir.Value]:
    """Column and row numbers of a plane: [1, 1, W, 1] and [1, H, 1, 1] float32."""
    found = []
    last = 2 if interleaved else 3
    for axis, around in ((last, [0, 1, 3]), (last - 1, [0, 2, 3])):
        size = op.Squeeze(dimension(op, plane, axis), [0])
        found.append(op.Unsqueeze(to_float(op, op.Range(0, size, 1)), around))
    return found[0], found[1]
