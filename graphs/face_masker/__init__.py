"""face_masker: how much of each pixel of a swapped crop is shown.

Masks are combined by minimum, as FaceFusion combines its own; which ones, each request says, or the
swapper's row does:

- box (`box.py`): FaceFusion's, a soft frame along the crop's edge;
- hull (`hull.py`): the face as its landmarks bound it, whichever way it looks. Where a face has no
  landmarks, its box;
- the swapper's own, where its network gives one;
- areas (`areas.py`): FaceFusion's, the convex hull of upper face, lower face or mouth. Where a face
  has no landmarks, its box;
- occlusion and regions (`networks.py`), where a deployment has an occluder or a parser: only these
  look at a picture, and are the default where they are.

Parts of the target that are to stay (`keep.py`) are taken out of what is left. Each slot is masked
by itself, so that empty ones cost nothing where a backend leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from graphs.arithmetic import any_of, are_numbers, is_number
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CROPS,
    FACES,
    LANDMARKS,
    MASKS,
    NO_EXTRAS,
    OCCLUSIONS,
    OPTIONS,
    SLOT_LANDMARKS,
    SWAP_MASKS,
    SWAPPED_CROPS,
    WARPS,
    Extras,
    MaskFlag,
    Option,
    TensorSpec,
    mask_codes,
)
from graphs.face_masker.areas import area_masks
from graphs.face_masker.box import box_masks
from graphs.face_masker.hull import hull_masks
from graphs.face_masker.keep import keep_masks
from graphs.face_masker.networks import occlusion_masks, region_masks
from graphs.geometry import apply_warps
from graphs.harmless import harmless_masks
from graphs.pixels import option, safe_options, valid_options
from graphs.shapes import Op, constant, dimension, split
from graphs.slots import held_slots
from networks.face_points import MEDIAPIPE_POINTS
from networks.face_regions import FACE_REGIONS, FaceRegions
from networks.maskers import Occluder, Parser
from networks.swappers import Swapper

_PLAIN: Final = 1.0
"""A mask that is not asked for."""


@dataclass(frozen=True, kw_only=True)
class MaskNetworks:
    """The networks of a masker that looks at pictures; a row and its network come together.

    extras: of the deployment, which says whether occlusions are an output of their own, for an
        enhancer.
    """

    extras: Extras = NO_EXTRAS
    occluder: tuple[Occluder, onnx.ModelProto] | None = None
    parser: tuple[Parser, onnx.ModelProto] | None = None

    @property
    def masks(self) -> MaskFlag:
        """Their masks."""
        occlusion = MaskFlag.OCCLUSION if self.occluder else MaskFlag.DEFAULT
        return occlusion | (MaskFlag.REGIONS if self.parser else MaskFlag.DEFAULT)


def build(
    swapper: Swapper,
    *,
    crop_size: int,
    point_count: int = MEDIAPIPE_POINTS,
    networks: MaskNetworks | None = None,
) -> onnx.ModelProto:
    """The served model: swap_masks, landmarks, warps, faces, options -> masks.

    Args:
        swapper: whose row says which masks a request that names none gets.
        crop_size: S, side of the crops.
        point_count: P, of the deployment's landmarks.
        networks: of a deployment with an occluder or a parser; their masks are among the defaults.

    Returns:
        A model with `swap_masks` [B, K, 1, S, S], `landmarks` [B, K, P, 3] (frame pixels; zeros or
        what is no number: none), `warps` [B, K, 2, 3], `faces` [B, M, 15], `options` [B, 16] and
        `masks` [B, K, 1, S, S] in [0, 1], all float32. Slots without a face get zeros. A row whose
        options are not valid is masked by the defaults. With an occluder it takes `crops`, with a
        parser `swapped_crops`, [B, K, 3, S, S] RGB in [0, 1], too; and where the contract says so
        it gives `occlusions` [B, K, 1, S, S], ones where none were asked for.

    Raises:
        KeyError: no landmarks of that number are known.
        ValueError: a network has another contract than its row.
    """
    regions = FACE_REGIONS[point_count]
    looking = networks or MaskNetworks()
    author = GraphAuthor("face_masker")
    op: Op = author.op
    own = author.input(_sized(SWAP_MASKS, crop_size))
    pictures = {
        spec.name: author.input(_sized(spec, crop_size))
        for spec, row in ((CROPS, looking.occluder), (SWAPPED_CROPS, looking.parser))
        if row is not None
    }
    points = author.input(
        TensorSpec(LANDMARKS.name, LANDMARKS.dtype, ("K", point_count, *SLOT_LANDMARKS.dims[2:]))
    )
    warps, faces, given = author.input(WARPS), author.input(FACES), author.input(OPTIONS)
    with author.scope("preprocess"):
        options = safe_options(op, given, valid_options(op, given, looking.extras))
        held = op.Unsqueeze(held_slots(op, faces, warps), [3, 4])
        seen = are_numbers(op, points, [2, 3])
        points = op.Where(seen, points, 0.0)
        seen = op.And(seen, op.Greater(op.ReduceSum(op.Abs(points), [2, 3], keepdims=1), 0.0))
        seen = op.Unsqueeze(seen, [4])
        x, y = _in_crop(op, points, warps)
    with author.scope("masks"):
        boxed, hulled, owned = _wanted_masks(
            op, options, swapper.masks | looking.masks, looking.extras
        )
        in_areas = op.Unsqueeze(op.Greater(option(op, options, Option.AREAS), 0.0), [2, 3, 4])
        boxed = op.Or(boxed, op.And(op.Or(hulled, in_areas), op.Not(seen)))
        hull = _as_slots(op, hull_masks(op, x, y, regions, crop_size), warps)
        masks = op.Min(
            op.Where(boxed, box_masks(author, options, crop_size), _PLAIN),
            op.Where(op.And(hulled, seen), hull, _PLAIN),
            op.Where(owned, harmless_masks(op, own), _PLAIN),
        )
    with author.scope("areas"):
        areas = _asked(op, options, Option.AREAS, area_masks, x, y, regions, crop_size)
        shown = op.And(in_areas, seen)
        masks = op.Min(masks, op.Where(shown, _as_slots(op, areas, warps), _PLAIN))
    looked = _looked_masks(author, options, swapper, looking, pictures, warps, crop_size)
    with author.scope("keep"):
        if looked:
            masks = op.Min(masks, *looked.values())
        kept = _asked(op, options, Option.KEEP, keep_masks, x, y, regions, crop_size)
        masks = op.Min(masks, op.Where(seen, _as_slots(op, kept, warps), _PLAIN))
    with author.scope("postprocess"):
        masks = op.Where(held, masks, 0.0)
    author.output(masks, _sized(MASKS, crop_size))
    if looking.extras.enhances == "context" and looking.occluder is not None:
        author.output(looked[MaskFlag.OCCLUSION], _sized(OCCLUSIONS, crop_size))
    author.metadata({"swapper": swapper.name, "masks": str(int(swapper.masks | looking.masks))})
    return author.finish()


def _looked_masks(
    author: GraphAuthor,
    options: ir.Value,
    swapper: Swapper,
    looking: MaskNetworks,
    pictures: Mapping[str, ir.Value],
    warps: ir.Value,
    size: int,
) -> dict[MaskFlag, ir.Value]:
    """The networks' masks [B, K, 1, S, S], ones for rows that do not want them."""
    op: Op = author.op
    if not looking.masks:
        return {}
    made = {}
    default = swapper.masks | looking.masks
    with author.scope("looked"):
        if looking.occluder is not None:
            asked = _wants(op, options, default, MaskFlag.OCCLUSION, looking.extras)
            found = occlusion_masks(
                author, pictures[CROPS.name], asked, *looking.occluder, size
            )
            made[MaskFlag.OCCLUSION] = asked, found
        if looking.parser is not None:
            asked = _wants(op, options, default, MaskFlag.REGIONS, looking.extras)
            found = region_masks(
                author, pictures[SWAPPED_CROPS.name], asked, options, *looking.parser, size
            )
            made[MaskFlag.REGIONS] = asked, found
        found_masks = {}
        for flag, (asked, found) in made.items():
            masks = _as_slots(op, harmless_masks(op, found), warps)
            found_masks[flag] = op.Where(op.Unsqueeze(asked, [2, 3, 4]), masks, _PLAIN)
        return found_masks


def _wants(
    op: Op, options: ir.Value, default: MaskFlag, flag: MaskFlag, extras: Extras
) -> ir.Value:
    """Whether each row wants one mask: bool [B, 1]."""
    given = option(op, options, Option.MASKS)
    codes = op.Cast(op.Where(op.Greater(given, 0.0), given, float(default)), to=ir.DataType.INT64)
    table = [float(bool(code & flag)) for code in range(mask_codes(extras)[-1] + 1)]
    return op.Greater(op.Gather(constant(op, np.array(table, np.float32)), codes, axis=0), 0.5)


def _sized(spec: TensorSpec, crop_size: int) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, (*spec.dims[:2], crop_size, crop_size))


def _in_crop(op: Op, points: ir.Value, warps: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Landmarks in pixels of their crop: x and y, [B*K, P] float32 each, finite."""
    usable = op.Where(is_number(op, warps), warps, 0.0)
    count = dimension(op, points, 2)
    places = op.Slice(points, [0], [2], [3])
    x, y = split(op, op.Transpose(places, perm=[0, 1, 3, 2]), 2, 2)
    shape = op.Concat([-1], count, axis=0)
    found = (op.Reshape(axis, shape) for axis in apply_warps(op, usable, x, y))
    # no point of a face that is worth a mask lies farther from its crop
    first, second = (op.Clip(axis, -1e5, 1e5) for axis in found)
    return first, second


def _as_slots(op: Op, masks: ir.Value, warps: ir.Value) -> ir.Value:
    """[B, K, 1, S, S] of [B*K, 1, S, S]."""
    slots = op.Concat(dimension(op, warps, 0), dimension(op, warps, 1), axis=0)
    return op.Reshape(masks, op.Concat(slots, op.Shape(masks, start=1), axis=0))


def _wanted_masks(
    op: Op, options: ir.Value, default: MaskFlag, extras: Extras
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Whether each row wants the box, the hull and the swapper's own: bool [B, 1, 1, 1, 1] each."""
    given = option(op, options, Option.MASKS)
    flags = op.Where(op.Greater(given, 0.0), given, float(default))
    table = np.zeros((3, mask_codes(extras)[-1] + 1), bool)
    for row, flag in enumerate((MaskFlag.BOX, MaskFlag.HULL, MaskFlag.SWAPPER)):
        table[row] = [bool(value & flag) for value in range(table.shape[1])]
    codes = op.Cast(flags, to=ir.DataType.INT64)
    boxed, hulled, owned = (
        op.Greater(op.Unsqueeze(op.Gather(constant(op, row), codes, axis=0), [2, 3, 4]), 0.5)
        for row in table.astype(np.float32)
    )
    return boxed, hulled, owned


def _asked(
    op: Op,
    options: ir.Value,
    name: Option,
    masks: Callable[..., ir.Value],
    x: ir.Value,
    y: ir.Value,
    regions: FaceRegions,
    size: int,
) -> ir.Value:
    """`masks` of the flags of an option [B*K, 1, S, S]; ones, nothing computed, where no row asks.

    Args:
        masks: `keep_masks` or `area_masks`.
    """
    flags = option(op, options, name)

    def make(op: Op) -> list[ir.Value]:
        slots = op.Div(dimension(op, x, 0), dimension(op, flags, 0))
        each = op.Expand(flags, op.Concat(dimension(op, flags, 0), slots, axis=0))
        return [masks(op, x, y, op.Reshape(each, [-1, 1]), regions, size)]

    def leave(op: Op) -> list[ir.Value]:
        return [op.Expand(_PLAIN, op.Concat(dimension(op, x, 0), [1, size, size], axis=0))]

    label = name.name.lower()
    return GraphAuthor.either(
        op, any_of(op, op.Greater(flags, 0.0)), (f"{label}_asked", make),
        (f"{label}_not_asked", leave), "slots", 1, size, size, label="masks",
    )  # fmt: skip
