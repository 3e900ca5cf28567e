"""How bright a target's crop is, so that a swapper need not paint in the dark.

The project's own swappers take a target's light by adding to the source, which keeps the source's
contrast: in a crop of a tenth of the light a face of full contrast glows, white where it is bright.
So a dark crop is shown to such a network as bright as pictures are, and what it answers is made as
dark again: a film that fades to black takes its swapped faces with it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from graphs.arithmetic import is_number
from graphs.shapes import Op

LEAST: Final = 1.0 / 64.0
"""Nothing is brightened more than this allows: of such a crop a camera has left four levels."""
_STEP: Final = 4
"""Every fourth pixel of every fourth row is looked at."""
_CELL: Final = 4
"""Side, in pixels looked at, of what may not become brighter than white: a lamp in the night is
that large, a glint in an eye is not."""


def exposures(op: Op, crops: ir.Value, least_light: float) -> ir.Value:
    """What crops [B, K, 3, S, S] float32 RGB in [0, 1] are to be divided by: [B, K, 1, 1, 1].

    1 for a crop whose mean is `least_light` or more; of a darker one its share of that, but no cell
    becomes brighter than white. What is no number counts as black.
    """
    end = np.iinfo(np.int64).max
    seen = op.Slice(crops, [0, 0], [end, end], [3, 4], [_STEP, _STEP])
    seen = op.Clip(op.Where(is_number(op, seen), seen, 0.0), 0.0, 1.0)
    mean = op.ReduceMean(seen, [2, 3, 4], keepdims=1)
    flat = op.Reshape(seen, op.Concat([-1], op.Shape(seen, start=2), axis=0))
    cells = op.AveragePool(flat, kernel_shape=[_CELL, _CELL], strides=[_CELL, _CELL])
    brightest = op.ReduceMax(cells, [1, 2, 3], keepdims=1)
    wanted = op.Max(op.Mul(mean, 1.0 / least_light), op.Reshape(brightest, op.Shape(mean)))
    return op.Clip(wanted, LEAST, 1.0)
