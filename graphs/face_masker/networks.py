"""Masks that look at a picture: what an occluder or a parser makes of a crop.

The occluder sees the target's crop, where a hand is; the parser the swapped one, whose face is to
be shown. Networks run for a batch only where one of its rows asks for their mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphs.arithmetic import any_of, is_number
from graphs.authoring import GraphAuthor
from graphs.contract import Option
from graphs.face_masker.ramps import to_crop_size
from graphs.face_masker.soft_edges import soft_edges
from graphs.pixels import option
from graphs.shapes import Op, constant, dimension, to_int64
from networks.batching import row_shape, with_free_batch
from networks.maskers import Occluder, Parser
from networks.symmetric_pads import with_symmetric_pads


def occlusion_masks(
    author: GraphAuthor, crops: ir.Value, asked: ir.Value, occluder: Occluder,
    network: onnx.ModelProto, size: int,
) -> ir.Value:  # fmt: skip
    """Masks [N, 1, S, S] float32 in [0, 1], 1 where the target's face is not covered.

    Args:
        crops: of the target, [B, K, 3, S, S] float32 RGB in [0, 1].
        asked: bool [B, 1], whether a row wants it; ones, and nothing computed, where none does.
        network: with `occluder`'s contract; batch 1 is freed.

    Raises:
        ValueError: the network has another contract.
    """
    side = occluder.size
    free = _checked(occluder.name, network, [side, side, 3], [[side, side, 1]], side)

    def look(op: Any) -> ir.Value:
        picture = to_crop_size(op, _pictures(op, crops, size), size, side)
        bgr = op.Gather(picture, [2, 1, 0], axis=1)
        (found,) = _run(author, op, free, op.Transpose(bgr, perm=[0, 2, 3, 1]), "occluder")
        shape = op.Concat([-1], [1, side, side], axis=0)
        return soft_edges(op, op.Clip(op.Reshape(found, shape), 0.0, 1.0), side, size)

    return _where_asked(author, look, asked, crops, size, "occlusion")


def region_masks(
    author: GraphAuthor, crops: ir.Value, asked: ir.Value, options: ir.Value, parser: Parser,
    network: onnx.ModelProto, size: int,
) -> ir.Value:  # fmt: skip
    """Masks [N, 1, S, S] float32 in [0, 1], 1 in the parts that each row's options name.

    Args:
        crops: swapped, [B, K, 3, S, S] float32 RGB in [0, 1].
        asked: bool [B, 1], as for `occlusion_masks`.
        options: [B, 16], valid.
        network: with `parser`'s contract, its first output; batch 1 is freed.

    Raises:
        ValueError: the network has another contract.
    """
    side, classes = parser.size, parser.classes
    free = _checked(parser.name, network, [3, side, side], [[classes, side, side]], side)

    def look(op: Op) -> ir.Value:
        picture = to_crop_size(op, _pictures(op, crops, size), size, side)
        mean, std = (
            constant(op, np.array(values, np.float32).reshape(1, 3, 1, 1))
            for values in (parser.mean, parser.std)
        )
        picture = op.Div(op.Sub(picture, mean), std)
        scores = _run(author, op, free, picture, "parser")[0]
        # [N, 1, s, s] int64, as numbers in one table of all rows' classes
        parts = op.ArgMax(scores, axis=1, keepdims=1)
        table, count = _shown_classes(op, options, crops, parser)
        first = op.Mul(op.Range(0, op.Squeeze(count, [0]), 1), [classes])
        place = op.Add(parts, op.Reshape(first, [-1, 1, 1, 1]))
        shown = op.Gather(op.Reshape(table, [-1]), place, axis=0)
        return soft_edges(op, shown, side, size)

    return _where_asked(author, look, asked, crops, size, "regions")


def _shown_classes(
    op: Op, options: ir.Value, crops: ir.Value, parser: Parser
) -> tuple[ir.Value, ir.Value]:
    """What each slot shows of each class, [N, C] float32 0 or 1, and N, int64 [1]."""
    most = sum(parser.regions)
    rows = np.zeros((most + 1, parser.classes), np.float32)
    for row in range(most + 1):
        wanted = [number for flag, number in parser.regions.items() if (row or most) & flag]
        rows[row, wanted] = 1.0
    code = to_int64(op, option(op, options, Option.REGIONS))
    # [B, K]: a row's options are those of all its slots
    each = op.Expand(code, op.Shape(crops, start=0, end=2))
    flat = op.Reshape(each, [-1])
    return op.Gather(constant(op, rows), flat, axis=0), dimension(op, flat, 0)


def _pictures(op: Op, crops: ir.Value, size: int) -> ir.Value:
    """[N, 3, S, S] of [B, K, 3, S, S], clipped to [0, 1], with 0 for what is no number."""
    clean = op.Clip(op.Where(is_number(op, crops), crops, 0.0), 0.0, 1.0)
    return op.Reshape(clean, [-1, 3, size, size])


def _checked(
    name: str, network: onnx.ModelProto, image: list[int], answers: list[list[int]], side: int
) -> onnx.ModelProto:
    """`network` with a free batch and the outputs that are read."""
    model = ir.from_proto(with_symmetric_pads(with_free_batch(network, image_size=side)))
    del model.graph.outputs[len(answers) :]
    ir.passes.common.RemoveUnusedNodesPass()(model)
    free = ir.to_proto(model)
    inputs = [row_shape(value) for value in free.graph.input]
    found = [row_shape(value) for value in free.graph.output]
    if inputs != [image] or found != answers:
        raise ValueError(
            f"the network of {name} should take {[image]} and answer {answers} (shapes of one "
            f"row), but it takes {inputs} and answers {found}; is this the file of another model?"
        )
    return free


def _run(
    author: GraphAuthor, op: Any, network: onnx.ModelProto, picture: ir.Value, prefix: str
) -> list[ir.Value]:
    name = network.graph.input[0].name
    return author.embed(
        network, {name: picture}, prefix=f"network/{prefix}", into=op.builder.graph
    )


def _where_asked(
    author: GraphAuthor,
    look: Callable[[Op], ir.Value],
    asked: ir.Value,
    crops: ir.Value,
    size: int,
    name: str,
) -> ir.Value:
    """What `look` makes, or ones without running it where no row of the batch asks."""
    op: Op = author.op

    def run(op: Op) -> Sequence[ir.Value]:
        return [look(op)]

    def leave(op: Op) -> Sequence[ir.Value]:
        slots = op.Mul(dimension(op, crops, 0), dimension(op, crops, 1))
        return [op.Expand(1.0, op.Concat(slots, [1, size, size], axis=0))]

    return GraphAuthor.either(
        op, any_of(op, asked), (name, run), (f"no_{name}", leave), "slots", 1, size, size,
        label="masks",
    )  # fmt: skip
