"""Light before the U-Net paints, and the painted face over the target after it."""

from __future__ import annotations

from typing import Final, NamedTuple

import onnx_ir as ir

from networks.frameswap_network.arrays import (
    CROP,
    Op,
    block_means,
    enlargement,
    filter_axes,
    window_means,
)
from networks.frameswap_network.warping import Warped

_BLOCK: Final = 16
"""px: light is coarser than this."""
_LEAST_COVER: Final = 0.02


class Prepared(NamedTuple):
    """What the U-Net sees, [N, C, 256, 256].

    lit: the moved source in the target's coarse light, in [0, 1]. pictures: moved target, moved
    source and `lit` in [-1, 1]. seen: those, the labels and the flow, 16 channels.
    """

    lit: ir.Value
    pictures: ir.Value
    seen: ir.Value


def prepare(op: Op, warped: Warped) -> Prepared:
    """Light the source and lay all side by side.

    This part is never typed float16, also because TensorRT-RTX 1.7.1 cannot compile it so.
    """
    lit = _light(op, warped)
    pictures = op.Concat(warped.target, warped.source, lit, axis=1)
    pictures = op.Sub(op.Mul(pictures, 2.0), 1.0)
    return Prepared(lit, pictures, op.Concat(pictures, warped.labels, warped.flow, axis=1))


def _light(op: Op, warped: Warped) -> ir.Value:
    """What source and target differ by near the face, as means over blocks of 16 px, is added."""
    soft = filter_axes(op, _face(op, warped), window_means(CROP, 17, 9))
    near = op.Clip(op.Mul(soft, 3.0), 0.0, 1.0)
    change = op.Div(
        _coarse(op, op.Mul(op.Sub(warped.target, warped.source), near)),
        op.Add(_coarse(op, near), _LEAST_COVER),
    )
    return op.Clip(op.Add(warped.source, change), 0.0, 1.0)


def compose(
    op: Op, warped: Warped, lit: ir.Value, painted: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The swap over the moved target [N, 3, 256, 256] in [0, 1], and its mask [N, 1, 256, 256].

    The mask ends inside the face's oval, whatever the network says.

    Args:
        lit: of `prepare`.
        painted: [N, 5, 256, 256] of `unet.paint`: what is added to the picture, the mask's logit,
            and the logit of the share of `lit` that the picture starts from.
    """
    added, logit, start = (
        op.Slice(painted, [first], [last], [1]) for first, last in ((0, 3), (3, 4), (4, 5))
    )
    soft = filter_axes(op, _face(op, warped), window_means(CROP, 13, 13))
    reach = op.Clip(op.Mul(op.Sub(soft, 0.5), 2.2), 0.0, 1.0)
    mask = op.Mul(op.Sigmoid(logit), reach)
    difference = op.Sub(lit, warped.target)
    shift = op.Add(op.Mul(difference, op.Sigmoid(start)), added)
    return op.Clip(op.Add(warped.target, op.Mul(shift, mask)), 0.0, 1.0), mask


def _face(op: Op, warped: Warped) -> ir.Value:
    """The first label: the face's oval."""
    return op.Slice(warped.labels, [0], [1], [1])


def _coarse(op: Op, images: ir.Value) -> ir.Value:
    """[N, C, 256, 256] blurred: means over blocks, over 3 x 3 of those, enlarged again."""
    blocks = CROP // _BLOCK
    small = filter_axes(op, images, window_means(blocks, 3) @ block_means(CROP, _BLOCK))
    return filter_axes(op, small, enlargement(blocks, CROP))
