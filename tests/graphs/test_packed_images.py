"""Packed pictures: exact both ways, whatever the network around them is typed as."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.precision import to_fp16
from graphs import face_swapper
from graphs.packed_images import pack_rgb, unpack_rgb
from networks.swappers import SWAPPERS
from tests.generated_networks import source_vectors, swapper_network
from tests.graphs.evaluation import evaluate, open_session
from tests.graphs.test_face_swapper import places
from tests.reference import swapping


def every_level(seed: int) -> np.ndarray:
    """(2, 3, 16, 16) float32: every level of a byte in every channel, in other orders."""
    rng = np.random.default_rng(seed)
    levels = np.stack([rng.permutation(256) for _ in range(6)]).reshape(2, 3, 16, 16)
    return np.float32(levels / 255)


@pytest.mark.parametrize("seed", range(4))
def test_every_level_of_every_channel_comes_back(seed: int) -> None:
    image = every_level(seed)
    packed, back = evaluate(
        lambda op, x: [pack_rgb(op, x), unpack_rgb(op, pack_rgb(op, x), 16)], image
    )
    np.testing.assert_array_equal(packed, [swapping.pack(row) for row in image])
    np.testing.assert_array_equal(np.round(back * 255), np.round(image * 255))
    # Divided as a photo's levels are: bit for bit.
    np.testing.assert_array_equal(back, np.float32(np.round(image * 255)) / np.float32(255))


def test_the_corners_of_the_colour_cube_are_packed_as_written() -> None:
    corners = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    (packed,) = evaluate(pack_rgb, corners[:, :, None, None])
    np.testing.assert_array_equal(packed[:, 0], [0, 255, 255 * 256, 255 * 65_536, 2**24 - 1])


def test_what_nothing_was_packed_to_is_still_a_colour() -> None:
    odd = np.float32([[-1.0, 2.0**30, 0.5, 3e38], [-3e38, 1e9, 2.0**24, 255.5]])
    (image,) = evaluate(lambda op, x: unpack_rgb(op, x, 2), odd)
    assert (image >= 0).all()
    assert (image <= 1).all()


def test_levels_out_of_range_are_clipped() -> None:
    (packed,) = evaluate(pack_rgb, np.float32([-0.2, 1.2, 0.5])[None, :, None, None])
    np.testing.assert_array_equal(packed, [[255 * 256 + 128 * 65_536]])


def fed_to_network(model: onnx.ModelProto) -> str:
    """The value that the unpacked picture has in a served swapper."""
    (divided,) = [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Div" and node.name.startswith("preprocess/")
        and any("source" in name for name in ancestors(model, node.input[0]))
    ]  # fmt: skip
    return str(divided)


def ancestors(model: onnx.ModelProto, name: str) -> set[str]:
    makers = {value: node for node in model.graph.node for value in node.output}
    found, open_names = set(), [name]
    while open_names:
        value = open_names.pop()
        found.add(value)
        if value in makers:
            open_names += [i for i in makers[value].input if i not in found]
    return found


def test_a_graph_typed_in_half_precision_unpacks_every_bit() -> None:
    row = SWAPPERS["blendswap_256"]
    typed = to_fp16(face_swapper.build(row, swapper_network(row.name), skip_empty=False))
    unpacked = fed_to_network(typed)
    typed.graph.output.append(onnx.helper.make_tensor_value_info(unpacked, 1, None))
    source = source_vectors(row, 2, seed=3)
    feeds = {
        **places(1, 2),
        "crops": np.full((1, 2, 3, 256, 256), 0.5, np.float32),
        "source": source[None],
        "faces": np.ones((1, 16, 15), np.float32),
    }
    (image,) = open_session(typed).run([unpacked], feeds)
    expected = [swapping.unpack(vector, row.source_size or 0) for vector in source]
    # 1e-7 of float32's own rounding; a level is 4e-3.
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-7)
