"""face_detector_{i420,bgr}: frame -> faces, aligned crops, warps; face_locator_bgr: frame -> faces.

letterbox -> network -> decode -> exact NMS -> order -> five-point similarity -> crops. The locator
stops at `faces`: it serves the recogniser and the source encoder, which see BGR photos and align
with templates of their own. Both pass the frame through, so that the next model reads the copy that
is already on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import onnx
import onnx_ir as ir

from graphs.alignment import TEMPLATES, crop_bgr, crop_i420, fit_warps
from graphs.arithmetic import are_numbers
from graphs.authoring import GraphAuthor
from graphs.contract import (
    CONTRACT_VERSION,
    CROPS,
    DETECTED_FRAME,
    FACES,
    FRAME,
    MAX_DETECTIONS,
    OPTIONS,
    SOURCE,
    WARPS,
    FrameFormat,
    Option,
    TensorSpec,
    frame_spec,
)
from graphs.detections import Candidates, decode_candidates, decode_landmarks
from graphs.letterbox import Letterbox, letterbox
from graphs.pixels import option, safe_options, valid_options
from graphs.shapes import Op, dimension, to_float
from graphs.suppression import order_faces, suppress
from networks.batching import row_shape, with_free_batch
from networks.detectors import Detector, check_outputs
from networks.passes import DETECTOR_PASSES, GPU_DETECTOR_PASSES, apply_passes
from networks.swappers import Swapper, check_pixel_boost

Runtime = Literal["tensorrt", "onnxruntime", "onnxruntime_gpu"]
"""Which runtime a detector is written for; the faces are the same.

"tensorrt" (ONNX Runtime runs it too): the whole frame is cast first, because TensorRT's parser
takes nothing else on uint8, and all rounds of suppression are written out, because it fuses them.
"onnxruntime": only the bytes that are read are cast, and rounds end with the last face.
"onnxruntime_gpu": that, I420 frames are read by ONNX Runtime's GridSample, and the network is
rewritten by `GPU_DETECTOR_PASSES`.
"""


@dataclass(frozen=True)
class Frames:
    """A batch of frames inside the graph.

    pixels: float32 in 0..255, or uint8, shaped as sent.
    options: [B, 8] float32, every row valid.
    sampled: read them by GridSample (`graphs.frame_sampling`); float32 and I420 then.
    """

    pixels: ir.Value
    frame_format: FrameFormat
    options: ir.Value
    sampled: bool = False


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
    scale: ir.Value,
    *,
    loop: bool = False,
) -> ir.Value:
    """Rows of `faces` [B, 16, 15] float32 in frame pixels, in the order asked for.

    Rows that are not a face are 0 and come last. So are faces whose box or landmarks are not
    finite, which only a broken network gives. For `scale` see `Letterbox`, for `loop` `suppress`.
    """
    boxes = op.Div(candidates.boxes, scale)
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
    landmarks = op.Div(decode_landmarks(op, detector, rows, kept.index), scale)
    coordinates = op.Concat(kept_boxes, landmarks, axis=2)
    usable = op.And(are_numbers(op, coordinates, [2]), op.Unsqueeze(kept.found, [2]))
    faces = op.Concat(kept_boxes, op.Unsqueeze(kept.scores, [2]), landmarks, axis=2)
    return order_faces(
        op, op.Where(usable, faces, 0.0), option(op, frames.options, Option.FACE_ORDER)
    )


def crop_faces(op: Op, frames: Frames, warps: ir.Value, side: int) -> ir.Value:
    """Aligned crops [B, K, 3, S, S] float32 RGB in [0, 1]; slots without a warp are 0."""
    if frames.frame_format == "bgr":
        return crop_bgr(op, frames.pixels, warps, side)
    return crop_i420(op, frames.pixels, frames.options, warps, side, sampled=frames.sampled)


def build(
    frame_format: FrameFormat,
    detector: Detector,
    network: onnx.ModelProto,
    *,
    swapper: Swapper | None = None,
    pixel_boost: int = 1,
    runtime: Runtime = "tensorrt",
) -> onnx.ModelProto:
    """The served graph.

    Inputs `frame`, `options` and, with a swapper, `source` (for its K alone); outputs `faces`,
    `detected_frame` and, with a swapper, `crops` and `warps`, as in `graphs.contract`. Rows whose
    options are invalid have NaN in all of `faces`, no crops and no warps.

    Args:
        network: the detector's, batch 1 or free.
        swapper: whose template and crop size to align to; None gives the locator.
        pixel_boost: crops are `pixel_boost` times the swapper's size.
        runtime: which one the graph is written for; the faces are the same.

    Raises:
        ValueError: the network is not this detector's, or the swapper has no such boost.
    """
    if swapper is not None:
        check_pixel_boost(swapper, pixel_boost)
    free = _ready_network(detector, network, runtime)
    author = GraphAuthor(f"face_{'locator' if swapper is None else 'detector'}_{frame_format}")
    sampled = runtime == "onnxruntime_gpu" and frame_format == "i420"
    if sampled:
        author.use_onnxruntime_operators()
    op: Op = author.op
    frame = author.input(frame_spec(FRAME, frame_format))
    source = None if swapper is None else author.input(_source_spec(swapper))
    options = author.input(OPTIONS)
    with author.scope("preprocess"):
        valid = valid_options(op, options)
        frames = Frames(
            to_float(op, frame) if runtime == "tensorrt" or sampled else frame,
            frame_format,
            safe_options(op, options, valid),
            sampled,
        )
        pixels, box = preprocess(op, detector, frames)
    (input_name,) = (value.name for value in free.graph.input)
    outputs = author.embed(free, {input_name: pixels})
    with author.scope("postprocess"):
        candidates = decode_candidates(op, detector, outputs)
        rows = postprocess(op, detector, frames, candidates, box.scale, loop=runtime != "tensorrt")
        refused = op.Not(op.Unsqueeze(valid, [2]))
        faces = op.Where(refused, float("nan"), rows)
        author.output(faces, FACES)
        if swapper is not None and source is not None:
            slots = dimension(op, source, 1)
            shown = op.Where(refused, 0.0, rows)
            chosen = op.Slice(shown, [0], slots, [1])
            _align(author, frames, chosen, swapper.template, swapper.crop_size * pixel_boost)
    author.output(frame, frame_spec(DETECTED_FRAME, frame_format))
    author.metadata(_metadata(detector, swapper, pixel_boost))
    return author.finish()


def _ready_network(
    detector: Detector, network: onnx.ModelProto, runtime: Runtime
) -> onnx.ModelProto:
    """The detector's network, its batch free, rewritten for `runtime`."""
    passes = GPU_DETECTOR_PASSES if runtime == "onnxruntime_gpu" else DETECTOR_PASSES
    free = apply_passes(with_free_batch(network), passes)
    check_outputs(detector, [row_shape(value) for value in free.graph.output])
    return free


def _align(author: GraphAuthor, frames: Frames, faces: ir.Value, template: str, side: int) -> None:
    """The outputs `crops` and `warps` of faces [B, K, 15]; the crops are `side` pixels wide."""
    op: Op = author.op
    warps = fit_warps(op, faces, TEMPLATES[template] * side)
    crops = crop_faces(op, frames, warps, side)
    author.output(crops, replace(CROPS, dims=("K", 3, side, side)))
    author.output(warps, WARPS)


def _source_spec(swapper: Swapper) -> TensorSpec:
    return replace(SOURCE, dims=("K", swapper.source_length))


def _metadata(detector: Detector, swapper: Swapper | None, pixel_boost: int) -> dict[str, str]:
    entries = {
        "contract_version": str(CONTRACT_VERSION),
        "detector": detector.name,
        "max_detections": str(MAX_DETECTIONS),
    }
    if swapper is not None:
        entries["swapper"] = swapper.name
        entries["template"] = swapper.template
        entries["crop_size"] = str(swapper.crop_size * pixel_boost)
    return entries
