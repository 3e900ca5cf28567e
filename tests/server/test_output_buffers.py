"""Every pixel of an answer is written for that answer: no buffer's past shows, no neighbour's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from frameswap.shared_memory import SystemRegion

from graphs.contract import FrameFormat
from server.launcher import EmbeddedServer
from tests.server.asking import Array
from tests.server.shared_regions import (
    RegionAsker,
    Request,
    answers_at_once,
    assert_every_pixel_is_written,
    assert_used_memory_does_not_show,
)
from tests.server.test_ensembles import (  # noqa: F401  (a fixture)
    as_format,
    assert_same_frame,
    options,
    rows,
    sources,
    two_faces,
)


@pytest.fixture
def asker(real_server: EmbeddedServer) -> Iterator[RegionAsker]:
    asker = RegionAsker(real_server.grpc_url, SystemRegion)
    yield asker
    asker.close()


def request_of(frame_format: FrameFormat, bgr: Array, source: Array) -> Request:
    frame = as_format(bgr, frame_format)
    return f"swap_faces_{frame_format}", {"frame": frame, "source": source, "options": options()}


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
@pytest.mark.parametrize("people", [("newton",), ("newton", "gauss", "collins")])
def test_every_pixel_of_the_swapped_frame_is_written(
    asker: RegionAsker,
    sources: dict[str, Array],  # noqa: F811
    frame_format: FrameFormat,
    people: tuple[str, ...],
) -> None:
    request = request_of(frame_format, two_faces(), rows(sources, *people))
    answer = assert_every_pixel_is_written(asker, request)
    assert (answer != request[1]["frame"]).any()


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_every_pixel_of_a_frame_without_a_face_is_written(
    asker: RegionAsker,
    sources: dict[str, Array],  # noqa: F811
    frame_format: FrameFormat,
) -> None:
    request = request_of(
        frame_format, np.full((202, 334, 3), 90, np.uint8), rows(sources, "newton")
    )
    answer = assert_every_pixel_is_written(asker, request)
    np.testing.assert_array_equal(answer, request[1]["frame"])


@pytest.mark.parametrize("frame_format", ["i420", "bgr"])
def test_what_a_buffer_held_before_shows_in_no_answer(
    asker: RegionAsker,
    sources: dict[str, Array],  # noqa: F811
    frame_format: FrameFormat,
) -> None:
    bgr = two_faces(346, 622)
    first = request_of(frame_format, bgr, rows(sources, "newton"))
    second = request_of(frame_format, 255 - bgr[:, ::-1], rows(sources, "gauss"))
    assert_used_memory_does_not_show(asker, first, second)


def test_threads_with_their_own_sizes_sources_and_regions_stay_apart(
    real_server: EmbeddedServer,
    asker: RegionAsker,
    sources: dict[str, Array],  # noqa: F811
) -> None:
    requests = [
        request_of("i420", two_faces(240, 320), rows(sources, "newton")),
        request_of("bgr", two_faces(240, 320), rows(sources, "gauss", "collins")),
        request_of("i420", two_faces(258, 400), rows(sources, "collins")),
        request_of("i420", two_faces(240, 320), rows(sources, "collins")),
    ]
    serial = [asker.ask(request) for request in requests]
    assert (serial[0] != serial[3]).any()
    together = answers_at_once(real_server.grpc_url, SystemRegion, requests, rounds=3)
    for expected, answers in zip(serial, together, strict=True):
        for answer in answers:
            # Faces that share a run of the swapper are summed in another order.
            assert_same_frame(answer, expected)
