"""face_enhancer: the swapped face made finer before it is laid back, in its own framing.

Two kinds of networks do it (`networks.enhancers`). A restorer sees the face in its surroundings:
the aligner cut them out of the target (`context`), the swap is laid in here, as it would lie in
the frame, and what the network answers is shown within FaceFusion's box and not over what covers
the face. A super-resolution network sees the swapped crop alone, and its masks grow with it.

What is handed to the blender lies in one crop. FaceFusion lays the swap on the frame, and on that
the enhanced face, with blend b: frame (1 - m) + swap m, then that (1 - b e) + enhanced b e. Laid on
once, that is a mask M = m + b e - m b e and a colour (swap m (1 - b e) + enhanced b e) / M.

Source: facefusion@33cc6b40, processors/modules/face_enhancer, `enhance_face`, `blend_paste_frame`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from graphs.arithmetic import is_number, lerp
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CONTEXT,
    CONTEXT_WARPS,
    DEFAULT_ENHANCER_BLEND,
    DEFAULT_ENHANCER_WEIGHT,
    ENHANCED_CROPS,
    ENHANCED_MASKS,
    ENHANCED_WARPS,
    ENHANCER_BASE,
    ENHANCER_FULL,
    FACES,
    MASKS,
    NO_EXTRAS,
    OCCLUSIONS,
    OPTIONS,
    SWAPPED_CROPS,
    WARPS,
    Extras,
    Option,
    TensorSpec,
)
from graphs.face_blender.crops import BORDER, sampling_grid, with_border
from graphs.face_masker.box import box_masks
from graphs.face_masker.ramps import to_crop_size
from graphs.frames import Runtime
from graphs.geometry import compose_warps, invert_warps, scale_warps
from graphs.grey_crops import keep_grey
from graphs.harmless import harmless_crops, harmless_masks
from graphs.pixels import option, safe_options, valid_options
from graphs.shapes import Op, constant, dimension, per_channel, sample_on_gpu
from graphs.slots import held_slots
from networks.batching import row_shape, with_free_batch
from networks.doubles import with_lifted_input, without_doubles
from networks.enhancers import Enhancer
from networks.modulation import split_modulation

_WEIGHT: Final = "weight"
"""Name of the second input of a network that has one."""

_LEAST: Final = 1e-6
"""Of a mask: what shows less has no colour."""


def build(
    enhancer: Enhancer,
    network: onnx.ModelProto,
    *,
    crop_size: int,
    extras: Extras = NO_EXTRAS,
    runtime: Runtime = "tensorrt",
) -> onnx.ModelProto:
    """The served model: swapped crops, masks, warps and the rest -> the same in its own framing.

    Args:
        network: with `enhancer`'s contract: a picture, and a weight where the row says so, to one
            picture, its first output; batch 1 is freed.
        crop_size: S, side of the swapped crops.
        extras: of the deployment.
        runtime: which one the graph is written for; the crops are the same.

    Returns:
        A model with `swapped_crops` [B, K, 3, S, S] float32 RGB in [0, 1], `masks`
        [B, K, 1, S, S], `warps` [B, K, 2, 3], `faces` [B, M, 15] and `options` [B, 16], for a
        restorer `context` [B, K, 3, X, X] and `context_warps`, with an occluder `occlusions` like
        `masks`; and `enhanced_crops` [B, K, 3, T, T], `enhanced_masks` [B, K, 1, T, T] and
        `enhanced_warps` [B, K, 2, 3]. Slots without a face are 0. A row whose options are not valid
        has the default blend.

    Raises:
        ValueError: the network has another contract.
    """
    author = GraphAuthor("face_enhancer")
    op: Op = author.op
    if runtime == "onnxruntime_gpu" and enhancer.enhances == "context":
        author.use_onnxruntime_operators()
    sized = enhancer.size or crop_size
    crops, masks, warps = (
        author.input(spec)
        for spec in (_sized(SWAPPED_CROPS, crop_size), _sized(MASKS, crop_size), WARPS)
    )
    around = _declare_around(author, enhancer, crop_size, extras)
    faces, given = author.input(FACES), author.input(OPTIONS)
    free = _ready_network(enhancer, network, sized)
    with author.scope("preprocess"):
        options = safe_options(op, given, valid_options(op, given, extras))
        held = op.Squeeze(held_slots(op, faces, warps), [2])
        blend, weight = _asked(op, options)
        clean, solid = harmless_crops(op, crops)
        swap = _Layers(clean, op.Mul(solid, harmless_masks(op, masks)), warps)
        if around is not None:
            swap = _in_context(op, swap, around, crop_size, sized, runtime)
            target = _harmless(op, around.pictures)
            seen = lerp(op, target, swap.crops, swap.masks)
        else:
            target = seen = swap.crops
    enhanced = _run_if_asked(author, enhancer, free, seen, weight, held, blend, sized)
    with author.scope("postprocess"):
        enhanced = keep_grey(op, target, enhanced)
        if around is None:
            made = _finer(op, swap, enhanced, blend, crop_size, enhancer)
        else:
            box = box_masks(author, _without_padding(op, options), sized)
            if swap.occlusions is not None:
                box = op.Min(box, swap.occlusions)
            made = _laid_on(op, swap, seen, enhanced, op.Mul(box, blend))
        _declare_made(author, made, held, enhancer.made_size(crop_size))
    author.metadata({"enhancer": enhancer.name, "crop_size": str(crop_size)})
    return author.finish()


@dataclass(frozen=True)
class _Around:
    """What the aligner cut out: pictures [B, K, 3, X, X], warps; and occlusions of the crop."""

    pictures: ir.Value
    warps: ir.Value
    occlusions: ir.Value | None


@dataclass(frozen=True)
class _Layers:
    """Crops [B, K, 3, s, s], masks [B, K, 1, s, s] and warps [B, K, 2, 3] of one framing."""

    crops: ir.Value
    masks: ir.Value
    warps: ir.Value
    occlusions: ir.Value | None = None


def _declare_around(
    author: GraphAuthor, enhancer: Enhancer, crop_size: int, extras: Extras
) -> _Around | None:
    """The inputs about a face's surroundings, of an enhancer that sees them."""
    if enhancer.enhances != "context" or enhancer.size is None:
        return None
    pictures = author.input(_sized(CONTEXT, enhancer.size))
    warps = author.input(CONTEXT_WARPS)
    occlusions = author.input(_sized(OCCLUSIONS, crop_size)) if extras.occludes else None
    return _Around(pictures, warps, occlusions)


def _declare_made(author: GraphAuthor, made: _Layers, held: ir.Value, size: int) -> None:
    """The outputs, 0 in slots that hold no face (bool [B, K])."""
    op: Op = author.op
    there = op.Unsqueeze(held, [2, 3, 4])
    for value, spec in (
        (op.Where(there, made.crops, 0.0), _sized(ENHANCED_CROPS, size)),
        (op.Where(there, made.masks, 0.0), _sized(ENHANCED_MASKS, size)),
        (op.Where(op.Unsqueeze(held, [2, 3]), made.warps, 0.0), ENHANCED_WARPS),
    ):
        author.output(value, spec)


def _sized(spec: TensorSpec, size: int) -> TensorSpec:
    return replace(spec, dims=(*spec.dims[:2], size, size))


def _asked(op: Op, options: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Blend and weight that each row asks for: [B, 1, 1, 1, 1] float32 in [0, 1]."""
    packed = option(op, options, Option.ENHANCER)
    weight = op.Floor(op.Mul(packed, 1.0 / ENHANCER_BASE))
    codes = op.Sub(packed, op.Mul(weight, float(ENHANCER_BASE))), weight
    blend, weight = (
        op.Unsqueeze(
            op.Where(
                op.Greater(code, 0.5),
                op.Clip(op.Div(op.Sub(code, 1.0), ENHANCER_FULL - 1.0), 0.0, 1.0),
                default,
            ),
            [2, 3, 4],
        )
        for code, default in zip(
            codes, (DEFAULT_ENHANCER_BLEND, DEFAULT_ENHANCER_WEIGHT), strict=True
        )
    )
    return blend, weight


def _harmless(op: Op, pictures: ir.Value) -> ir.Value:
    return op.Clip(op.Where(is_number(op, pictures), pictures, 0.0), 0.0, 1.0)


def _without_padding(op: Op, options: ir.Value) -> ir.Value:
    """Options [B, 16] that ask for no padding: the enhancer's box has none."""
    kept = np.ones(int(max(Option)) + 1, np.float32)
    kept[Option.BOX_PADDING] = 0.0
    return op.Mul(options, constant(op, kept))


def _in_context(
    op: Op, swap: _Layers, around: _Around, size: int, wanted: int, runtime: Runtime
) -> _Layers:
    """The swap as it lies in its surroundings: bilinear, nothing of it beyond its crop."""
    warps = op.Reshape(compose_warps(op, swap.warps, invert_warps(op, around.warps)), [-1, 2, 3])
    colours, masks = (
        op.Reshape(value, [-1, count, size, size])
        for value, count in ((swap.crops, 3), (swap.masks, 1))
    )
    layers = with_border(op, colours, masks, leading=2)
    if around.occlusions is not None:
        # beyond the crop nothing is known to cover the face: what its edge says goes on
        pads = [0, 0, BORDER, BORDER] * 2
        flat = op.Reshape(harmless_masks(op, around.occlusions), [-1, 1, size, size])
        layers = op.Concat(layers, op.Pad(flat, pads, mode="edge"), axis=1)
    numbers = np.arange(wanted, dtype=np.float32)
    x, y = (
        constant(op, numbers.reshape(shape)) for shape in ((1, 1, wanted, 1), (1, wanted, 1, 1))
    )
    grid = sampling_grid(op, warps, x, y, None, size + 2 * BORDER)
    if runtime == "onnxruntime_gpu":
        found = sample_on_gpu(op, layers, grid)
    else:
        found = op.GridSample(
            layers, grid, mode="bilinear", padding_mode="border", align_corners=0
        )
    slots = op.Shape(swap.warps, start=0, end=2)

    def part(first: int, last: int) -> ir.Value:
        shape = op.Concat(slots, [last - first, wanted, wanted], axis=0)
        return op.Reshape(op.Slice(found, [first], [last], [1]), shape)

    occlusions = None if around.occlusions is None else part(4, 5)
    return _Layers(part(0, 3), part(3, 4), around.warps, occlusions)


def _finer(
    op: Op, swap: _Layers, enhanced: ir.Value, blend: ir.Value, size: int, enhancer: Enhancer
) -> _Layers:
    """The swapped crop in more pixels, and as much of the enhanced one as is asked for."""
    wanted = enhancer.made_size(size)
    slots = op.Shape(swap.warps, start=0, end=2)
    crops, masks = (
        op.Reshape(
            to_crop_size(op, op.Reshape(value, [-1, count, size, size]), size, wanted),
            op.Concat(slots, [count, wanted, wanted], axis=0),
        )
        for value, count in ((swap.crops, 3), (swap.masks, 1))
    )
    return _Layers(
        lerp(op, crops, enhanced, blend), masks, scale_warps(op, swap.warps, enhancer.scale)
    )


def _laid_on(
    op: Op, swap: _Layers, seen: ir.Value, enhanced: ir.Value, share: ir.Value
) -> _Layers:
    """Swap and enhanced face as one layer. share: b e, [B, K or 1, 1, X, X]."""
    below = op.Mul(swap.masks, op.Sub(1.0, share))
    masks = op.Add(below, share)
    mixed = op.Add(op.Mul(swap.crops, below), op.Mul(enhanced, share))
    shown = op.Greater(masks, _LEAST)
    crops = op.Where(shown, op.Div(mixed, op.Where(shown, masks, 1.0)), seen)
    return _Layers(op.Clip(crops, 0.0, 1.0), masks, swap.warps)


def _ready_network(enhancer: Enhancer, network: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The network with a free batch, its first output alone, and one number a picture as weight."""
    single = split_modulation(without_doubles(network))
    if enhancer.takes_weight:
        single = with_lifted_input(single, _WEIGHT, rank=4)
    model = ir.from_proto(with_free_batch(single, image_size=size))
    del model.graph.outputs[1:]
    ir.passes.common.RemoveUnusedNodesPass()(model)
    free = ir.to_proto(model)
    made = enhancer.made_size(size)
    wanted = {_picture_name(free): [3, size, size]}
    if enhancer.takes_weight:
        wanted[_WEIGHT] = [1, 1, 1]
    inputs = {value.name: row_shape(value) for value in free.graph.input}
    found = [row_shape(value) for value in free.graph.output]
    if inputs != wanted or found != [[3, made, made]]:
        raise ValueError(
            f"the network of {enhancer.name} should take {wanted} and answer {[[3, made, made]]} "
            f"(shapes of one row), but it takes {inputs} and answers {found}; is this the file of "
            f"another model?"
        )
    return free


def _run_if_asked(
    author: GraphAuthor,
    enhancer: Enhancer,
    network: onnx.ModelProto,
    seen: ir.Value,
    weight: ir.Value,
    held: ir.Value,
    blend: ir.Value,
    size: int,
) -> ir.Value:
    """Pictures [B, K, 3, T, T] in [0, 1]; 0, and no network run, where no face shows any."""
    op: Op = author.op
    made = enhancer.made_size(size)
    slots = op.Shape(seen, start=0, end=2)
    with author.scope("preprocess"):
        shown = op.And(held, op.Greater(op.Squeeze(blend, [2, 3, 4]), 0.0))
        asked = op.Greater(op.ReduceSum(op.Cast(shown, to=ir.DataType.FLOAT), keepdims=0), 0.5)
        rows = op.Reshape(seen, [-1, 3, size, size])
        picture = op.Div(
            op.Sub(rows, per_channel(op, enhancer.mean)), per_channel(op, enhancer.std)
        )
        feeds = {_picture_name(network): picture}
        if enhancer.takes_weight:
            every = op.Expand(op.Squeeze(weight, [2, 3, 4]), slots)
            feeds[_WEIGHT] = op.Reshape(every, [-1, 1, 1, 1])

    def run(op: Any) -> Sequence[ir.Value]:
        (found,) = author.embed(network, feeds, into=op.builder.graph)
        level = op.Add(
            op.Mul(found, per_channel(op, enhancer.std)), per_channel(op, enhancer.mean)
        )
        return [op.Clip(level, 0.0, 1.0)]

    def leave(op: Op) -> Sequence[ir.Value]:
        count = dimension(op, picture, 0)
        return [op.Expand(0.0, op.Concat(count, [3, made, made], axis=0))]

    found = GraphAuthor.either(
        op, asked, ("enhanced", run), ("as_it_was", leave), "slots", 3, made, made,
        label="pictures",
    )  # fmt: skip
    return op.Reshape(found, op.Concat(slots, [3, made, made], axis=0))


def _picture_name(network: onnx.ModelProto) -> str:
    names = [value.name for value in network.graph.input if value.name != _WEIGHT]
    return str(names[0])
