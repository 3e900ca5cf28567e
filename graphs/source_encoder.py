"""source_encoder: a photo to the `source` vector that one swapper wants.

For identity swappers: the recogniser's embedding, unit length, then the swapper's converter where
it has one. For image swappers: the aligned crop of the source's face, flat.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphs.alignment import crop_first_face, has_first_face
from graphs.arithmetic import unit_length
from graphs.authoring import GraphAuthor
from graphs.contract import ENCODED_SOURCE, FACES, FRAME, TensorSpec, frame_spec
from graphs.face_recognizer import embed_first_face
from graphs.shapes import Op
from networks.batching import with_free_batch
from networks.recognizers import RECOGNIZERS
from networks.swappers import Swapper


def build(
    swapper: Swapper,
    *,
    recognizer_network: onnx.ModelProto | None = None,
    converter_network: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """The served model: `frame`, `faces` -> `source`.

    Args:
        swapper: for whom; decides everything.
        recognizer_network: network of the swapper's own recogniser; None for image swappers.
        converter_network: network between that recogniser's embedding and the swapper's identity
            space, [*, 512] -> [*, 512]; None where the swapper's row names none.

    Returns:
        A model with inputs `frame` [B, H, W, 3] uint8 BGR and `faces` [B, M, 15] float32, and
        output `source` [B, D] float32 from row 0 of `faces`; zeros where row 0 is empty.

    Raises:
        ValueError: a network is missing, unwanted, or does not have the contract.
    """
    _check_given(swapper, "recogniser", swapper.recognizer, recognizer_network)
    _check_given(swapper, "converter", swapper.converter, converter_network)
    author = GraphAuthor("source_encoder")
    frame = author.input(frame_spec(FRAME, "bgr"))
    faces = author.input(FACES)
    if recognizer_network is None:
        source = _encode_image(author, swapper, frame, faces)
    else:
        recognizer = RECOGNIZERS[str(swapper.recognizer)]
        source = embed_first_face(author, frame, faces, recognizer, recognizer_network)
    if converter_network is not None:
        source = _convert(author, swapper, source, faces, converter_network)
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
    author: GraphAuthor, swapper: Swapper, frame: ir.Value, faces: ir.Value
) -> ir.Value:
    """The aligned crop [B, 3 * s * s] float32 RGB in [0, 1], channels first."""
    assert swapper.source_size is not None
    assert swapper.source_template is not None
    op: Op = author.op
    with author.scope("preprocess"):
        present = has_first_face(op, faces)
        crop = crop_first_face(
            op,
            frame,
            faces,
            present,
            template=swapper.source_template,
            size=swapper.source_size,
        )
    with author.scope("postprocess"):
        flat = op.Reshape(crop, [-1, swapper.source_length])
        return op.Where(present, flat, 0.0)


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
