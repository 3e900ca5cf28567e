"""face_blender: swapped crops back into their frame.

A warp takes frame to crop, so an output pixel simply looks up the crop: no matrix is inverted. With
m the box mask at that point, out = frame + (crop - frame) * m, rounded to the nearest level. Slots
are laid on in order, later over earlier; empty ones are left out. An I420 frame is blended in its
own planes: only the crop is ever converted, and luma and chroma outside the mask keep their bytes.

Crops and masks are made harmless before they are looked up: what is not a number gets weight 0
there, values are clipped. So no NaN can reach a pixel, and where the mask is 0 the blend returns
the frame exactly.

Three methods give the same picture:

- "whole" (TensorRT, `whole.py`): one pass over all pixels a slot, in a `Loop`, so that memory does
  not grow with K. Rows of a batch run together, and a compiler fuses what is done to a pixel.
- "regions" (ONNX Runtime on a CPU, `regions.py`): row by row and slot by slot, only the rectangle
  that the crop covers is read and written. Slices of runtime sizes: TensorRT does not take it.
- "patches" (ONNX Runtime on a GPU, `patches.py`): slot by slot, of all rows together, the pixels
  that the largest of their faces covers.

FaceFusion cuts fractions off where this rounds: one level apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal

import onnx
import onnx_ir as ir

from graphs.arithmetic import is_number
from graphs.authoring import GraphAuthor
from graphs.contract import (
    FACES,
    FRAME,
    MASKS,
    NO_EXTRAS,
    OPTIONS,
    SCORE_COLUMN,
    SWAPPED_CROPS,
    SWAPPED_FRAME,
    WARPS,
    Extras,
    FrameFormat,
    TensorSpec,
    frame_spec,
)
from graphs.face_blender.blend import Blend
from graphs.face_blender.patches import blend_patches
from graphs.face_blender.regions import blend_regions
from graphs.face_blender.whole import blend_whole
from graphs.geometry import regular_warps
from graphs.harmless import harmless_crops, harmless_masks
from graphs.pixels import (
    chroma_offset,
    color_index,
    frame_size,
    rgb_to_yuv,
    safe_options,
    valid_options,
)
from graphs.shapes import Op, dimension, to_float, used_slots

Method = Literal["whole", "regions", "patches"]

_FORMS: Final[Mapping[Method, Callable[[GraphAuthor, Blend], ir.Value]]] = MappingProxyType(
    {"whole": blend_whole, "regions": blend_regions, "patches": blend_patches}
)


def build(
    frame_format: FrameFormat,
    crop_size: int,
    *,
    method: Method = "whole",
    extras: Extras = NO_EXTRAS,
) -> onnx.ModelProto:
    """The served model: frame, swapped_crops, masks, warps, faces, options -> swapped_frame.

    Args:
        frame_format: of `i420` frames the options say colour matrix, range and chroma location.
        crop_size: S, side of the crops.
        method: how the graph goes about it, see the module.
        extras: of the deployment: which options are valid.

    Returns:
        A model with `frame` [B, H*3/2, W] or [B, H, W, 3] uint8, `swapped_crops` [B, K, 3, S, S]
        float32 RGB in [0, 1], `masks` [B, K, 1, S, S] float32 in [0, 1], `warps` [B, K, 2, 3]
        float32 frame to crop, `faces` [B, M, 15] float32, `options` [B, 16] float32, and
        `swapped_frame` like `frame`. Rows whose options are not valid keep their frame.
    """
    author = GraphAuthor(f"face_blender_{frame_format}")
    op: Op = author.op
    frame = author.input(frame_spec(FRAME, frame_format))
    crops = author.input(TensorSpec(SWAPPED_CROPS.name, "float32", ("K", 3, crop_size, crop_size)))
    masks = author.input(TensorSpec(MASKS.name, "float32", ("K", 1, crop_size, crop_size)))
    warps, faces, options = (author.input(spec) for spec in (WARPS, FACES, OPTIONS))
    with author.scope("preprocess"):
        height, _ = frame_size(op, frame, frame_format)
        valid = valid_options(op, options, extras)
        shown = op.And(_shown_slots(op, warps, faces), valid)
        if method == "regions":
            # What is done to a crop takes a CPU as long for an empty slot as for a face.
            used = used_slots(op, shown)
            crops, masks, warps, shown = (
                op.Slice(value, [0], used, [1]) for value in (crops, masks, warps, shown)
            )
        rows, solid = harmless_crops(op, crops)
        offset = None
        if frame_format == "i420":
            options = safe_options(op, options, valid)
            rows = rgb_to_yuv(op, rows, color_index(op, options, height))
            offset = chroma_offset(op, options)
        else:
            rows = op.Mul(_reverse_channels(op, rows), 255.0)
        weights = op.Mul(solid, harmless_masks(op, masks))
    blend = Blend(
        frame=frame,
        crops=rows,
        masks=weights,
        warps=warps,
        shown=shown,
        offset=offset,
        crop_size=crop_size,
    )
    swapped = _FORMS[method](author, blend)
    author.output(swapped, frame_spec(SWAPPED_FRAME, frame_format))
    return author.finish()


def _reverse_channels(op: Op, rgb: ir.Value) -> ir.Value:
    """BGR from RGB, [B, K, 3, S, S]."""
    return op.Gather(rgb, [2, 1, 0], axis=2)


def _shown_slots(op: Op, warps: ir.Value, faces: ir.Value) -> ir.Value:
    """Which slots hold a face and a usable warp: bool [B, K]."""
    slots = dimension(op, warps, 1)
    scores = op.Slice(faces, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    scores = op.Slice(op.Squeeze(scores, [2]), [0], slots, [1])
    usable = to_float(op, is_number(op, warps))
    # A warp onto a line or a point shows no face, and its box would be anything.
    regular = op.Squeeze(regular_warps(op, warps), [2, 3])
    return op.And(
        op.And(op.Greater(scores, 0.0), regular),
        op.Greater(op.ReduceMin(usable, [2, 3], keepdims=0), 0.5),
    )
