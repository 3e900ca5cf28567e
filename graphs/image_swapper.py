"""image_swapper: the project's own swapper, a network without weights: source onto target crop.

The swap keeps the target's light and skin tone and takes everything finer from the source. Inside
an ellipse over the inner face,

    swapped = source + low(target - source)

where `low` is a Gaussian blur normalised by the ellipse (a blur that never looks outside the face:
hair and background must not bleed into the skin). The ellipse's edge is feathered; outside it the
target is returned as it came. It is a real swap, and it is not a neural one: it keeps the source's
expression and gaze, and both faces should look the same way.

The blur runs in the discrete cosine basis, where a Gaussian is a factor exp(-(pi k sigma/S)^2 / 2)
for frequency k. From the 16th on the factors are below 1e-6, so 16 coefficients an axis are enough
and the whole blur is four thin matrix products.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from graphs.authoring import GraphAuthor
from graphs.contract import TensorSpec
from graphs.shapes import Op, constant

Array = npt.NDArray[np.float64]

ELLIPSE_CENTER: Final = (0.50, 0.56)
ELLIPSE_AXES: Final = (0.26, 0.34)
"""Centre and half axes, in units of the crop's side, x then y: from the brows to the chin of a
face aligned to the ffhq_512 template. Chosen by eye on paintings and photos: larger ones take the
source's hair along, smaller ones leave the target's jaw."""
FEATHER: Final = 0.03
"""Half the width of the ellipse's soft edge, in units of the crop's side."""
BLUR_SIGMA: Final = 0.12
"""Of the Gaussian, in units of the crop's side: light is coarser than that, features finer."""
FREQUENCIES: Final = 16
LEAST_COVER: Final = 1e-4
"""Added to the blurred ellipse before it divides: far outside it is 0."""


def ellipse_mask(size: int) -> Array:
    """How much of the swap each pixel takes, (S, S) in [0, 1]: 1 inside, 0 outside, smooth between.

    The distance to the ellipse is estimated to first order, (rho - 1) / |grad rho| in pixels; the
    edge is a smoothstep over FEATHER * S on either side.
    """
    position = np.arange(size, dtype=np.float64)
    x = (position[None, :] + 0.5 - ELLIPSE_CENTER[0] * size) / (ELLIPSE_AXES[0] * size)
    y = (position[:, None] + 0.5 - ELLIPSE_CENTER[1] * size) / (ELLIPSE_AXES[1] * size)
    rho = np.sqrt(x * x + y * y)
    slope = np.sqrt((x / (ELLIPSE_AXES[0] * size)) ** 2 + (y / (ELLIPSE_AXES[1] * size)) ** 2)
    distance = (rho - 1.0) * rho / np.maximum(slope, 1e-9)
    ramp = np.clip(0.5 - distance / (2.0 * FEATHER * size), 0.0, 1.0)
    smooth: Array = ramp * ramp * (3.0 - 2.0 * ramp)
    return smooth


def blur_basis(size: int) -> tuple[Array, Array]:
    """Analysis A (16, S) and synthesis B (S, 16) of the blur: B @ (A @ X @ A.T) @ B.T.

    Rows are the orthonormal DCT-II, the eigenvectors of every blur with mirrored borders; the
    Gaussian's factors are in the analysis.

    Source: G. Strang, "The Discrete Cosine Transform", SIAM Review 41(1), 1999.
    """
    order = np.arange(FREQUENCIES)[:, None]
    position = np.arange(size)[None, :]
    basis = np.cos(np.pi * order * (position + 0.5) / size) * np.sqrt(2.0 / size)
    basis[0] /= np.sqrt(2.0)
    factors = np.exp(-0.5 * (np.pi * order * BLUR_SIGMA) ** 2)
    return basis * factors, basis.T


def build_network(size: int = 256) -> onnx.ModelProto:
    """The swapper as a network file like a published one.

    Args:
        size: S, side of both crops.

    Returns:
        A model with inputs `target` and `source` [B, 3, S, S] float32 RGB in [0, 1], aligned alike,
        and `output` [B, 3, S, S] float32 in [0, 1], equal to `target` outside the ellipse.
    """
    author = GraphAuthor("image_swapper")
    op: Op = author.op
    target = author.input(TensorSpec("target", "float32", (3, size, size)))
    source = author.input(TensorSpec("source", "float32", (3, size, size)))
    mask = ellipse_mask(size)
    analysis, synthesis = blur_basis(size)
    cover = synthesis @ (analysis @ mask @ analysis.T) @ synthesis.T
    taken = constant(op, mask.astype(np.float32))
    masked = op.Mul(op.Sub(target, source), taken)
    # coefficients: [B, 3, 16, 16]
    coefficients = op.MatMul(
        op.MatMul(constant(op, analysis.astype(np.float32)), masked),
        constant(op, np.ascontiguousarray(analysis.T).astype(np.float32)),
    )
    low = op.MatMul(
        op.MatMul(constant(op, synthesis.astype(np.float32)), coefficients),
        constant(op, np.ascontiguousarray(synthesis.T).astype(np.float32)),
    )
    # The division is a constant factor; where the mask is 0 nothing of it is taken.
    weight = np.where(mask > 0, 1.0 / (np.maximum(cover, 0.0) + LEAST_COVER), 0.0)
    lit = op.Add(source, op.Mul(low, constant(op, weight.astype(np.float32))))
    step = op.Mul(op.Sub(op.Clip(lit, 0.0, 1.0), target), taken)
    author.output(op.Add(target, step), TensorSpec("output", "float32", (3, size, size)))
    return author.finish()
