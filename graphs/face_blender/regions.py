"""The face blender for a CPU: only the rectangle of each face is read, blended and written back.

Runs row by row and slot by slot in `Loop`s over the uint8 frame itself. An interpreter pays for
every operator with one pass over memory, so a face is laid on in as few as the arithmetic allows:

- two int32 indices and two weights a pixel serve every colour and the mask, read by
  `GatherElements` (0.6 ns a value; `GridSample` and `Gather` need over ten times as much);
- a second table holds each crop value's difference to its right neighbour, so that the upper and
  the lower mix are a product and a sum each;
- a frame is one flat list of bytes: a slot cuts it once and joins it once, whatever its planes;
- a large face is worked on in strips that stay in a core's own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.authoring import GraphAuthor
from graphs.face_blender.blend import Blend, blend_pixels
from graphs.face_blender.crops import CropTaps, LookupTable, crop_taps, look_up, lookup_tables
from graphs.face_blender.frame_layout import LAYERS, FrameLayout, Layer, crop_bounds, frame_layout
from graphs.shapes import Op, constant, dimension, to_float, to_int64, typed_value

_END = np.iinfo(np.int64).max
_STRIP_PIXELS = 65536
"""How many pixels of a box are worked on at a time: a quarter of a megabyte as float32. For a face
of 914 pixels a side that took 18.3 ms, all at once 22.6 (half as many pixels: 20.0)."""


@dataclass(frozen=True)
class _Box:
    """Left, top, right, bottom (the last two excluded) in luma pixels: int64 [1], even."""

    left: ir.Value
    top: ir.Value
    right: ir.Value
    bottom: ir.Value


@dataclass(frozen=True)
class _Edges:
    """A box in one picture's own rows and bytes of a row, the last two excluded: int64 [1]."""

    left: ir.Value
    top: ir.Value
    right: ir.Value
    bottom: ir.Value


@dataclass(frozen=True)
class _Patch:
    """New bytes, uint8 [h, w] with w in bytes, for a box of one picture."""

    values: ir.Value
    edges: _Edges


@dataclass(frozen=True)
class _Slots:
    """What is laid on one frame: the rows of a `Blend`, and the frame they go to.

    crops [K, 3, S, S], masks [K, 1, S, S], warps [K, 2, 3], shown [K]; offset [2] or None.
    layers: of the frame's pictures. crop_size: S.
    """

    crops: ir.Value
    masks: ir.Value
    warps: ir.Value
    shown: ir.Value
    offset: ir.Value | None
    layout: FrameLayout
    layers: tuple[Layer, ...]
    crop_size: int


def blend_regions(author: GraphAuthor, blend: Blend) -> ir.Value:
    """Frames with their crops laid on, uint8 like `blend.frame`."""
    op: Op = author.op
    with author.scope("preprocess"):
        masks = op.Mul(blend.solid, constant(op, blend.box_mask))
    layout = frame_layout(op, blend.frame, blend.frame_format)
    flat = op.Reshape(blend.frame, op.Concat(dimension(op, blend.frame, 0), [-1], axis=0))

    def one_frame(op: Op, row: ir.Value, go_on: ir.Value) -> list[ir.Value]:
        def of_row(value: ir.Value) -> ir.Value:
            return op.Gather(value, row, axis=0)

        slots = _Slots(
            crops=of_row(blend.crops),
            masks=of_row(masks),
            warps=of_row(blend.warps),
            shown=of_row(blend.shown),
            offset=of_row(blend.offset) if blend.offset is not None else None,
            layout=layout,
            layers=LAYERS[blend.frame_format],
            crop_size=blend.crop_size,
        )
        state = of_row(flat)
        return [op.Identity(go_on), _loop_over_slots(op, slots, state)]

    with author.scope("blend"):
        count = op.Squeeze(dimension(op, blend.frame, 0), [0])
        (swapped,) = author.loop(
            op,
            one_frame,
            count,
            name="rows",
            index="row",
            go_on="more_rows",
            after=[_bytes("row_swapped")],
        )
        return op.Reshape(swapped, op.Shape(blend.frame))


def _bytes(name: str) -> ir.Value:
    return typed_value(name, ir.DataType.UINT8, "frame_bytes")


def _loop_over_slots(op: Op, slots: _Slots, state: ir.Value) -> ir.Value:
    """Lay the shown slots of one flat frame onto it, in order."""

    def one_slot(op: Op, slot: ir.Value, go_on: ir.Value, before: ir.Value) -> list[ir.Value]:
        warp = op.Gather(slots.warps, slot, axis=0)
        box = _bounds(op, slots, warp)
        seen = op.And(op.Gather(slots.shown, slot, axis=0), _has_area(op, box))

        def lay(op: Op) -> list[ir.Value]:
            crop, mask = (
                op.Unsqueeze(op.Gather(pictures, slot, axis=0), [0])
                for pictures in (slots.crops, slots.masks)
            )
            tables = lookup_tables(op, crop, mask, slots.crop_size)

            def blend(op: Op, strip: _Box) -> list[ir.Value]:
                values: list[ir.Value] = []
                for layer in slots.layers:
                    x, y = _luma_positions(op, strip, layer.step, slots.offset)
                    taps = crop_taps(op, op.Unsqueeze(warp, [0]), x, y, slots.crop_size)
                    values += _blend_layer(op, before, layer, slots.layout, strip, tables, taps)
                return values

            edges = [_edges(op, box, layer) for layer in slots.layers for _ in layer.pictures]
            values = _blend_strips(op, box, edges, blend)
            patches = [_Patch(*both) for both in zip(values, edges, strict=True)]
            return [_with_patches(op, before, slots.layout, patches)]

        def keep(op: Op) -> list[ir.Value]:
            return [op.Identity(before)]

        laid, kept = (
            GraphAuthor.subgraph(op, trace, [], [_bytes(f"{name}_bytes")], name=name)
            for name, trace in (("lay", lay), ("keep", keep))
        )
        return [op.Identity(go_on), op.If(seen, then_branch=laid, else_branch=kept)]

    (swapped,) = GraphAuthor.loop(
        op,
        one_slot,
        op.Squeeze(dimension(op, slots.warps, 0), [0]),
        [state],
        name="slots",
        index="slot",
        go_on="more_slots",
        before=[_bytes("before")],
        after=[_bytes("after")],
    )
    return swapped


def _bounds(op: Op, slots: _Slots, warp: ir.Value) -> _Box:
    """What a crop covers of a frame."""
    columns, rows = crop_bounds(op, warp, slots.crop_size, slots.layout)
    left, right, top, bottom = (op.Reshape(to_int64(op, edge), [1]) for edge in (*columns, *rows))
    return _Box(left, top, right, bottom)


def _luma_positions(
    op: Op, box: _Box, step: int, offset: ir.Value | None
) -> tuple[ir.Value, ir.Value]:
    """Where the pixels of a box lie, `step` luma pixels apart: float32 [1, 1, w] and [1, h, 1].

    Args:
        offset: [2], luma position of chroma sample (0, 0).
    """
    axes = []
    for axis, (start, end) in enumerate(((box.left, box.right), (box.top, box.bottom))):
        first, last = (op.Squeeze(op.Div(edge, [step]), [0]) for edge in (start, end))
        numbers = to_float(op, op.Range(first, last, 1))
        if step != 1 and offset is not None:
            numbers = op.Add(op.Mul(numbers, float(step)), op.Slice(offset, [axis], [axis + 1]))
        axes.append(op.Unsqueeze(numbers, [0, axis + 1]))
    return axes[0], axes[1]


def _has_area(op: Op, box: _Box) -> ir.Value:
    wide, high = op.Greater(box.right, box.left), op.Greater(box.bottom, box.top)
    return op.Squeeze(op.And(wide, high), [0])


def _edges(op: Op, box: _Box, layer: Layer) -> _Edges:
    left, top, right, bottom = (
        op.Div(edge, [layer.step]) for edge in (box.left, box.top, box.right, box.bottom)
    )
    left, right = (op.Mul(edge, [layer.elements]) for edge in (left, right))
    return _Edges(left, top, right, bottom)


def _blend_strips(
    op: Op, box: _Box, edges: Sequence[_Edges], blend: Callable[[Op, _Box], list[ir.Value]]
) -> list[ir.Value]:
    """New bytes of every picture's box, uint8 [h, w], made strip after strip from the top.

    A large face's box is cut so that what lies between two operators stays in a core's own cache.

    Args:
        edges: of the box in every picture.
        blend: makes the new bytes of one strip of the box, one value a picture.
    """
    width = op.Sub(box.right, box.left)
    rows = op.Mul(op.Max(op.Div(op.Div([_STRIP_PIXELS], width), [2]), [1]), [2])
    height = op.Sub(box.bottom, box.top)
    count = op.Div(op.Add(height, op.Sub(rows, [1])), rows)

    def one_strip(op: Op, strip: ir.Value, go_on: ir.Value, *done: ir.Value) -> list[ir.Value]:
        top = op.Add(box.top, op.Mul(strip, rows))
        bottom = op.Min(op.Add(top, rows), box.bottom)
        made = blend(op, _Box(box.left, top, box.right, bottom))
        pairs = zip(done, made, strict=True)
        return [op.Identity(go_on), *(op.Concat(*pair, axis=0) for pair in pairs)]

    def pictures(name: str) -> list[ir.Value]:
        return [
            typed_value(f"{name}_{i}", ir.DataType.UINT8, f"{name}_rows_{i}", f"w_{i}")
            for i in range(len(edges))
        ]

    nothing = [
        op.Expand(
            constant(op, np.zeros((0, 1), np.uint8)),
            op.Concat([0], op.Sub(edge.right, edge.left), axis=0),
        )
        for edge in edges
    ]
    return GraphAuthor.loop(
        op,
        one_strip,
        op.Squeeze(count, [0]),
        nothing,
        name="strips",
        index="strip",
        go_on="more_strips",
        before=pictures("above"),
        after=pictures("joined"),
    )


def _blend_layer(
    op: Op,
    flat: ir.Value,
    layer: Layer,
    layout: FrameLayout,
    box: _Box,
    tables: Sequence[LookupTable],
    taps: CropTaps,
) -> list[ir.Value]:
    """New bytes of a box of every picture of a layer, uint8 [h, w], from a flat frame."""
    weight = look_up(op, tables[-1], taps)
    colors = [look_up(op, tables[channel], taps) for channel in layer.channels]
    edges = _edges(op, box, layer)
    made = []
    for position, picture in enumerate(layer.pictures):
        start, line = layout.starts[picture], layout.lines[picture]
        rows = _rows(op, flat, start, line, edges)
        under = op.Slice(rows, edges.left, edges.right, [1])
        if layer.elements == 1:
            color = colors[position]
            pixels = op.Reshape(under, [1, -1])
        else:
            color = op.Concat(*colors, axis=0)
            # planes, not pixels: a weight is spread over rows of P values, not over threes
            pixels = op.Transpose(op.Reshape(under, [-1, layer.elements]), perm=[1, 0])
        below = to_float(op, pixels)
        values = op.Cast(blend_pixels(op, below, color, weight), to=ir.DataType.UINT8)
        if layer.elements > 1:
            values = op.Transpose(values, perm=[1, 0])
        made.append(op.Reshape(values, op.Shape(under)))
    return made


def _rows(op: Op, flat: ir.Value, start: ir.Value, line: ir.Value, edges: _Edges) -> ir.Value:
    """The rows of a picture that a box lies in, [h, line], from a flat frame."""
    first, last = (op.Add(start, op.Mul(row, line)) for row in (edges.top, edges.bottom))
    return op.Reshape(op.Slice(flat, first, last, [0]), op.Concat([-1], line, axis=0))


def _with_patches(
    op: Op, flat: ir.Value, layout: FrameLayout, patches: Sequence[_Patch]
) -> ir.Value:
    """A flat frame with one patch a picture, in the pictures' order."""
    pieces = []
    done = constant(op, np.array([0], np.int64))
    for start, line, patch in zip(layout.starts, layout.lines, patches, strict=True):
        edges = patch.edges
        first, last = (op.Add(start, op.Mul(row, line)) for row in (edges.top, edges.bottom))
        rows = _rows(op, flat, start, line, edges)
        whole = op.Concat(
            op.Slice(rows, [0], edges.left, [1]),
            patch.values,
            op.Slice(rows, edges.right, [_END], [1]),
            axis=1,
        )
        pieces += [op.Slice(flat, done, first, [0]), op.Reshape(whole, [-1])]
        done = last
    return op.Concat(*pieces, op.Slice(flat, done, [_END], [0]), axis=0)
