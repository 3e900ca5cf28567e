"""The face blender for a CPU: only the rectangle of each face is read, blended and written back.

Runs row by row and slot by slot in two `Loop`s over the uint8 frame itself. Looking a crop up by
gathered taps costs a quarter of GridSample here, and the mask is a product of two profiles, so it
is two short table lookups instead of a third image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.geometry import apply_warps, bilinear_taps, gather_bilinear, invert_warps
from graphs.shapes import Op, constant, dimension, outputs, split, to_float, to_int64


@dataclass(frozen=True)
class _Layer:
    """Pictures of one size that share their lookups: BGR; or Y; or U and V.

    pictures: positions among the frame's pictures.
    channels: the crop's colours they hold, one a picture, or all three interleaved.
    step: luma pixels from one of their pixels to the next.
    """

    pictures: tuple[int, ...]
    channels: tuple[int, ...]
    step: int

    @property
    def elements(self) -> int:
        """Values of one pixel in a row."""
        return len(self.channels) // len(self.pictures)


I420_LAYERS = (_Layer((0,), (0,), 1), _Layer((1, 2), (1, 2), 2))
BGR_LAYERS = (_Layer((0,), (0, 1, 2), 1),)


def _scalar(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([]))


def _points(name: str) -> ir.Value:
    shape = ir.Shape([1, f"{name}_points"])
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)


def _picture(name: str) -> ir.Value:
    shape = ir.Shape([f"{name}_rows", f"{name}_elements"])
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.UINT8), shape=shape)


def blend_regions(
    author: GraphAuthor,
    frame: ir.Value,
    crops: ir.Value,
    solid: ir.Value,
    warps: ir.Value,
    shown: ir.Value,
    offset: ir.Value | None,
    profile: npt.NDArray[np.float32],
) -> ir.Value:
    """Frames with their crops laid on, uint8 like `frame`.

    Args:
        frame: [B, H*3/2, W] or [B, H, W, 3] uint8.
        crops: [B, K, 3, S, S] float32, harmless, in the frame's own colours on the 8-bit scale.
        solid: [B, K, 1, S, S] float32, 1 where a crop holds numbers.
        warps: [B, K, 2, 3] float32, frame to crop.
        shown: bool [B, K].
        offset: [B, 2] luma position of chroma sample (0, 0); None for BGR frames.
        profile: (S,), the box mask's side.
    """
    op: Op = author.op
    planar = offset is not None
    layers = I420_LAYERS if planar else BGR_LAYERS

    def one_frame(op: Op, row: ir.Value, go_on: ir.Value) -> list[ir.Value]:
        picture = op.Gather(frame, row, axis=0)
        pictures = _cut(op, picture) if planar else [op.Reshape(picture, _flat_rows(op, picture))]
        slots = _SlotInputs(
            crops=op.Gather(crops, row, axis=0),
            solid=op.Gather(solid, row, axis=0),
            warps=op.Gather(warps, row, axis=0),
            shown=op.Gather(shown, row, axis=0),
            offset=op.Gather(offset, row, axis=0) if offset is not None else None,
        )
        done = _loop_over_slots(author, op, pictures, slots, layers, profile)
        if planar:
            width = dimension(op, picture, 1)
            chroma = op.Concat(*(op.Reshape(plane, [-1]) for plane in done[1:]), axis=0)
            tail = op.Reshape(chroma, op.Concat([-1], width, axis=0))
            joined = op.Concat(done[0], tail, axis=0)
        else:
            joined = op.Reshape(done[0], op.Shape(picture))
        return [op.Identity(go_on), joined]

    inputs = [_scalar("row", ir.DataType.INT64), _scalar("more_rows", ir.DataType.BOOL)]
    rank: list[str | int] = ["rows", "W"] if planar else ["H", "W", 3]
    swapped = ir.Value(
        name="row_swapped", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(rank)
    )
    with author.scope("blend"):
        graph = author.subgraph(
            op,
            one_frame,
            inputs,
            [_scalar("more_rows_next", ir.DataType.BOOL), swapped],
            name="rows",
        )
        count = op.Squeeze(dimension(op, frame, 0), [0])
        return op.Loop(count, constant(op, np.array(True)), body=graph)


@dataclass(frozen=True)
class _SlotInputs:
    """Of one frame: crops [K, 3, S, S], solid [K, 1, S, S], warps [K, 2, 3], shown [K], offset."""

    crops: ir.Value
    solid: ir.Value
    warps: ir.Value
    shown: ir.Value
    offset: ir.Value | None


def _flat_rows(op: Op, picture: ir.Value) -> ir.Value:
    """Shape [H, W*3] of a picture [H, W, 3]."""
    return op.Concat(dimension(op, picture, 0), [-1], axis=0)


def _cut(op: Op, picture: ir.Value) -> list[ir.Value]:
    """Y [H, W], U and V [H/2, W/2] of one I420 picture [H*3/2, W]; the tail is cut flat."""
    height = op.Div(op.Mul(dimension(op, picture, 0), [2]), [3])
    width = dimension(op, picture, 1)
    luma = op.Slice(picture, [0], height, [0])
    tail = op.Reshape(op.Slice(picture, height, [np.iinfo(np.int64).max], [0]), [-1])
    half = op.Concat(op.Div(height, [2]), op.Div(width, [2]), axis=0)
    return [luma, *(op.Reshape(part, half) for part in split(op, tail, 2, 0))]


def _loop_over_slots(
    author: GraphAuthor,
    op: Op,
    pictures: list[ir.Value],
    slots: _SlotInputs,
    layers: tuple[_Layer, ...],
    profile: npt.NDArray[np.float32],
) -> list[ir.Value]:
    """Lay the shown slots of one frame onto its pictures, in order."""
    count = len(pictures)

    def one_slot(op: Op, slot: ir.Value, go_on: ir.Value, *state: ir.Value) -> list[ir.Value]:
        warp = op.Gather(slots.warps, slot, axis=0)
        height, width = dimension(op, state[0], 0), dimension(op, state[0], 1)
        box = _bounds(op, warp, len(profile), height, op.Div(width, [layers[0].elements]))
        seen = op.And(op.Gather(slots.shown, slot, axis=0), _has_area(op, box))

        def lay(op: Op) -> list[ir.Value]:
            crop = op.Reshape(op.Gather(slots.crops, slot, axis=0), [1, -1])
            solid = op.Reshape(op.Gather(slots.solid, slot, axis=0), [1, -1])
            done: list[ir.Value] = []
            for number, layer in enumerate(layers):
                look = _look_up(
                    author, op, layer, crop, solid, warp, box, slots.offset, profile, number
                )
                for picture, colors in zip(layer.pictures, look.colors, strict=True):
                    done.append(_lay(op, state[picture], layer, box, colors, look.weight))
            return done

        def keep(op: Op) -> list[ir.Value]:
            return [op.Identity(picture) for picture in state]

        branches = {
            name: author.subgraph(
                op, trace, [], [_picture(f"{name}_{i}") for i in range(count)], name=name
            )
            for name, trace in (("lay", lay), ("keep", keep))
        }
        chosen = op.If(
            seen, then_branch=branches["lay"], else_branch=branches["keep"], _outputs=count
        )
        return [op.Identity(go_on), *outputs(chosen)]

    graph = author.subgraph(
        op,
        one_slot,
        [
            _scalar("slot", ir.DataType.INT64),
            _scalar("more_slots", ir.DataType.BOOL),
            *(_picture(f"before_{i}") for i in range(count)),
        ],
        [
            _scalar("more_slots_next", ir.DataType.BOOL),
            *(_picture(f"after_{i}") for i in range(count)),
        ],
        name="slots",
    )
    slot_count = op.Squeeze(dimension(op, slots.warps, 0), [0])
    made = op.Loop(slot_count, constant(op, np.array(True)), *pictures, body=graph, _outputs=count)
    return outputs(made)


def _bounds(
    op: Op, warp: ir.Value, side: int, height: ir.Value, width: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """Left, top, right, bottom (the last two excluded) of what a crop covers: int64 [1], even.

    The box is that of the crop's corners one pixel out, where the mask has faded to 0, widened to
    whole 2x2 blocks so that luma and chroma cover the same pixels.
    """
    corners = np.array([[-1, -1], [side, -1], [-1, side], [side, side]], np.float32)
    x, y = (constant(op, corners[None, None, :, axis]) for axis in (0, 1))
    frame_x, frame_y = apply_warps(op, op.Unsqueeze(invert_warps(op, warp), [0]), x, y)
    edges = []
    for position, size in ((frame_x, width), (frame_y, height)):
        limit = to_float(op, size)
        low = op.Floor(op.Div(op.ReduceMin(position, keepdims=0), 2.0))
        high = op.Ceil(op.Div(op.Add(op.ReduceMax(position, keepdims=0), 1.0), 2.0))
        for bound in (low, high):
            kept = op.Min(op.Max(op.Mul(bound, 2.0), 0.0), limit)
            edges.append(op.Reshape(to_int64(op, kept), [1]))
    return edges[0], edges[2], edges[1], edges[3]


def _has_area(op: Op, box: tuple[ir.Value, ...]) -> ir.Value:
    left, top, right, bottom = box
    return op.Squeeze(op.And(op.Greater(right, left), op.Greater(bottom, top)), [0])


@dataclass(frozen=True)
class _Lookup:
    """What a crop says about every pixel of a box.

    colors: one a picture, [1, P] or [1, P, 3] float32 on the 8-bit scale.
    weight: [1, P] float32 in [0, 1].
    """

    colors: list[ir.Value]
    weight: ir.Value


def _look_up(
    author: GraphAuthor,
    op: Op,
    layer: _Layer,
    crop: ir.Value,
    solid: ir.Value,
    warp: ir.Value,
    box: tuple[ir.Value, ...],
    offset: ir.Value | None,
    profile: npt.NDArray[np.float32],
    number: int,
) -> _Lookup:
    """Read the crop at the pixels of a box.

    Args:
        crop: [1, 3*S*S], solid: [1, S*S], both flat.
        box: left, top, right, bottom in luma pixels.
        number: of the layer, for names.
    """
    side = len(profile)
    own = tuple(op.Div(edge, [layer.step]) for edge in box)
    x, y = _crop_positions(op, warp, own, layer.step, offset)
    length = constant(op, np.array([side], np.int64))
    taps = bilinear_taps(op, x, y, length, length)
    faded = op.Mul(_profile_at(op, x, profile), _profile_at(op, y, profile))

    # Nearly every crop is all numbers, and then the third lookup is not made.
    def whole(op: Op) -> list[ir.Value]:
        return [op.Identity(faded)]

    def holed(op: Op) -> list[ir.Value]:
        return [op.Mul(faded, gather_bilinear(op, solid, taps))]

    branches = [
        author.subgraph(op, trace, [], [_points(f"{name}_{number}")], name=f"{name}_{number}")
        for name, trace in (("whole", whole), ("holed", holed))
    ]
    all_solid = op.Greater(op.ReduceMin(solid, keepdims=0), 0.5)
    weight = op.If(all_solid, then_branch=branches[0], else_branch=branches[1])
    found = [
        gather_bilinear(op, crop, taps, start=channel * side * side) for channel in layer.channels
    ]
    if layer.elements > 1:
        found = [op.Concat(*(op.Unsqueeze(color, [2]) for color in found), axis=2)]
    return _Lookup(found, weight)


def _lay(
    op: Op,
    picture: ir.Value,
    layer: _Layer,
    box: tuple[ir.Value, ...],
    color: ir.Value,
    weight: ir.Value,
) -> ir.Value:
    """One picture [rows, elements] uint8 with colours laid onto a box of it."""
    left, top, right, bottom = (op.Div(edge, [layer.step]) for edge in box)
    first, last = (op.Mul(edge, [layer.elements]) for edge in (left, right))
    inner = op.Slice(picture, top, bottom, [0])
    under = to_float(op, op.Slice(inner, first, last, [1]))
    shape = op.Shape(under)
    if layer.elements > 1:
        pixels = op.Reshape(under, op.Shape(color))
        # a product that broadcasts along a last axis of 3 is several times slower than this
        one = op.Unsqueeze(weight, [2])
        step = op.Mul(op.Sub(color, pixels), op.Concat(*[one] * layer.elements, axis=2))
        mixed = op.Reshape(op.Add(pixels, step), shape)
    else:
        step = op.Mul(op.Sub(op.Reshape(color, shape), under), op.Reshape(weight, shape))
        mixed = op.Add(under, step)
    middle = op.Concat(
        op.Slice(inner, [0], first, [1]),
        op.Cast(op.Clip(op.Round(mixed), 0.0, 255.0), to=ir.DataType.UINT8),
        op.Slice(inner, last, [np.iinfo(np.int64).max], [1]),
        axis=1,
    )
    return op.Concat(
        op.Slice(picture, [0], top, [0]),
        middle,
        op.Slice(picture, bottom, [np.iinfo(np.int64).max], [0]),
        axis=0,
    )


def _crop_positions(
    op: Op,
    warp: ir.Value,
    box: tuple[ir.Value, ...],
    step: int,
    offset: ir.Value | None,
) -> tuple[ir.Value, ir.Value]:
    """Where the pixels of a box (in the layer's own pixels) lie in the crop: x, y [1, P]."""
    left, top, right, bottom = box
    axes = []
    for index, (start, end, around) in enumerate(((left, right, 0), (top, bottom, 1))):
        numbers = op.Range(op.Squeeze(start, [0]), op.Squeeze(end, [0]), 1)
        axis = to_float(op, numbers)
        if step != 1 and offset is not None:
            axis = op.Add(op.Mul(axis, float(step)), op.Slice(offset, [index], [index + 1], [0]))
        axes.append(op.Unsqueeze(axis, [around]))
    x, y = apply_warps(op, op.Unsqueeze(warp, [0]), axes[0], axes[1])
    return op.Reshape(x, [1, -1]), op.Reshape(y, [1, -1])


def _profile_at(op: Op, position: ir.Value, profile: npt.NDArray[np.float32]) -> ir.Value:
    """The mask's profile between its samples, fading to 0 within one pixel outside.

    Bilinear interpolation of an outer product is the product of two linear interpolations.
    """
    table = np.concatenate([[0.0], profile, [0.0, 0.0]]).astype(np.float32)
    steps = np.append(np.diff(table), np.float32(0.0)).astype(np.float32)
    inside = op.Clip(op.Add(position, 1.0), 0.0, float(len(profile) + 1))
    low = op.Floor(inside)
    index = to_int64(op, low)
    # GatherElements runs in parallel over the points; Gather copies them one by one
    base = op.GatherElements(constant(op, table[None]), index, axis=1)
    slope = op.GatherElements(constant(op, steps[None]), index, axis=1)
    return op.Add(base, op.Mul(slope, op.Sub(inside, low)))
