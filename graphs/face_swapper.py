"""face_swapper: the heavy network and what it needs around it, for any number of face slots.

No frame goes in, so requests of every resolution and pixel format share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnxscript import GraphBuilder, OpBuilder

from graphs.arithmetic import unit_length
from graphs.authoring import GraphAuthor
from graphs.contract import CROPS, FACES, SCORE_COLUMN, SOURCE, SWAPPED_CROPS, TensorSpec
from graphs.shapes import Op, constant
from networks.batching import row_shape, with_free_batch
from networks.passes import apply_passes
from networks.swappers import Swapper, Triple, check_pixel_boost

_FLOATS = {onnx.TensorProto.FLOAT: ir.DataType.FLOAT, onnx.TensorProto.FLOAT16: ir.DataType.FLOAT16}


def build(
    swapper: Swapper,
    network: onnx.ModelProto,
    *,
    pixel_boost: int = 1,
    passes: Sequence[str] = (),
    skip_empty: bool = True,
) -> onnx.ModelProto:
    """The served model: `crops`, `source`, `faces` -> `swapped_crops`.

    Slot k holds a face where row k of `faces` has a score above 0; other slots answer zeros,
    whatever the network makes of them.

    Args:
        swapper: which contract `network` has.
        network: inputs `target` [*, 3, S, S] and `source`, output 0 [*, 3, S, S], float32 or
            float16; batch 1 is freed. For inswapper its last initializer must still be the emap.
        pixel_boost: b; crops are b * S wide and are swapped as b * b interleaved ones.
        passes: names of `networks.passes.PASSES`, applied to the network before it is embedded.
        skip_empty: do not run the network for a batch without any face. Costs one look at a
            scalar from the host where the runtime branches there (ONNX Runtime on a GPU), so a
            backend that drops empty slots itself wants it off.

    Returns:
        A model with inputs `crops` [B, K, 3, bS, bS] float32 RGB in [0, 1], `source` [B, K, D]
        float32 and `faces` [B, M, 15] float32, K <= M, and output `swapped_crops` like `crops`.

    Raises:
        ValueError: the boost or the network does not fit the swapper.
    """
    check_pixel_boost(swapper, pixel_boost)
    emap = take_emap(network) if swapper.project_identity else None
    free = _ready_network(swapper, network, passes)
    author = GraphAuthor("face_swapper")
    op: Op = author.op
    side = swapper.crop_size * pixel_boost
    crops = author.input(TensorSpec(CROPS.name, CROPS.dtype, ("K", 3, side, side)))
    source = author.input(TensorSpec(SOURCE.name, SOURCE.dtype, ("K", swapper.source_length)))
    faces = author.input(FACES)
    with author.scope("preprocess"):
        occupied = _occupied_slots(op, crops, faces)
        target = _normalize(op, _interleave(op, crops, swapper.crop_size, pixel_boost), swapper)
        rows = _source_rows(op, source, swapper, emap, pixel_boost)
    feeds = {"target": target, "source": rows}
    output = (
        _run_if_any(author, free, feeds, occupied)
        if skip_empty
        else _run(author, free, feeds, author.builder)
    )
    with author.scope("postprocess"):
        if swapper.denormalize:
            output = op.Add(op.Mul(output, _channels(op, swapper.std)), _channels(op, swapper.mean))
        swapped = _deinterleave(op, op.Clip(output, 0.0, 1.0), crops, swapper, pixel_boost)
        # Where, not a product with 0: a NaN in an empty slot must not leave it.
        swapped = op.Where(op.Unsqueeze(occupied, [2, 3, 4]), swapped, 0.0)
    spec = TensorSpec(SWAPPED_CROPS.name, SWAPPED_CROPS.dtype, ("K", 3, side, side))
    author.output(swapped, spec)
    author.metadata({"swapper": swapper.name, "pixel_boost": str(pixel_boost)})
    return author.finish()


def _ready_network(
    swapper: Swapper, network: onnx.ModelProto, passes: Sequence[str]
) -> onnx.ModelProto:
    """The swapper's network, its batch free, its first output alone, rewritten by `passes`."""
    free = _keep_first_output(with_free_batch(network, image_size=swapper.crop_size))
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


def _keep_first_output(network: onnx.ModelProto) -> onnx.ModelProto:
    """Without outputs that nobody reads (hyperswap's mask) and the nodes that only make those."""
    model = ir.from_proto(network)
    del model.graph.outputs[1:]
    ir.passes.common.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _check_network(swapper: Swapper, network: onnx.ModelProto) -> None:
    size = swapper.crop_size
    image = [3, size, size]
    source = [swapper.source_length]
    if swapper.source_size is not None:
        source = [3, swapper.source_size, swapper.source_size]
    inputs = {value.name: row_shape(value) for value in network.graph.input}
    output = row_shape(network.graph.output[0])
    if inputs != {"target": image, "source": source} or output != image:
        raise ValueError(
            f"the network of {swapper.name} should take target {image} and source {source} and "
            f"answer {image} (shapes of one row), but it takes {inputs} and answers {output}; "
            f"is this the file of another model?"
        )


def _occupied_slots(op: Op, crops: ir.Value, faces: ir.Value) -> ir.Value:
    """Whether slot k has a face: bool [B, K]. A NaN score is none."""
    slots = op.Shape(crops, start=1, end=2)
    scores = op.Slice(
        faces, [0, SCORE_COLUMN], op.Concat(slots, [SCORE_COLUMN + 1], axis=0), [1, 2]
    )
    return op.Greater(op.Squeeze(scores, [2]), 0.0)


def _interleave(op: Op, crops: ir.Value, size: int, boost: int) -> ir.Value:
    """[B, K, 3, bS, bS] to [B*K*b*b, 3, S, S]: row i*b+j of a slot is its crop[i::b, j::b].

    Source: FaceFusion 3.8.1, `implode_pixel_boost`.
    """
    if boost == 1:
        return op.Reshape(crops, [-1, 3, size, size])
    split = op.Reshape(crops, [-1, 3, size, boost, size, boost])
    return op.Reshape(op.Transpose(split, perm=[0, 3, 5, 1, 2, 4]), [-1, 3, size, size])


def _deinterleave(
    op: Op, output: ir.Value, crops: ir.Value, swapper: Swapper, boost: int
) -> ir.Value:
    """The inverse of `_interleave`, in the shape of `crops`."""
    size = swapper.crop_size
    if boost > 1:
        split = op.Reshape(output, [-1, boost, boost, 3, size, size])
        output = op.Transpose(split, perm=[0, 3, 4, 1, 5, 2])
    return op.Reshape(output, op.Shape(crops))


def _channels(op: Op, values: Triple) -> ir.Value:
    """Three numbers as [1, 3, 1, 1]."""
    return constant(op, np.array(values, np.float32).reshape(1, 3, 1, 1))


def _normalize(op: Op, target: ir.Value, swapper: Swapper) -> ir.Value:
    if any(swapper.mean):
        target = op.Sub(target, _channels(op, swapper.mean))
    if swapper.std != (1.0, 1.0, 1.0):
        target = op.Div(target, _channels(op, swapper.std))
    return target


def _source_rows(
    op: Op,
    source: ir.Value,
    swapper: Swapper,
    emap: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None,
    boost: int,
) -> ir.Value:
    """One source a network row: [B*K*b*b, D] or [B*K*b*b, 3, s, s].

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
    if swapper.source_size is not None:
        rows = op.Reshape(rows, [-1, 3, swapper.source_size, swapper.source_size])
    return rows


def _run(
    author: GraphAuthor,
    network: onnx.ModelProto,
    feeds: dict[str, ir.Value],
    builder: GraphBuilder,
) -> ir.Value:
    """The network's first output as float32, whatever float type it works in."""
    op: Op = builder.op
    inputs = {}
    for value in network.graph.input:
        dtype = _FLOATS[value.type.tensor_type.elem_type]
        fed = feeds[value.name]
        inputs[value.name] = fed if dtype == ir.DataType.FLOAT else op.Cast(fed, to=dtype)
    (output,) = author.embed(network, inputs, into=builder.graph)
    if network.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
        return output
    return op.Cast(output, to=ir.DataType.FLOAT)


def _run_if_any(
    author: GraphAuthor,
    network: onnx.ModelProto,
    feeds: dict[str, ir.Value],
    occupied: ir.Value,
) -> ir.Value:
    """The network's output, or zeros without running it when no slot of the batch has a face."""
    op: Op = author.op
    target = feeds["target"]
    with author.scope("preprocess"):
        count = op.ReduceMax(op.Cast(occupied, to=ir.DataType.FLOAT), [0, 1], keepdims=0)
        any_face = op.Greater(count, 0.5)

    def swap(branch: OpBuilder) -> Sequence[ir.Value]:
        return [_run(author, network, feeds, branch.builder)]

    def leave(branch: OpBuilder) -> Sequence[ir.Value]:
        return [branch.Expand(0.0, branch.Shape(target))]

    branches = {}
    for name, trace in (("network", swap), ("no_face", leave)):
        result = ir.Value(
            name=f"{name}/swapped", type=ir.TensorType(ir.DataType.FLOAT), shape=target.shape
        )
        with author.scope(name):
            branches[name] = author.builder.subgraph(trace, [], [result], name=name)
    return op.If(any_face, then_branch=branches["network"], else_branch=branches["no_face"])
