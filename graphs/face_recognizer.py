"""face_recognizer: the identity of the first face of a photo, as a unit vector."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from graphs.alignment import crop_first_face, has_first_face
from graphs.arithmetic import unit_length
from graphs.authoring import GraphAuthor
from graphs.contract import EMBEDDING, FACES, FRAME, TensorSpec, frame_spec
from graphs.shapes import Op
from networks.batching import row_shape, with_free_batch
from networks.recognizers import Recognizer


def build(recognizer: Recognizer, network: onnx.ModelProto) -> onnx.ModelProto:
    """The served model: `frame`, `faces` -> `embedding`.

    Args:
        recognizer: which contract `network` has.
        network: one image input [*, 3, 112, 112] and one embedding output [*, E]; batch 1 is freed.

    Returns:
        A model with inputs `frame` [B, H, W, 3] uint8 BGR and `faces` [B, M, 15] float32, and
        output `embedding` [B, E] float32 of unit length, taken from row 0 of `faces`; zeros where
        row 0 is empty.

    Raises:
        ValueError: the network does not have that contract.
    """
    author = GraphAuthor("face_recognizer")
    frame = author.input(frame_spec(FRAME, "bgr"))
    faces = author.input(FACES)
    embedding = embed_first_face(author, frame, faces, recognizer, network)
    length = (recognizer.embedding_length,)
    author.output(embedding, TensorSpec(EMBEDDING.name, EMBEDDING.dtype, length))
    author.metadata({"recognizer": recognizer.name})
    return author.finish()


def embed_first_face(
    author: GraphAuthor,
    frame: ir.Value,
    faces: ir.Value,
    recognizer: Recognizer,
    network: onnx.ModelProto,
) -> ir.Value:
    """Embedding [B, E] float32 of unit length of each frame's first face; zeros without one."""
    free = with_free_batch(network, image_size=recognizer.crop_size)
    _check_network(recognizer, free)
    op: Op = author.op
    with author.scope("preprocess"):
        present = has_first_face(op, faces)
        size = recognizer.crop_size
        crop = crop_first_face(op, frame, faces, present, template=recognizer.template, size=size)
        if recognizer.mean:
            crop = op.Sub(crop, recognizer.mean)
        image = op.Mul(crop, 1.0 / recognizer.std)
    (embedding,) = author.embed(free, {free.graph.input[0].name: image})
    with author.scope("postprocess"):
        return op.Where(present, unit_length(op, embedding), 0.0)


def _check_network(recognizer: Recognizer, network: onnx.ModelProto) -> None:
    size = recognizer.crop_size
    expected = [[3, size, size]], [[recognizer.embedding_length]]
    found = tuple(
        [row_shape(value) for value in values]
        for values in (network.graph.input, network.graph.output)
    )
    if found != expected:
        raise ValueError(
            f"the network of {recognizer.name} should take {expected[0]} and answer {expected[1]} "
            f"(shapes of one row), but it takes {found[0]} and answers {found[1]}; "
            f"is this the file of another model?"
        )
