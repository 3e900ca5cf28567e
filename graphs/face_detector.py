"""face_detector_{i420,bgr}, face_locator_bgr: frame -> detections, and views of the first faces.

letterbox -> network -> decode -> exact NMS -> order -> views for the landmark network. The locator
is the detector of photos: the same graph with limits of its own. Both pass the frame through, so
that the next model reads the copy that is already on the device.

"tensorrt" graphs have all rounds of suppression written out, because it fuses them; in the others
rounds end with the last face. "onnxruntime_gpu" has the network rewritten by `GPU_DETECTOR_PASSES`.
For how frames are read see `graphs.frames`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from graphs.arithmetic import are_numbers
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CONTRACT_VERSION,
    DETECTED_FRAME,
    DETECTIONS,
    MAX_DETECTIONS,
    MAX_VIEWS,
    NO_EXTRAS,
    VIEW_WARPS,
    VIEWS,
    Extras,
    FrameFormat,
    Option,
    frame_spec,
)
from graphs.detections import Candidates, decode_candidates, decode_landmarks
from graphs.face_views import sample_views
from graphs.frames import Frames, Runtime, declare_frame, declare_options, read_frames
from graphs.letterbox import Letterbox, letterbox
from graphs.pixels import option
from graphs.shapes import Op, constant, dimension
from graphs.suppression import order_faces, suppress
from networks.batching import row_shape, with_free_batch
from networks.detectors import Detector, check_outputs
from networks.landmarkers import Landmarker, view_size
from networks.passes import DETECTOR_PASSES, GPU_DETECTOR_PASSES, apply_passes

Role = Literal["detector", "locator"]

def preprocess(op: Op, detector: Detector, frames: Frames) -> tuple[ir.Value, Letterbox]:
    """The network's input [B, 3, 640, 640] float32, and the letterbox it came from."""
    box = letterbox(
        op,
        frames.pixels,
        frames.frame_format,
        frames.options,
        detector.channel_order,
        sampled=frames.sampled,
    )
    pixels = box.pixels
    if detector.mean != 0.0:
        pixels = op.Sub(pixels, detector.mean)
    if detector.std != 1.0:
        pixels = op.Div(pixels, detector.std)
    return pixels, box


def _threshold(op: Op, frames: Frames, name: Option, default: float) -> ir.Value:
    """An option [B, 1], or what 0 stands for."""
    given = option(op, frames.options, name)
    return op.Where(op.Greater(given, 0.0), given, default)


def postprocess(
    op: Op,
    detector: Detector,
    frames: Frames,
    candidates: Candidates,
    box: Letterbox,
    *,
    loop: bool = False,
) -> ir.Value:
    """Rows of `faces` [B, 16, 15] float32 in frame pixels, in the order asked for.

    Rows that are not a face are 0 and come last. So are faces whose box or landmarks are not
    finite, which only a broken network gives. `box` is what the network saw; for `loop` see
    `suppress`.
    """
    pair = op.Concat(box.scale_x, box.scale_y, axis=0)
    boxes = op.Div(candidates.boxes, op.Unsqueeze(op.Concat(pair, pair, axis=0), [1]))
    kept = suppress(
        op,
        candidates.scores,
        boxes,
        anchor_count=detector.anchor_count,
        score_threshold=_threshold(op, frames, Option.SCORE_THRESHOLD, detector.score_threshold),
        nms_threshold=_threshold(op, frames, Option.NMS_THRESHOLD, detector.nms_threshold),
        loop=loop,
    )
    box_index = op.Expand(op.Unsqueeze(kept.index, [1]), [1, 4, 1])
    kept_boxes = op.Transpose(op.GatherElements(boxes, box_index, axis=2), perm=[0, 2, 1])
    row_index = op.Expand(op.Unsqueeze(kept.index, [2]), [1, 1, 10])
    rows = op.GatherElements(candidates.landmark_rows, row_index, axis=1)
    landmarks = decode_landmarks(op, detector, rows, kept.index)
    landmarks = op.Div(landmarks, op.Concat(*[pair] * 5, axis=0))
    coordinates = op.Concat(kept_boxes, landmarks, axis=2)
    usable = op.And(are_numbers(op, coordinates, [2]), op.Unsqueeze(kept.found, [2]))
    faces = op.Concat(kept_boxes, op.Unsqueeze(kept.scores, [2]), landmarks, axis=2)
    return order_faces(
        op, op.Where(usable, faces, 0.0), option(op, frames.options, Option.FACE_ORDER)
    )


def build(
    frame_format: FrameFormat,
    detector: Detector,
    network: onnx.ModelProto,
    *,
    landmarker: Landmarker | None = None,
    views: int = MAX_VIEWS,
    role: Role = "detector",
    runtime: Runtime = "tensorrt",
    extras: Extras = NO_EXTRAS,
) -> onnx.ModelProto:
    """The served graph.

    Inputs `frame` and `options`; outputs `detections`, `views`, `view_warps` and `detected_frame`,
    as in `graphs.contract`. Rows whose options are invalid have NaN in all of `detections`, no
    views and no warps.

    Args:
        network: the detector's, batch 1 or free.
        landmarker: whose views to cut; None, or one that looks at none: views are 1 pixel of 0.
        views: F.
        role: in the graph's name.
        runtime: which one the graph is written for; the faces are the same.
        extras: of the deployment: which options are valid.

    Raises:
        ValueError: the network is not this detector's.
    """
    free = _ready_network(detector, network, runtime)
    author = GraphAuthor(f"face_{role}_{frame_format}")
    op: Op = author.op
    frame, options = declare_frame(author, frame_format, runtime), declare_options(author)
    with author.scope("preprocess"):
        frames, valid = read_frames(op, frame, options, frame_format, runtime, extras)
        pixels, box = preprocess(op, detector, frames)
    (input_name,) = (value.name for value in free.graph.input)
    outputs = author.embed(free, {input_name: pixels})
    with author.scope("postprocess"):
        candidates = decode_candidates(op, detector, outputs)
        loop = runtime != "tensorrt"
        rows = postprocess(op, detector, frames, candidates, box, loop=loop)
        refused = op.Not(op.Unsqueeze(valid, [2]))
        author.output(op.Where(refused, float("nan"), rows), DETECTIONS)
        shown = op.Where(refused, 0.0, rows)
        side = view_size(landmarker)
        pictures, warps = _views(op, frames, shown, views, landmarker)
        author.output(pictures, replace(VIEWS, dims=(views, 3, side, side)))
        author.output(warps, replace(VIEW_WARPS, dims=(views, 2, 3)))
    author.output(frame, frame_spec(DETECTED_FRAME, frame_format))
    author.metadata(_metadata(detector, landmarker))
    return author.finish()


def _ready_network(
    detector: Detector, network: onnx.ModelProto, runtime: Runtime
) -> onnx.ModelProto:
    """The detector's network, its batch free, rewritten for `runtime`."""
    passes = GPU_DETECTOR_PASSES if runtime == "onnxruntime_gpu" else DETECTOR_PASSES
    free = apply_passes(with_free_batch(network), passes)
    check_outputs(detector, [row_shape(value) for value in free.graph.output])
    return free


def _views(
    op: Op, frames: Frames, detections: ir.Value, views: int, landmarker: Landmarker | None
) -> tuple[ir.Value, ir.Value]:
    """Views [B, F, 3, V, V] and their warps [B, F, 2, 3] of detections [B, M, 15]."""
    if landmarker is not None and landmarker.input == "view":
        slots = constant(op, np.array([views], np.int64))
        return sample_views(op, frames, detections, slots, landmarker)
    batch = dimension(op, detections, 0)
    shapes = ([views, 3, 1, 1], [views, 2, 3])
    pictures, warps = (op.Expand(0.0, op.Concat(batch, s, axis=0)) for s in shapes)
    return pictures, warps


def _metadata(detector: Detector, landmarker: Landmarker | None) -> dict[str, str]:
    return {
        "contract_version": str(CONTRACT_VERSION),
        "detector": detector.name,
        "landmarker": "none" if landmarker is None else landmarker.name,
        "max_detections": str(MAX_DETECTIONS),
    }
