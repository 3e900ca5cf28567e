"""face_landmarker: views of faces to landmarks in frame pixels, refined rows of `faces`, and poses.

No frame goes in, so requests of every resolution and pixel format share a batch. What the network
does not take for a face keeps its detection as it is, and has neither landmarks nor a pose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import GraphBuilder

from graphs.alignment import TEMPLATES, fit_similarity
from graphs.arithmetic import are_numbers, is_number
from graphs.authoring import GraphAuthor
from graphs.contract import (
    DETECTIONS,
    DETECTOR_SIZE,
    FACE_COLUMNS,
    FACES,
    LANDMARK_COLUMN,
    LANDMARKS,
    MAX_DETECTIONS,
    OPTIONS,
    POSE,
    SCORE_COLUMN,
    VIEW_WARPS,
    VIEWS,
    Option,
    Refinement,
    TensorSpec,
)
from graphs.face_pose import measure_pose
from graphs.geometry import apply_warps, invert_warps, regular_warps
from graphs.landmark_points import decode_points, sees_face
from graphs.pixels import option
from graphs.shapes import Op, constant, dimension, split, to_float
from networks.batching import row_shape, with_free_batch
from networks.landmarkers import Landmarker, point_count, view_size
from networks.passes import apply_passes

COORDINATES: Final = "coordinates"
"""First part of the names of the network's nodes that make coordinates: they stay float32."""

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def build(
    landmarker: Landmarker,
    network: onnx.ModelProto,
    *,
    passes: Sequence[str] = (),
    skip_empty: bool = True,
) -> onnx.ModelProto:
    """The served model: `views`, `view_warps`, `detections`, `options` -> `faces` and the rest.

    The five landmarks of the first F rows of `faces` become the network's, unless a request's
    options say `Refinement.NONE`.

    Args:
        landmarker: which contract `network` has. One that looks at no view takes the F of `views`.
        network: as `fetching.weights.load_network` gives it; batch 1 is freed.
        passes: names of `networks.passes.PASSES`, applied to the network before it is embedded.
        skip_empty: do not run the network for a batch without any face (see `face_swapper.build`).

    Returns:
        A model with inputs `views` [B, F, 3, V, V] float32 RGB in [0, 1], `view_warps`
        [B, F, 2, 3], `detections` [B, M, 15] and `options` [B, 16] float32, F <= M, and outputs
        `faces` [B, M, 15], `landmarks` [B, F, P, 3] and `pose` [B, F, 3], float32. Rows of
        `detections` that are NaN (invalid options) pass through.

    Raises:
        ValueError: the network does not have that contract.
    """
    free = _ready_network(landmarker, network, passes)
    author = GraphAuthor("face_landmarker")
    op: Op = author.op
    views, warps, detections, options = _inputs(author, landmarker)
    with author.scope("preprocess"):
        first = op.Slice(detections, [0], dimension(op, views, 1), [1])
        if landmarker.input == "points":
            assert landmarker.point_template is not None
            template = TEMPLATES[landmarker.point_template]
            # From the given warps' own size, so that a network without a view leaves none unread.
            rows = op.Slice(first, [0], dimension(op, warps, 1), [1])
            warps = fit_similarity(op, _five_points(op, rows), template)
            fed = _to_template(op, warps, rows)
        else:
            fed = _image(op, views, landmarker)
        occupied = _occupied(op, first, warps)
    made = (
        _run_if_any(author, free, fed, occupied)
        if skip_empty
        else _run(author, free, fed, author.builder)
    )
    with author.scope("postprocess"):
        outputs = dict(zip((value.name for value in free.graph.output), made, strict=True))
        landmarks, present = _place(op, landmarker, outputs, warps, occupied)
        pose = op.Where(present, measure_pose(op, landmarks, landmarker.pose_points), 0.0)
        refined = op.And(present, op.Unsqueeze(_wants_refinement(op, options), [2]))
        faces = _refine(op, detections, landmarks, refined, landmarker)
    author.output(faces, FACES)
    author.output(landmarks, _landmarks_spec(landmarker))
    author.output(pose, POSE)
    author.metadata({"landmarker": landmarker.name})
    return author.finish()


def build_without_network() -> onnx.ModelProto:
    """The same model for a deployment without a landmark network: nothing is refined or known.

    `faces` is `detections`, `landmarks` and `pose` are 0.
    """
    author = GraphAuthor("face_landmarker")
    op: Op = author.op
    views, warps, detections, options = _inputs(author, None)
    batch = dimension(op, options, 0)
    author.output(detections, FACES)
    for slots, spec in (
        (dimension(op, views, 1), _landmarks_spec(None)),
        (dimension(op, warps, 1), POSE),
    ):
        author.output(op.Expand(0.0, op.Concat(batch, slots, spec.dims[1:], axis=0)), spec)
    author.metadata({"landmarker": "none"})
    return author.finish()


def _inputs(
    author: GraphAuthor, landmarker: Landmarker | None
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """`views`, `view_warps`, `detections` and `options`."""
    side = view_size(landmarker)
    specs = (replace(VIEWS, dims=("F", 3, side, side)), VIEW_WARPS, DETECTIONS, OPTIONS)
    views, warps, detections, options = (author.input(spec) for spec in specs)
    return views, warps, detections, options


def _landmarks_spec(landmarker: Landmarker | None) -> TensorSpec:
    return replace(LANDMARKS, dims=("F", point_count(landmarker), 3))


def _wants_refinement(op: Op, options: ir.Value) -> ir.Value:
    """bool [B, 1]."""
    return op.Not(op.Equal(option(op, options, Option.REFINEMENT), float(Refinement.NONE)))


def _ready_network(
    landmarker: Landmarker, network: onnx.ModelProto, passes: Sequence[str]
) -> onnx.ModelProto:
    """The landmarker's network, its batch free, without outputs that nobody reads, rewritten."""
    free = _with_outputs(landmarker, _freed(network, landmarker))
    _check_input(landmarker, free)
    return apply_passes(free, passes) if passes else free


def _freed(network: onnx.ModelProto, landmarker: Landmarker) -> onnx.ModelProto:
    """With a free batch, as networks read from a .tflite have it already."""
    batch = network.graph.input[0].type.tensor_type.shape.dim[0]
    if batch.HasField("dim_param"):
        return network
    return with_free_batch(network, image_size=landmarker.view_size or DETECTOR_SIZE)


def _with_outputs(landmarker: Landmarker, network: onnx.ModelProto) -> onnx.ModelProto:
    """Without the outputs that nobody reads, and the nodes that only make those.

    Raises:
        ValueError: an output of the row's is not there.
    """
    model = ir.from_proto(network)
    outputs = model.graph.outputs
    if landmarker.outputs[0].name:
        wanted = {output.name for output in landmarker.outputs} | {landmarker.flag.output}
        missing = wanted - {"", *(value.name for value in outputs)}
        if missing:
            raise ValueError(
                f"the network of {landmarker.name} should answer {', '.join(sorted(missing))}; "
                "is this the file of another model?"
            )
        kept = [value for value in outputs if value.name in wanted]
    else:
        kept = list(outputs)[: 2 if landmarker.flag.kind == "heatmaps" else 1]
    outputs[:] = kept
    ir.passes.common.RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _check_input(landmarker: Landmarker, network: onnx.ModelProto) -> None:
    size = landmarker.view_size
    expected = [[5, 2]] if size is None else [[3, size, size]]
    found = [row_shape(value) for value in network.graph.input]
    if found != expected:
        raise ValueError(
            f"the network of {landmarker.name} should take {expected} (shapes of one row), but it "
            f"takes {found}; is this the file of another model?"
        )


def _five_points(op: Op, rows: ir.Value) -> ir.Value:
    """The landmarks [B, F, 5, 2] of face rows; what is not finite becomes 0."""
    columns = op.Slice(rows, [LANDMARK_COLUMN], [FACE_COLUMNS], [2])
    columns = op.Where(is_number(op, columns), columns, 0.0)
    shape = op.Concat(dimension(op, rows, 0), dimension(op, rows, 1), [5, 2], axis=0)
    return op.Reshape(columns, shape)


def _to_template(op: Op, warps: ir.Value, rows: ir.Value) -> ir.Value:
    """The five landmarks on the template [B*F, 5, 2], in sides of it."""
    x, y = split(op, _five_points(op, rows), 2, 3)
    return op.Reshape(op.Concat(*apply_warps(op, warps, x, y), axis=3), [-1, 5, 2])


def _image(op: Op, views: ir.Value, landmarker: Landmarker) -> ir.Value:
    """The network's input [B*F, 3, V, V]."""
    size = landmarker.view_size
    image = op.Reshape(views, [-1, 3, size, size])
    if landmarker.channel_order == "rgb":
        return image
    return op.Concat(*reversed(split(op, image, 3, 1)), axis=1)


def _occupied(op: Op, rows: ir.Value, warps: ir.Value) -> ir.Value:
    """Whether row f has a face and a view: bool [B, F, 1]. A NaN score is none."""
    score = op.Slice(rows, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    regular = op.Squeeze(regular_warps(op, warps), [3])
    return op.And(op.Greater(score, 0.0), regular)


def _place(
    op: Op,
    landmarker: Landmarker,
    outputs: Mapping[str, ir.Value],
    warps: ir.Value,
    occupied: ir.Value,
) -> tuple[ir.Value, ir.Value]:
    """Landmarks [B, F, P, 3] in the frame, zeros for none, and which rows have some [B, F, 1]."""
    slots = dimension(op, warps, 1)
    placed = _to_frame(op, warps, _in_rows(op, decode_points(op, landmarker, outputs), slots))
    seen = sees_face(op, landmarker, outputs)
    if seen is not None:
        occupied = op.And(occupied, _in_rows(op, seen, slots))
    present = op.And(occupied, op.Squeeze(are_numbers(op, placed, [2, 3]), [3]))
    return op.Where(op.Unsqueeze(present, [3]), placed, 0.0), present


def _in_rows(op: Op, values: ir.Value, slots: ir.Value) -> ir.Value:
    """[B*F, ...] as [B, F, ...]."""
    rest = op.Shape(values, start=1)
    return op.Reshape(values, op.Concat([-1], slots, rest, axis=0))


def _to_frame(op: Op, warps: ir.Value, points: ir.Value) -> ir.Value:
    """View pixels [B, F, P, 3] as frame pixels; z is as long in the frame as x and y are."""
    inverse = invert_warps(op, warps)
    x, y, z = split(op, points, 3, 3)
    moved = apply_warps(op, inverse, x, y)
    column = op.Slice(inverse, [0], [1], [3])
    scale = op.Sqrt(op.ReduceSum(op.Mul(column, column), [2], keepdims=1))
    return op.Concat(*moved, op.Mul(z, scale), axis=3)


def _refine(
    op: Op,
    detections: ir.Value,
    landmarks: ir.Value,
    present: ir.Value,
    landmarker: Landmarker,
) -> ir.Value:
    """`detections` with the five landmarks of the first F rows taken from `landmarks`."""
    flat = op.Slice(landmarks, [0], [2], [3])
    five = []
    for points in landmarker.five:
        chosen = op.Gather(flat, constant(op, np.array(points, np.int64)), axis=2)
        five.append(op.ReduceMean(chosen, [2], keepdims=0))
    slots = dimension(op, landmarks, 1)
    first = op.Slice(detections, [0], slots, [1])
    rest = op.Slice(detections, slots, [MAX_DETECTIONS], [1])
    found = op.Slice(first, [0], [LANDMARK_COLUMN], [2])
    old = op.Slice(first, [LANDMARK_COLUMN], [FACE_COLUMNS], [2])
    new = op.Where(present, op.Concat(*five, axis=2), old)
    return op.Concat(op.Concat(found, new, axis=2), rest, axis=1)


def _run(
    author: GraphAuthor, network: onnx.ModelProto, fed: ir.Value, builder: GraphBuilder
) -> Sequence[ir.Value]:
    (input_name,) = (value.name for value in network.graph.input)
    outputs = author.embed(network, {input_name: fed}, into=builder.graph)
    _name_coordinates(outputs)
    return outputs


def _run_if_any(
    author: GraphAuthor, network: onnx.ModelProto, fed: ir.Value, occupied: ir.Value
) -> Sequence[ir.Value]:
    """The network's outputs, or zeros without running it when no row of the batch has a face."""
    op: Op = author.op
    with author.scope("preprocess"):
        rows = dimension(op, fed, 0)
        any_face = op.Greater(op.ReduceMax(to_float(op, occupied), [0, 1, 2], keepdims=0), 0.5)
    shapes = [row_shape(value) for value in network.graph.output]

    def find(op: Any) -> Sequence[ir.Value]:
        return _run(author, network, fed, op.builder)

    def leave(op: Op) -> Sequence[ir.Value]:
        return [op.Expand(0.0, op.Concat(rows, shape, axis=0)) for shape in shapes]

    made = {f"output_{index}": ("slots", *shape) for index, shape in enumerate(shapes)}
    return GraphAuthor.either_of(op, any_face, ("network", find), ("no_face", leave), made)


def _name_coordinates(outputs: Sequence[ir.Value]) -> None:
    """Rename what makes coordinates, back to the last weights, out of the typed network.

    In float16 a coordinate of 200 pixels is rounded to an eighth. The points that a GridSample
    inside the network reads at are coordinates too.
    """
    waiting = list(outputs)
    nodes = {node for value in outputs for node in _upstream(value)}
    waiting += [node.inputs[1] for node in nodes if node.op_type == "GridSample" and node.inputs[1]]
    while waiting:
        node = waiting.pop().producer()
        if node is None or not (node.name or "").startswith("network/"):
            continue
        node.name = f"{COORDINATES}/{(node.name or '').removeprefix('network/')}"
        if node.op_type not in _WEIGHTED:
            waiting += [value for value in node.inputs if value is not None]


def _upstream(value: ir.Value) -> set[ir.Node]:
    """Every node that `value` depends on."""
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.add(node)
        waiting += [source.producer() for source in node.inputs if source is not None]
    return found


