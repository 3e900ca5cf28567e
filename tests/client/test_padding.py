"""Frames smaller than the models take."""

from __future__ import annotations

import numpy as np
import pytest
from fake_server import FakeServer
from frameswap import FaceSwapper
from frameswap.frames import frame_size
from frameswap.padding import MIN_SIDE

from graphs.contract import MIN_FRAME_SIDE

PHOTO = np.full((64, 64, 3), (10, 20, 30), np.uint8)


def test_the_smallest_side_is_the_graphs() -> None:
    assert MIN_SIDE == MIN_FRAME_SIDE


@pytest.mark.parametrize("shape", [(36 * 3 // 2, 64), (54, 96, 3), (2, 2, 3), (3, 2), (72, 40)])
def test_a_frame_smaller_than_the_models_take_is_padded_and_cut(
    server: FakeServer, shape: tuple[int, ...]
) -> None:
    frame = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    with FaceSwapper(server.address) as swapper:
        swapped = swapper.swap(frame, swapper.encode_source(PHOTO))
    np.testing.assert_array_equal(swapped.frame, 255 - frame)
    sent = server.received[-1]["frame"][0]
    assert min(frame_size(sent).height, frame_size(sent).width) >= 64
    if frame.ndim == 3:
        # The last row and column are repeated.
        np.testing.assert_array_equal(sent[: shape[0], : shape[1]], frame)
        np.testing.assert_array_equal(sent[-1, -1], frame[-1, -1])


def test_a_small_source_photo_is_padded(server: FakeServer) -> None:
    photo = np.random.default_rng(1).integers(0, 255, (40, 30, 3), np.uint8)
    with FaceSwapper(server.address) as swapper:
        swapper.encode_source(photo)
    sent = server.received[-1]["frame"][0]
    assert sent.shape == (64, 64, 3)
    np.testing.assert_array_equal(sent[:40, :30], photo)
