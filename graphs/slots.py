"""Which slots of a request hold a face."""

from __future__ import annotations

import onnx_ir as ir

from graphs.contract import SCORE_COLUMN
from graphs.shapes import Op, dimension


def held_slots(op: Op, faces: ir.Value, like: ir.Value) -> ir.Value:
    """Whether each slot holds a face: bool [B, K, 1]. A NaN score is none.

    Args:
        faces: [B, M, 15].
        like: a tensor of the slots, [B, K, ...].
    """
    scores = op.Slice(faces, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    scores = op.Slice(scores, [0], dimension(op, like, 1), [1])
    return op.Greater(scores, 0.0)
