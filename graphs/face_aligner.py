"""face_aligner_{i420,bgr}: faces and landmarks -> which are swapped, their warps and their crops.

Geometry alone, no network. A face is left as it is when its points fit no face, when it looks away
from the camera too far, when the request has no source for it, or when its score is below the
threshold that the request names; `verdicts` says which. Its slot is empty for every later step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import onnx
import onnx_ir as ir

from graphs.alignment import TEMPLATES, Array, fit_quality, fit_similarity, landmark_points
from graphs.arithmetic import are_numbers
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CHOSEN_FACES,
    CONTEXT,
    CONTEXT_WARPS,
    CROPS,
    DEFAULT_POSE_LIMIT,
    FACES,
    LANDMARKS,
    MAX_DETECTIONS,
    MAX_VIEWS,
    NO_EXTRAS,
    SCORE_COLUMN,
    SEEN_FRAME,
    SLOT_LANDMARKS,
    SOURCE,
    VERDICTS,
    WARPS,
    Extras,
    FrameFormat,
    Option,
    Verdict,
    frame_spec,
)
from graphs.face_pose import measure_facing
from graphs.frames import Frames, Runtime, crop_faces, declare_frame, declare_options, read_frames
from graphs.pixels import option
from graphs.shapes import Op, dimension, to_float
from networks.enhancers import Enhancer
from networks.landmarkers import Landmarker, point_count
from networks.swappers import Swapper, check_pixel_boost

LEAST_FIT: Final = 0.6
"""How much of the template's spread a face's five points must explain. Frontal faces reach 0.99,
faces turned by 60 degrees 0.8, by 75 degrees 0.65; a mirrored face 0.05, one whose eye and mouth
corner are exchanged 0.58, and of five points thrown at random one set in sixteen passes."""

LEAST_UNSEEN_FIT: Final = 0.8
"""The same where a landmark network saw no face in what the detector found: a head turned by 55
degrees. On heads rendered from a painting such ones were turned by 75 and more, with fits up to
0.77; the box that a face without landmarks gets would be painted beside their profile."""

MOST_DEGREES: Final = 180.0
_DEGREE: Final = math.pi / 180.0


def build(
    frame_format: FrameFormat,
    swapper: Swapper,
    *,
    landmarker: Landmarker | None = None,
    views: int = MAX_VIEWS,
    pixel_boost: int = 1,
    runtime: Runtime = "tensorrt",
    extras: Extras = NO_EXTRAS,
    enhancer: Enhancer | None = None,
) -> onnx.ModelProto:
    """The served graph: frame, faces, landmarks, source, options -> crops, warps and the rest.

    `source` is taken for its K, and for its rows of zeros, which are no source: a job of three
    persons asks for four slots, as one of four does. Rows whose options are invalid have no crops,
    no warps and no chosen face, and NaN in `verdicts`.

    Args:
        swapper: whose template and crop size to align to.
        landmarker: whose points `landmarks` are; None: they are zeros and no pose is measured.
        views: F.
        pixel_boost: crops are `pixel_boost` times the swapper's size.
        runtime: which one the graph is written for; the crops are the same.
        extras: of the deployment: which options are valid.
        enhancer: one that wants the face's surroundings framed in its own way: `context` and
            `context_warps` are outputs then, too.

    Raises:
        ValueError: the swapper has no such boost.
    """
    check_pixel_boost(swapper, pixel_boost)
    side = swapper.crop_size * pixel_boost
    points = point_count(landmarker)
    author = GraphAuthor(f"face_aligner_{frame_format}")
    op: Op = author.op
    frame = declare_frame(author, frame_format, runtime)
    faces = author.input(FACES)
    landmarks = author.input(replace(LANDMARKS, dims=(views, points, 3)))
    source = author.input(replace(SOURCE, dims=("K", swapper.source_length)))
    options = declare_options(author)
    with author.scope("preprocess"):
        frames, valid = read_frames(op, frame, options, frame_format, runtime, extras)
        slots = dimension(op, source, 1)
        mesh, mesh_numbers = _safe_points(op, landmarks)
    with author.scope("judge"):
        facing = _facing(op, mesh, frames.options, landmarker)
        judged = _judge(
            op, faces, frames.options, TEMPLATES[swapper.template] * side,
            sourced=_sourced(op, source), sound=mesh_numbers, facing=facing,
        )  # fmt: skip
        chosen = _chosen(op, judged, valid)
        chosen_faces = op.Where(chosen, judged.faces, 0.0)
    with author.scope("align"):
        in_slots = op.Unsqueeze(op.Slice(chosen, [0], slots, [1]), [3])
        warps = op.Where(in_slots, op.Slice(judged.warps, [0], slots, [1]), 0.0)
        slot_landmarks = op.Where(in_slots, _slot_rows(op, mesh, slots), 0.0)
        crops = crop_faces(op, frames, warps, side)
        around = None
        if enhancer is not None:
            around = _context(op, frames, judged.faces, in_slots, enhancer)
    author.output(crops, replace(CROPS, dims=("K", 3, side, side)))
    author.output(warps, WARPS)
    if around is not None:
        size = around.size
        author.output(around.pictures, replace(CONTEXT, dims=("K", 3, size, size)))
        author.output(around.warps, CONTEXT_WARPS)
    author.output(slot_landmarks, replace(SLOT_LANDMARKS, dims=("K", points, 3)))
    author.output(chosen_faces, CHOSEN_FACES)
    author.output(op.Where(valid, judged.verdicts, float("nan")), VERDICTS)
    author.output(frame, frame_spec(SEEN_FRAME, frame_format))
    author.metadata({"swapper": swapper.name, "template": swapper.template, "crop_size": str(side)})
    return author.finish()


@dataclass(frozen=True)
class _Context:
    """Pictures [B, K, 3, X, X] around faces, the warps [B, K, 2, 3] that lead there, and X."""

    pictures: ir.Value
    warps: ir.Value
    size: int


def _context(
    op: Op, frames: Frames, faces: ir.Value, in_slots: ir.Value, enhancer: Enhancer
) -> _Context:
    """What an enhancer sees of the target; 0 in slots that are not swapped (bool [B, K, 1, 1])."""
    size, template = enhancer.size, enhancer.template
    if size is None or template is None:
        raise ValueError(f"{enhancer.name} sees the swapped crop alone: it has no surroundings")
    five = op.Slice(landmark_points(op, faces), [0], dimension(op, in_slots, 1), [1])
    fitted = fit_similarity(op, five, TEMPLATES[template] * size)
    warps = op.Where(in_slots, fitted, 0.0)
    return _Context(crop_faces(op, frames, warps, size), warps, size)


@dataclass(frozen=True)
class _Judged:
    """Rows [B, M, 15], 0 where one holds what is no number; warps [B, M, 2, 3]; codes [B, M]."""

    faces: ir.Value
    warps: ir.Value
    verdicts: ir.Value


@dataclass(frozen=True)
class _Facing:
    """Which way the faces look: bool [B, M], and [B, 1] whether a request limits that at all.

    beyond: farther away from the camera than the limit. unseen: it has no landmarks.
    """

    beyond: ir.Value
    unseen: ir.Value
    limited: ir.Value


def _judge(
    op: Op,
    faces: ir.Value,
    options: ir.Value,
    template: Array,
    *,
    sourced: ir.Value,
    sound: ir.Value,
    facing: _Facing | None,
) -> _Judged:
    """What there is to say of each row of `faces`.

    Args:
        sourced: bool [B, M], whether there is a source for it. sound: whether its landmarks are
            numbers. facing: None without a landmark network.
    """
    safe, numbers = _safe_rows(op, faces)
    five = landmark_points(op, safe)
    warps = fit_similarity(op, five, template)
    quality = fit_quality(op, warps, five, template)
    fits = op.And(op.And(numbers, op.Greater(quality, LEAST_FIT)), sound)
    away = None
    if facing is not None:
        turned = op.And(facing.unseen, op.LessOrEqual(quality, LEAST_UNSEEN_FIT))
        away = op.Or(facing.beyond, op.And(turned, facing.limited))
    verdicts = _verdicts(op, faces, options, sourced=sourced, fits=fits, away=away)
    return _Judged(safe, warps, verdicts)


def _sourced(op: Op, source: ir.Value) -> ir.Value:
    """Which rows of `faces` there is a source for, bool [B, M]: a source of zeros is none."""
    given = op.Greater(op.ReduceSum(op.Abs(source), [2], keepdims=1), 0.0)
    return _as_rows(op, op.Unsqueeze(given, [3]), False)


def _chosen(op: Op, judged: _Judged, valid: ir.Value) -> ir.Value:
    """Which rows of `faces` are swapped, bool [B, M, 1]."""
    swapped = op.Less(judged.verdicts, 0.5)
    return op.Unsqueeze(op.And(swapped, op.And(_is_there(op, judged.faces), valid)), [2])


def _is_there(op: Op, rows: ir.Value) -> ir.Value:
    """Whether a row [B, M, 15] is not empty: bool [B, M]. A NaN score is something."""
    score = op.Slice(rows, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2])
    return op.Not(op.LessOrEqual(op.Squeeze(score, [2]), 0.0))


def _safe_rows(op: Op, faces: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Rows with 0 for every one that holds what is no number, and which hold numbers [B, M]."""
    numbers = are_numbers(op, faces, [2])
    return op.Where(numbers, faces, 0.0), op.Squeeze(numbers, [2])


def _safe_points(op: Op, landmarks: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The same of landmarks [B, F, P, 3]; rows behind F are numbers: bool [B, M]."""
    numbers = are_numbers(op, landmarks, [2, 3])
    return op.Where(numbers, landmarks, 0.0), _as_rows(op, numbers, True)


def _as_rows(op: Op, values: ir.Value, behind: bool) -> ir.Value:
    """A bool [B, F or K, 1, 1] as [B, M], rows behind the last being `behind`."""
    flat = to_float(op, op.Squeeze(values, [2, 3]))
    rows = op.Concat(
        dimension(op, flat, 0), op.Sub([MAX_DETECTIONS], dimension(op, flat, 1)), axis=0
    )
    return op.Greater(op.Concat(flat, op.Expand(float(behind), rows), axis=1), 0.5)


def _facing(
    op: Op, landmarks: ir.Value, options: ir.Value, landmarker: Landmarker | None
) -> _Facing | None:
    """Where the faces look, by their landmarks and the request's limit."""
    if landmarker is None:
        return None
    toward = measure_facing(op, landmarks, landmarker.pose_points)
    given = option(op, options, Option.POSE_LIMIT)
    limit = op.Where(op.Greater(given, 0.0), given, DEFAULT_POSE_LIMIT)
    beyond = op.Less(toward, op.Unsqueeze(op.Cos(op.Mul(limit, _DEGREE)), [2]))
    seen = op.Greater(op.ReduceSum(op.Abs(landmarks), [2, 3], keepdims=1), 0.0)
    return _Facing(
        beyond=_as_rows(op, op.And(op.Unsqueeze(beyond, [3]), seen), False),
        unseen=op.Not(_as_rows(op, seen, False)),
        limited=op.Less(limit, MOST_DEGREES),
    )


def _verdicts(
    op: Op,
    faces: ir.Value,
    options: ir.Value,
    *,
    sourced: ir.Value,
    fits: ir.Value,
    away: ir.Value | None,
) -> ir.Value:
    """Codes [B, M] float32: the first reason that holds of no slot, a low score, and the points."""
    score = op.Squeeze(op.Slice(faces, [SCORE_COLUMN], [SCORE_COLUMN + 1], [2]), [2])
    low = op.Less(score, option(op, options, Option.SCORE_THRESHOLD))
    code = op.Where(fits, float(Verdict.SWAPPED), float(Verdict.MISSHAPEN))
    if away is not None:
        code = op.Where(op.And(fits, away), float(Verdict.LOOKS_AWAY), code)
    code = op.Where(low, float(Verdict.BELOW_THRESHOLD), code)
    code = op.Where(sourced, code, float(Verdict.NO_SLOT))
    return op.Where(_is_there(op, faces), code, float(Verdict.SWAPPED))


def _slot_rows(op: Op, landmarks: ir.Value, slots: ir.Value) -> ir.Value:
    """[B, F, P, 3] as [B, K, P, 3]: cut off, or with rows of 0."""
    batch, rest = dimension(op, landmarks, 0), op.Shape(landmarks, start=2)
    empty = op.Expand(0.0, op.Concat(batch, slots, rest, axis=0))
    return op.Slice(op.Concat(landmarks, empty, axis=1), [0], slots, [1])
