"""image_swapper: the project's own swapper, a network without weights: source onto target crop.

The swap keeps the target's light and skin tone and takes everything finer from the source. Inside
an ellipse over the inner face, with d = target - source,

    swapped = source + (1 - e) wide(d) + e narrow(d)

`wide` is a Gaussian blur normalised by the ellipse (a blur that never looks outside the face: hair
and background must not bleed into the skin), so source + wide(d) is the target's low frequencies
with the source's high ones. Towards the ellipse's edge e grows from 0 to 1, and `narrow`, a blur a
quarter as wide over the whole crop, takes over: there the swap follows the target's own shading,
so that no seam shows where a bright cheek meets a dark background. The edge is feathered; outside
it the target is returned as it came. It is a real swap, and it is not a neural one: it keeps the
source's expression and gaze, and both faces should look the same way.

Both blurs are linear, so they give the same in RGB as in any lightness-and-opponent colour space.
They run in the discrete cosine basis, where a Gaussian is a factor exp(-(pi k sigma/S)^2 / 2) for
frequency k. Frequencies whose factor is below 1e-6 are left out: 14 an axis stay of the wide blur
and 56 of the narrow one, and each blur is four thin matrix products.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphs.arithmetic import lerp
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
WIDE_SIGMA: Final = 0.12
NARROW_SIGMA: Final = 0.03
"""Of the Gaussians, in units of the crop's side: light is coarser than the first, features finer.
Chosen by eye, as is where one hands over to the other."""
HANDOVER: Final = (0.55, 1.05)
"""Between which elliptical radii (1 is the edge) the narrow blur's share goes from 0 to 1."""
LEAST_FACTOR: Final = 1e-6
"""Cosines that a blur weakens further than this are left out."""
LEAST_COVER: Final = 1e-4
"""Added to the blurred ellipse before it divides: far outside it is 0."""


def smoothstep(values: Array) -> Array:
    """3 v^2 - 2 v^3 of values clipped to [0, 1]: flat at both ends."""
    ramp = np.clip(values, 0.0, 1.0)
    smooth: Array = ramp * ramp * (3.0 - 2.0 * ramp)
    return smooth


def ellipse_radius(size: int) -> tuple[Array, Array]:
    """Elliptical radius rho, 1 on the edge, and its gradient's length per pixel, (S, S) each."""
    position = np.arange(size, dtype=np.float64)
    x = (position[None, :] + 0.5 - ELLIPSE_CENTER[0] * size) / (ELLIPSE_AXES[0] * size)
    y = (position[:, None] + 0.5 - ELLIPSE_CENTER[1] * size) / (ELLIPSE_AXES[1] * size)
    rho = np.sqrt(x * x + y * y)
    slope = np.sqrt((x / (ELLIPSE_AXES[0] * size)) ** 2 + (y / (ELLIPSE_AXES[1] * size)) ** 2)
    return rho, slope / np.maximum(rho, 1e-9)


def ellipse_mask(size: int) -> Array:
    """How much of the swap each pixel takes, (S, S) in [0, 1]: 1 inside, 0 outside, smooth between.

    The distance to the ellipse is estimated to first order, (rho - 1) / |grad rho| in pixels; the
    edge is a smoothstep over FEATHER * S on either side.
    """
    rho, slope = ellipse_radius(size)
    distance = (rho - 1.0) / np.maximum(slope, 1e-9)
    return smoothstep(0.5 - distance / (2.0 * FEATHER * size))


def narrow_share(size: int) -> Array:
    """e, the narrow blur's part in each pixel's light, (S, S) in [0, 1]."""
    start, end = HANDOVER
    rho, _ = ellipse_radius(size)
    return smoothstep((rho - start) / (end - start))


def blur_basis(size: int, sigma: float) -> tuple[Array, Array]:
    """Analysis A (R, S) and synthesis B (S, R) of a blur: B @ (A @ X @ A.T) @ B.T.

    Rows are the orthonormal DCT-II, the eigenvectors of every blur with mirrored borders; the
    Gaussian's factors are in the analysis. R is the number of factors above LEAST_FACTOR.

    Args:
        size: S, pixels.
        sigma: of the Gaussian, in units of S.

    Source: G. Strang, "The Discrete Cosine Transform", SIAM Review 41(1), 1999.
    """
    factors = np.exp(-0.5 * (np.pi * np.arange(size) * sigma) ** 2)
    factors = factors[factors > LEAST_FACTOR, None]
    order = np.arange(len(factors))[:, None]
    position = np.arange(size)[None, :]
    basis = np.cos(np.pi * order * (position + 0.5) / size) * np.sqrt(2.0 / size)
    basis[0] /= np.sqrt(2.0)
    return basis * factors, basis.T


def _float_constant(op: Op, values: Array) -> ir.Value:
    return constant(op, np.ascontiguousarray(values).astype(np.float32))


def _blur(op: Op, planes: ir.Value, sigma: float, size: int) -> ir.Value:
    """`planes` [B, 3, S, S] blurred, mirrored at the borders, float32."""
    analysis, synthesis = (_float_constant(op, part) for part in blur_basis(size, sigma))
    analysis_t, synthesis_t = (_float_constant(op, part.T) for part in blur_basis(size, sigma))
    # coefficients: [B, 3, R, R]
    coefficients = op.MatMul(analysis, op.MatMul(planes, analysis_t))
    return op.MatMul(op.MatMul(synthesis, coefficients), synthesis_t)


def build_network(size: int = 256) -> onnx.ModelProto:
    """The swapper as a network file like a published one.

    Args:
        size: S, side of both crops.

    Returns:
        A model with inputs `target` and `source` [B, 3, S, S] float32 RGB in [0, 1], aligned alike,
        and `output` [B, 3, S, S] float32 in [0, 1], equal to `target` outside the ellipse, whatever
        `source` holds.
    """
    author = GraphAuthor("image_swapper")
    op: Op = author.op
    target = author.input(TensorSpec("target", "float32", (3, size, size)))
    source = author.input(TensorSpec("source", "float32", (3, size, size)))
    mask, share = ellipse_mask(size), narrow_share(size)
    analysis, synthesis = blur_basis(size, WIDE_SIGMA)
    cover = synthesis @ (analysis @ mask @ analysis.T) @ synthesis.T
    # The division is a constant factor; where the mask is 0 nothing of it is taken.
    weight = np.where(mask > 0, (1.0 - share) / (np.maximum(cover, 0.0) + LEAST_COVER), 0.0)
    taken = _float_constant(op, mask)
    difference = op.Sub(target, source)
    wide = _blur(op, op.Mul(difference, taken), WIDE_SIGMA, size)
    narrow = _blur(op, difference, NARROW_SIGMA, size)
    light = op.Add(
        op.Mul(wide, _float_constant(op, weight)), op.Mul(narrow, _float_constant(op, share))
    )
    lit = op.Clip(op.Add(source, light), 0.0, 1.0)
    mixed = lerp(op, target, lit, taken)
    # A selection, never a product with 0: a NaN in the source must not leave the ellipse.
    output = op.Where(constant(op, mask > 0), mixed, target)
    author.output(output, TensorSpec("output", "float32", (3, size, size)))
    return author.finish()
