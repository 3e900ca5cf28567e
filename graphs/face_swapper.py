"""face_swapper: the heavy network and what it needs around it, for any number of face slots.

No frame goes in, so requests of every resolution and pixel format share a batch.

`swapper_weight` mixes the swapped crop with the target's own, pixel by pixel, for every kind of
swapper. (FaceFusion mixes identities instead, which asks for the target's own: one more run of a
recogniser for each face of each frame. At its default of 0.5 it mixes nothing, as our default.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnxscript import GraphBuilder

from graphs.alignment import landmark_points
from graphs.arithmetic import lerp, unit_length
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CROPS,
    FACES,
    LANDMARKS,
    NO_EXTRAS,
    OPTIONS,
    SCORE_COLUMN,
    SOURCE,
    SWAP_MASKS,
    SWAPPED_CROPS,
    WARPS,
    Extras,
    Option,
)
from graphs.exposure import exposures
from graphs.geometry import apply_warps, points_in_crops
from graphs.grey_crops import keep_grey
from graphs.packed_images import unpack_rgb
from graphs.pixels import option, safe_options, valid_options
from graphs.shapes import Op, constant, dimension, per_channel, split
from networks.batching import freed, row_shape
from networks.face_points import MEDIAPIPE_POINTS
from networks.passes import apply_passes
from networks.swappers import Swapper, check_pixel_boost

_FLOATS = {onnx.TensorProto.FLOAT: ir.DataType.FLOAT, onnx.TensorProto.FLOAT16: ir.DataType.FLOAT16}


def build(
    swapper: Swapper,
    network: onnx.ModelProto,
    *,
    point_count: int = MEDIAPIPE_POINTS,
    pixel_boost: int = 1,
    passes: Sequence[str] = (),
    skip_empty: bool = True,
    extras: Extras = NO_EXTRAS,
) -> onnx.ModelProto:
    """The served model: `crops`, `source`, `faces` and the rest -> `swapped_crops`, `swap_masks`.

    Slot k has a face where row k of `faces` has a score above 0; others answer zeros. Where a crop
    is grey, so is its swap (`graphs.grey_crops`).

    Args:
        swapper: which contract `network` has.
        network: inputs `target` [*, 3, S, S] and `source`, output 0 [*, 3, S, S], float32 or
            float16; batch 1 is freed. Output 1 is a mask [*, 1, S, S] in [0, 1] where the swapper's
            row says so. For inswapper its last initializer must still be the emap. Where the row
            has `points`, more inputs: `target_landmarks` and `source_landmarks` [*, P, 3] and
            `target_points` [*, 5, 2], in sides of the crop.
        point_count: P, of the deployment's landmarks.
        pixel_boost: b; crops are b * S wide and are swapped as b * b interleaved ones.
        passes: names of `networks.passes.PASSES`, applied to the network before it is embedded.
        skip_empty: do not run the network for a batch without any face; off for a backend that
            drops empty slots itself, since the host looks at a scalar for it on a GPU.
        extras: of the deployment: which options are valid.

    Returns:
        A model with inputs `crops` [B, K, 3, bS, bS] RGB in [0, 1], `source` [B, K, D], `faces`
        [B, M, 15], K <= M, `landmarks` [B, K, P, 3], `warps` [B, K, 2, 3] and `options` [B, 16],
        and outputs `swapped_crops` like `crops` and `swap_masks` [B, K, 1, bS, bS], ones where the
        network gives none, all float32. Without `points`, of landmarks and warps only sizes are
        read. Rows of invalid options go by the defaults.

    Raises:
        ValueError: the boost or the network does not fit the swapper.
    """
    check_pixel_boost(swapper, pixel_boost)
    emap = take_emap(network) if swapper.project_identity else None
    free = _ready_network(swapper, network, passes)
    author, side = GraphAuthor("face_swapper"), swapper.crop_size * pixel_boost
    op: Op = author.op
    crops = author.input(replace(CROPS, dims=("K", 3, side, side)))
    source = author.input(replace(SOURCE, dims=("K", swapper.source_length)))
    faces = author.input(FACES)
    landmarks = author.input(replace(LANDMARKS, dims=("K", point_count, 3)))
    warps, options = author.input(WARPS), author.input(OPTIONS)
    with author.scope("preprocess"):
        occupied = _occupied_slots(op, crops, faces)
        light = exposures(op, crops, swapper.least_light) if swapper.least_light else None
        shown = crops if light is None else op.Clip(op.Div(crops, light), 0.0, 1.0)
        target = _normalize(op, _interleave(op, shown, swapper.crop_size, pixel_boost), swapper)
        feeds = {"target": target, **_source_rows(op, source, swapper, emap, pixel_boost)}
        if swapper.points:
            feeds |= _target_places(op, faces, landmarks, warps, side)
    answers = _answers(author, free, feeds, occupied if skip_empty else None)
    with author.scope("postprocess"):
        swapped = _finish_crops(op, answers[0], crops, light, swapper, pixel_boost)
        swapped = lerp(op, swapped, crops, _kept_share(op, options, extras))
        masks = _own_masks(op, answers, landmarks, warps, swapper, pixel_boost)
        made = _in_occupied(op, occupied, swapped, masks)
    return _finish(author, made, swapper, pixel_boost)


def _finish(
    author: GraphAuthor, made: Sequence[ir.Value], swapper: Swapper, boost: int
) -> onnx.ModelProto:
    side = swapper.crop_size * boost
    for value, spec in zip(made, (SWAPPED_CROPS, SWAP_MASKS), strict=True):
        author.output(value, replace(spec, dims=(*spec.dims[:2], side, side)))
    author.metadata({"swapper": swapper.name, "pixel_boost": str(boost)})
    return author.finish()


def _ready_network(
    swapper: Swapper, network: onnx.ModelProto, passes: Sequence[str]
) -> onnx.ModelProto:
    """The swapper's network, its batch free, its wanted outputs alone, rewritten by `passes`."""
    wanted = 2 if swapper.gives_mask else 1
    free = _keep_outputs(freed(network, image_size=swapper.crop_size), wanted)
    _check_network(swapper, free)
    return apply_passes(free, passes) if passes else free


def take_emap(network: onnx.ModelProto) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The 512 x 512 matrix that inswapper keeps as its last initializer, read by position.

    Raises:
        ValueError: the last initializer has another shape.
    """
    initializers = network.graph.initializer
    last = initializers[-1] if initializers else onnx.TensorProto(name="nothing")
    if list(last.dims) != [512, 512]:
        raise ValueError(
            f"inswapper's last initializer should be its 512 x 512 emap, but it is {last.name} "
            f"with shape {list(last.dims)}; use the published file as it is"
        )
    return numpy_helper.to_array(last).astype(np.float32)


def _keep_outputs(network: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """Without outputs that nobody reads and the nodes that only make those."""
    model = ir.from_proto(network)
    del model.graph.outputs[count:]
    ir.passes.common.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _check_network(swapper: Swapper, network: onnx.ModelProto) -> None:
    size = swapper.crop_size
    image = [3, size, size]
    source = [swapper.source_length]
    if swapper.source_size is not None:
        source = [3, swapper.source_size, swapper.source_size]
    wanted: dict[str, list[int]] = {"target": image, "source": source}
    if swapper.points:
        places = [swapper.points, 3]
        wanted |= {"target_landmarks": places, "source_landmarks": places, "target_points": [5, 2]}
    answers = [image, [1, size, size]] if swapper.gives_mask else [image]
    inputs = {value.name: row_shape(value) for value in network.graph.input}
    found = [row_shape(value) for value in network.graph.output]
    if inputs != wanted or found != answers:
        named = " and ".join(f"{name} {shape}" for name, shape in wanted.items())
        raise ValueError(
            f"the network of {swapper.name} should take {named} and "
            f"answer {answers} (shapes of one row), but it takes {inputs} and answers {found}; "
            f"is this the file of another model?"
        )


def _occupied_slots(op: Op, crops: ir.Value, faces: ir.Value) -> ir.Value:
    """Whether slot k has a face: bool [B, K]. A NaN score is none."""
    slots = op.Shape(crops, start=1, end=2)
    scores = op.Slice(
        faces, [0, SCORE_COLUMN], op.Concat(slots, [SCORE_COLUMN + 1], axis=0), [1, 2]
    )
    return op.Greater(op.Squeeze(scores, [2]), 0.0)


def _in_occupied(op: Op, occupied: ir.Value, *values: ir.Value) -> list[ir.Value]:
    """[B, K, C, bS, bS] each, with 0 in the slots that have no face."""
    held = op.Unsqueeze(occupied, [2, 3, 4])
    # Where, not a product with 0: a NaN in an empty slot must not leave it.
    return [op.Where(held, value, 0.0) for value in values]


def _kept_share(op: Op, options: ir.Value, extras: Extras) -> ir.Value:
    """How much of the target stays, [B, 1, 1, 1, 1] float32: 1 - SWAPPER_WEIGHT; 0 by default."""
    safe = safe_options(op, options, valid_options(op, options, extras))
    given = option(op, safe, Option.SWAPPER_WEIGHT)
    kept = op.Where(op.Greater(given, 0.0), op.Sub(1.0, given), 0.0)
    return op.Unsqueeze(kept, [2, 3, 4])


def _interleave(op: Op, crops: ir.Value, size: int, boost: int) -> ir.Value:
    """[B, K, 3, bS, bS] to [B*K*b*b, 3, S, S]: row i*b+j of a slot is its crop[i::b, j::b].

    Source: FaceFusion 3.8.1, `implode_pixel_boost`.
    """
    if boost == 1:
        return op.Reshape(crops, [-1, 3, size, size])
    split = op.Reshape(crops, [-1, 3, size, boost, size, boost])
    return op.Reshape(op.Transpose(split, perm=[0, 3, 5, 1, 2, 4]), [-1, 3, size, size])


def _finish_crops(
    op: Op,
    output: ir.Value,
    crops: ir.Value,
    light: ir.Value | None,
    swapper: Swapper,
    boost: int,
) -> ir.Value:
    """The network's pictures as crops [B, K, 3, bS, bS] in [0, 1], dark and grey where `crops` are.

    Args:
        light: what the crops were divided by for the network; None: nothing.
    """
    if swapper.denormalize:
        output = op.Add(op.Mul(output, per_channel(op, swapper.std)), per_channel(op, swapper.mean))
    tiles = _join_tiles(op, op.Clip(output, 0.0, 1.0), 3, swapper, boost)
    made = op.Reshape(tiles, op.Shape(crops))
    return keep_grey(op, crops, made if light is None else op.Mul(made, light))


def _own_masks(
    op: Op,
    answers: Sequence[ir.Value],
    landmarks: ir.Value,
    warps: ir.Value,
    swapper: Swapper,
    boost: int,
) -> ir.Value:
    """The network's own masks [B, K, 1, bS, bS], or ones."""
    # B and K of the two inputs that nothing else may read.
    slots = op.Concat(dimension(op, landmarks, 0), dimension(op, warps, 1), axis=0)
    side = swapper.crop_size * boost
    shape = op.Concat(slots, [1, side, side], axis=0)
    if not swapper.gives_mask:
        return op.Expand(1.0, shape)
    tiles = _join_tiles(op, op.Clip(answers[1], 0.0, 1.0), 1, swapper, boost)
    return op.Reshape(tiles, shape)


def _join_tiles(
    op: Op, tiles: ir.Value, channels: int, swapper: Swapper, boost: int
) -> ir.Value:
    """The inverse of `_interleave`, but for the shape: tiles [B*K*b*b, C, S, S] in the order of
    pictures [B, K, C, bS, bS]."""
    if boost == 1:
        return tiles
    size = swapper.crop_size
    split = op.Reshape(tiles, [-1, boost, boost, channels, size, size])
    return op.Transpose(split, perm=[0, 3, 4, 1, 5, 2])


def _normalize(op: Op, target: ir.Value, swapper: Swapper) -> ir.Value:
    if any(swapper.mean):
        target = op.Sub(target, per_channel(op, swapper.mean))
    if swapper.std != (1.0, 1.0, 1.0):
        target = op.Div(target, per_channel(op, swapper.std))
    return target


def _source_rows(
    op: Op,
    source: ir.Value,
    swapper: Swapper,
    emap: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None,
    boost: int,
) -> dict[str, ir.Value]:
    """What the network is told of the source, a row each: [B*K*b*b, D] or, unpacked, [B*K*b*b, 3,
    s, s], and its landmarks where the swapper goes by them.

    inswapper's identity n goes through its emap E here, as insightface 2.1 does it: n E, then
    divided by |n E|. FaceFusion 3.8.1 divides by the raw embedding's length instead and leaves
    |n E| in; the two differ by that factor alone, and the published network saw the former.
    """
    rows = op.Reshape(source, [-1, swapper.source_length])
    if emap is not None:
        rows = unit_length(op, op.MatMul(rows, constant(op, emap)))
    if boost > 1:
        tiled = op.Tile(op.Unsqueeze(rows, [1]), [1, boost * boost, 1])
        rows = op.Reshape(tiled, [-1, swapper.source_length])
    if swapper.source_size is None:
        return {"source": rows}
    if not swapper.points:
        return {"source": unpack_rgb(op, rows, swapper.source_size)}
    pixels = swapper.source_size**2
    packed = op.Slice(rows, [0], [pixels], [1])
    places = op.Slice(rows, [pixels], [swapper.source_length], [1])
    return {
        "source": unpack_rgb(op, packed, swapper.source_size),
        "source_landmarks": op.Reshape(places, [-1, swapper.points, 3]),
    }


def _target_places(
    op: Op, faces: ir.Value, landmarks: ir.Value, warps: ir.Value, side: int
) -> dict[str, ir.Value]:
    """Where the landmarks and the five points of each slot's face lie, in sides of its crop.

    Landmarks of zeros stay zeros: such a face has none.
    """
    seen = op.Greater(op.ReduceMax(op.Abs(landmarks), [2, 3], keepdims=1), 0.0)
    places = op.Where(seen, points_in_crops(op, landmarks, warps), 0.0)
    flat = op.Concat([-1], op.Shape(places, start=2), axis=0)
    held = op.Slice(faces, [0], dimension(op, warps, 1), [1])
    x, y = split(op, landmark_points(op, held), 2, 3)
    five = op.Concat(*apply_warps(op, warps, x, y), axis=3)
    return {
        "target_landmarks": op.Mul(op.Reshape(places, flat), 1.0 / side),
        "target_points": op.Mul(op.Reshape(five, [-1, 5, 2]), 1.0 / side),
    }


def _run(
    author: GraphAuthor,
    network: onnx.ModelProto,
    feeds: dict[str, ir.Value],
    builder: GraphBuilder,
) -> list[ir.Value]:
    """The network's outputs as float32, whatever float type it works in."""
    op: Op = builder.op
    inputs = {}
    for value in network.graph.input:
        dtype = _FLOATS[value.type.tensor_type.elem_type]
        fed = feeds[value.name]
        inputs[value.name] = fed if dtype == ir.DataType.FLOAT else op.Cast(fed, to=dtype)
    embedded = author.embed(network, inputs, into=builder.graph)
    types = [value.type.tensor_type.elem_type for value in network.graph.output]
    return [
        value if dtype == onnx.TensorProto.FLOAT else op.Cast(value, to=ir.DataType.FLOAT)
        for value, dtype in zip(embedded, types, strict=True)
    ]


def _answers(
    author: GraphAuthor,
    network: onnx.ModelProto,
    feeds: dict[str, ir.Value],
    occupied: ir.Value | None,
) -> Sequence[ir.Value]:
    """The network's outputs. occupied: to leave it out of a batch without faces; None: never."""
    if occupied is None:
        return _run(author, network, feeds, author.builder)
    return _run_if_any(author, network, feeds, occupied)


def _run_if_any(
    author: GraphAuthor,
    network: onnx.ModelProto,
    feeds: dict[str, ir.Value],
    occupied: ir.Value,
) -> list[ir.Value]:
    """The network's outputs, or zeros without running it when no slot of the batch has a face."""
    op: Op = author.op
    target = feeds["target"]
    with author.scope("preprocess"):
        count = op.ReduceMax(op.Cast(occupied, to=ir.DataType.FLOAT), [0, 1], keepdims=0)
        any_face = op.Greater(count, 0.5)

    def swap(op: Any) -> Sequence[ir.Value]:
        return _run(author, network, feeds, op.builder)

    def leave(op: Op) -> Sequence[ir.Value]:
        rows = dimension(op, target, 0)
        return [op.Expand(0.0, op.Concat(rows, shape, axis=0)) for shape in shapes]

    shapes = [row_shape(value) for value in network.graph.output]
    made = {
        name: ("slots", *shape) for name, shape in zip(("swapped", "mask"), shapes, strict=False)
    }
    return GraphAuthor.either_of(op, any_face, ("network", swap), ("no_face", leave), made)
