"""source_encoder: a photo to the `source` vector that one swapper wants.

For identity swappers: the recogniser's embedding, unit length, then the swapper's converter where
it has one. For image swappers: the aligned crop of the source's face, flat, each pixel packed into
one number (`graphs.packed_images`); behind it, where the swapper goes by landmarks, those of the
source in sides of that crop.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
import onnx_ir as ir

from graphs.alignment import crop_first_face, first_face_warps, has_first_face
from graphs.arithmetic import are_numbers, unit_length
from graphs.authoring import GraphAuthor
from graphs.contract import (
    ENCODED_SOURCE,
    FACES,
    FRAME,
    LANDMARKS,
    MAX_VIEWS,
    TensorSpec,
    frame_spec,
)
from graphs.face_recognizer import embed_first_face
from graphs.geometry import points_in_crops
from graphs.packed_images import pack_rgb
from graphs.shapes import Op, dimension
from networks.batching import with_free_batch
from networks.face_points import MEDIAPIPE_POINTS
from networks.recognizers import RECOGNIZERS
from networks.swappers import Swapper


def build(
    swapper: Swapper,
    *,
    recognizer_network: onnx.ModelProto | None = None,
    converter_network: onnx.ModelProto | None = None,
    views: int = MAX_VIEWS,
    point_count: int = MEDIAPIPE_POINTS,
) -> onnx.ModelProto:
    """The served model: `frame`, `faces`, `landmarks` -> `source`.

    Args:
        swapper: for whom; decides everything.
        recognizer_network: network of the swapper's own recogniser; None for image swappers.
        converter_network: network between that recogniser's embedding and the swapper's identity
            space, [*, 512] -> [*, 512]; None where the swapper's row names none.
        views, point_count: F and P. Where the swapper goes by no landmarks, they are taken for the
            batch's size alone.

    Returns:
        A model with inputs `frame` [B, H, W, 3] uint8 BGR, `faces` [B, M, 15] and `landmarks`
        [B, F, P, 3] float32, and output `source` [B, D] float32 from row 0 of `faces`; zeros where
        row 0 is empty.

    Raises:
        ValueError: a network is missing, unwanted, or does not have the contract.
    """
    _check_given(swapper, "recogniser", swapper.recognizer, recognizer_network)
    _check_given(swapper, "converter", swapper.converter, converter_network)
    author = GraphAuthor("source_encoder")
    frame = author.input(frame_spec(FRAME, "bgr"))
    faces = author.input(FACES)
    landmarks = author.input(replace(LANDMARKS, dims=(views, point_count, 3)))
    if recognizer_network is None:
        source = _encode_image(author, swapper, frame, faces, landmarks)
    else:
        recognizer = RECOGNIZERS[str(swapper.recognizer)]
        source = embed_first_face(
            author, frame, faces, recognizer, recognizer_network, unit=not swapper.raw_identity
        )
    if converter_network is not None:
        source = _convert(author, swapper, source, faces, converter_network)
    op: Op = author.op
    with author.scope("postprocess"):
        shape = op.Concat(dimension(op, landmarks, 0), [swapper.source_length], axis=0)
        source = op.Reshape(source, shape)
    spec = TensorSpec(ENCODED_SOURCE.name, ENCODED_SOURCE.dtype, (swapper.source_length,))
    author.output(source, spec)
    author.metadata({"swapper": swapper.name, "source_kind": swapper.source_kind})
    return author.finish()


def _check_given(
    swapper: Swapper, role: str, wanted: str | None, network: onnx.ModelProto | None
) -> None:
    if (wanted is None) == (network is None):
        return
    if wanted is None:
        raise ValueError(f"{swapper.name} has no {role}, but the network of one was given")
    raise ValueError(f"{swapper.name} needs the {role} {wanted}, but no network was given")


def _encode_image(
    author: GraphAuthor,
    swapper: Swapper,
    frame: ir.Value,
    faces: ir.Value,
    landmarks: ir.Value,
) -> ir.Value:
    """The aligned crop's pixels, packed, [B, s * s] float32, then its landmarks [B, 3 * P] where
    the swapper has some; zeros without a face."""
    template, size = swapper.source_template, swapper.source_size
    assert template is not None
    assert size is not None
    op: Op = author.op
    with author.scope("preprocess"):
        present = has_first_face(op, faces)
        crop = crop_first_face(op, frame, faces, present, template=template, size=size)
    with author.scope("postprocess"):
        source = pack_rgb(op, crop)
        if swapper.points:
            warps = first_face_warps(op, faces, present, template=template, size=size)
            places = _first_landmarks(op, landmarks, warps, size)
            source = op.Concat(source, places, axis=1)
        return op.Where(present, source, 0.0)


def _first_landmarks(op: Op, landmarks: ir.Value, warps: ir.Value, size: int) -> ir.Value:
    """Row 0 of `landmarks` [B, F, P, 3] in sides of its crop, flat; zeros where it has none."""
    first = op.Slice(landmarks, [0], [1], [1])
    numbers = are_numbers(op, first, [2, 3])
    first = op.Where(numbers, first, 0.0)
    seen = op.Greater(op.ReduceMax(op.Abs(first), [2, 3], keepdims=1), 0.0)
    places = op.Where(seen, op.Mul(points_in_crops(op, first, warps), 1.0 / size), 0.0)
    return op.Reshape(places, [0, -1])


def _convert(
    author: GraphAuthor,
    swapper: Swapper,
    identity: ir.Value,
    faces: ir.Value,
    network: onnx.ModelProto,
) -> ir.Value:
    """The identity in the swapper's own space [B, D] float32.

    The published converters scale their input to unit length themselves, so an embedding that
    already has it gives what the raw one would.
    """
    free = with_free_batch(network)
    op: Op = author.op
    (converted,) = author.embed(
        free, {free.graph.input[0].name: identity}, prefix="network/converter"
    )
    with author.scope("postprocess"):
        if swapper.normalize_converted:
            converted = unit_length(op, converted)
        return op.Where(has_first_face(op, faces), converted, 0.0)
