"""Two steps, `find` and `swap_found`: what is sent, what is given back, and where frames lie."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import grpc
import numpy as np
import pytest
from fake_server import POINTS, VIEWS, Behavior, FakeServer
from frameswap import (
    BadFaces,
    BadOptions,
    ContractMismatch,
    FaceOrder,
    FaceSwapper,
    FoundFrame,
    Placement,
    RequestRejected,
    Source,
    SwapOptions,
    SwappedFrame,
    Verdict,
)

SOURCE = Source(
    np.ones(4, np.float32), "identity", "fake_identity", np.zeros((0, 15), np.float32)
)


@pytest.fixture(params=["grpc", "system"])
def swapper(server: FakeServer, request: pytest.FixtureRequest) -> Iterator[FaceSwapper]:
    with FaceSwapper(
        server.address, in_flight=3, timeout_s=20, transport=request.param, reconnect_s=0
    ) as connected:
        yield connected


def frame_of(value: int, pixel: str = "i420") -> np.ndarray:
    return np.full((72, 64) if pixel == "i420" else (48, 64, 3), value, np.uint8)


def frames(count: int) -> Iterator[np.ndarray]:
    return (frame_of(value) for value in range(count))


def place_all(found: Iterable[FoundFrame]) -> Iterator[Placement]:
    for each in found:
        yield Placement(each.found.faces, SOURCE, each.found.landmarks)


@pytest.mark.parametrize("pixel", ["i420", "bgr"])
@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_faces_are_found_with_landmarks_and_pose(pixel: str, max_batch_size: int) -> None:
    behavior = Behavior(max_batch_size=max_batch_size, faces=5)
    with FakeServer(behavior) as server, FaceSwapper(server.address) as swapper:
        found = swapper.find(frame_of(7, pixel), SwapOptions(face_order=FaceOrder.BEST_FIRST))
        assert server.received[-1]["options"].reshape(-1)[0] == FaceOrder.BEST_FIRST
    assert found.faces.shape == (5, 15)
    assert found.landmarks.shape == (5, POINTS, 3)
    np.testing.assert_array_equal(found.landmarks[:, 0, 0], [7, 1, 1, 1, 0])
    np.testing.assert_array_equal(found.pose[:, 0], [3.5, 0.5, 0.5, 0.5, 0])


def test_no_face_found_is_no_rows(server: FakeServer, swapper: FaceSwapper) -> None:
    server.behavior.faces = 0
    found = swapper.find(frame_of(7))
    assert found.faces.shape == (0, 15)
    assert found.landmarks.shape == (0, POINTS, 3)
    assert found.pose.shape == (0, 3)


def test_known_faces_are_sent_row_by_row_with_their_sources(
    server: FakeServer, swapper: FaceSwapper
) -> None:
    faces = np.zeros((3, 15), np.float32)
    faces[[0, 2]] = np.arange(15) / 15 + 0.1
    landmarks = np.random.default_rng(1).random((3, POINTS, 3), np.float32)
    other = Source(np.full(4, 2, np.float32), "identity", "fake_identity", faces)
    frame = frame_of(9)
    swapped = swapper.swap_found(frame, [SOURCE, other, SOURCE], faces, landmarks)
    received = {name: array[0] for name, array in server.received[-1].items()}
    np.testing.assert_array_equal(received["faces"][:3], faces)
    assert not received["faces"][3:].any()
    np.testing.assert_array_equal(received["landmarks"][:3], landmarks)
    # Three persons are four slots, the last of them empty.
    np.testing.assert_array_equal(received["source"][:, 0], [1, 2, 1, 0])
    np.testing.assert_array_equal(swapped.frame, 255 - frame)
    np.testing.assert_array_equal(swapped.faces, faces[[0, 2]])
    assert swapped.verdicts == (Verdict.SWAPPED, Verdict.SWAPPED)
    assert swapped.original is frame


def test_no_landmarks_are_rows_of_zeros(server: FakeServer, swapper: FaceSwapper) -> None:
    swapper.swap_found(frame_of(9), SOURCE, np.full((1, 15), 0.5, np.float32))
    sent = server.received[-1]["landmarks"]
    assert sent.shape == (1, VIEWS, POINTS, 3)
    assert not sent.any()


@pytest.mark.parametrize(
    ("faces", "landmarks", "text"),
    [
        (np.zeros((17, 15)), None, r"at most 16 rows of 15 numbers, not \(17, 15\)"),
        (np.zeros((1, 4)), None, r"not \(1, 4\)"),
        (np.zeros((1, 15)), np.zeros((1, 5, 3)), rf"a row of {POINTS} points x, y, z .*\(1, 5"),
        (np.zeros((5, 15)), np.ones((5, POINTS, 3)), f"landmarks of the first {VIEWS} rows"),
    ],
)
def test_what_is_no_faces_is_refused(
    swapper: FaceSwapper, faces: np.ndarray, landmarks: np.ndarray | None, text: str
) -> None:
    with pytest.raises(BadFaces, match=text):
        swapper.swap_found(frame_of(1), SOURCE, faces, landmarks)


def test_a_stream_finds_plans_and_swaps_in_order(server: FakeServer, swapper: FaceSwapper) -> None:
    server.behavior.fail = lambda value, _: time.sleep(0.02 if value % 3 == 0 else 0.0)
    done = list(swapper.stream_found(frames(20), place_all))
    assert [255 - int(each.frame[0, 0]) for each in done] == list(range(20))
    assert [int(each.faces[0, 0]) for each in done] == list(range(20))
    assert server.requests == 40


def test_both_requests_of_a_frame_name_one_region_where_memory_is_shared(
    server: FakeServer,
) -> None:
    with FaceSwapper(server.address, in_flight=3, transport="system") as swapper:
        list(swapper.stream_found(frames(12), place_all))
        assert len(server.regions) <= 9
    finds, swaps = (
        sorted(place for model, *place in server.places if model == f"{step}_i420")
        for step in ("find_faces", "swap_found_faces")
    )
    assert len(finds) == 12
    assert finds == swaps
    assert all(region for region, _ in finds)
    assert server.regions == {}


def test_a_frame_is_copied_once_where_memory_is_shared(server: FakeServer) -> None:
    class Counted:
        shape = (72, 64)
        copies = 0

        def copy_to(self, out: np.ndarray) -> None:
            self.copies += 1
            out[...] = 5

    with FaceSwapper(server.address, transport="system") as swapper:
        frame = Counted()
        (swapped,) = swapper.stream_found([frame], place_all)
        assert frame.copies == 1
        np.testing.assert_array_equal(swapped.frame, 250)
        list(swapper.find_stream([frame]))
        assert frame.copies == 2


def test_finding_runs_ahead_no_farther_than_was_said(
    server: FakeServer, swapper: FaceSwapper
) -> None:
    taken = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal taken
        for value in range(30):
            taken += 1
            yield frame_of(value)

    for done, _ in enumerate(swapper.stream_found(counted(), place_all, ahead=2)):
        # Two looked at, one at the plan, three being swapped, one in hand.
        assert taken <= done + 2 + 1 + 3 + 1


def test_a_plan_may_look_ahead_and_not_too_far(swapper: FaceSwapper) -> None:
    def look_ahead(found: Iterator[FoundFrame]) -> Iterator[Placement]:
        first = next(found)
        for second in found:
            yield Placement(first.found.faces, SOURCE)
            first = second
        yield Placement(first.found.faces, SOURCE)

    assert len(list(swapper.stream_found(frames(7), look_ahead, ahead=2))) == 7
    with pytest.raises(BadOptions, match="reads more than 1 frames ahead"):
        list(swapper.stream_found(frames(7), look_ahead, ahead=1))


def test_a_plan_owes_one_placement_a_frame(swapper: FaceSwapper) -> None:
    def lazy(found: Iterator[FoundFrame]) -> Iterator[Placement]:
        yield Placement(next(found).found.faces, SOURCE)

    def eager(found: Iterator[FoundFrame]) -> Iterator[Placement]:
        yield Placement(np.zeros((1, 15), np.float32), SOURCE)

    done = swapper.stream_found(frames(3), lazy)
    next(done)
    with pytest.raises(BadOptions, match="the plan ended before the frames"):
        next(done)
    with pytest.raises(BadOptions, match="without reading a frame"):
        list(swapper.stream_found(frames(3), eager))


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_comes_in_its_frames_place(
    server: FakeServer, swapper: FaceSwapper, step: int
) -> None:
    steps = iter(range(2))

    def refuse(value: int, context: grpc.ServicerContext) -> None:
        if value == 5 and next(steps) == step:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    def value(swapped: SwappedFrame) -> int:
        done.append(255 - int(swapped.frame[0, 0]))
        return done[-1]

    server.behavior.fail = refuse
    done: list[int] = []
    with pytest.raises(RequestRejected):
        list(map(value, swapper.stream_found(frames(9), place_all)))
    assert done == [0, 1, 2, 3, 4]


def test_a_stream_that_is_left_gives_its_memory_back(server: FakeServer) -> None:
    with FaceSwapper(server.address, in_flight=2, transport="system") as swapper:
        stream = swapper.stream_found(frames(30), place_all)
        next(stream)
        stream.close()
        list(swapper.stream_found(frames(30), place_all))
        assert len(server.regions) <= 6
    assert server.regions == {}


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_server_that_restarts_between_the_steps_loses_no_frame(transport: str) -> None:
    with (
        FakeServer() as server,
        FaceSwapper(
            server.address, in_flight=3, transport=transport, reconnect_s=30, timeout_s=10
        ) as swapper,
    ):
        done = []
        for each in swapper.stream_found(frames(12), place_all):
            done.append(255 - int(each.frame[0, 0]))
            if len(done) == 4:
                port = server.port
                server.stop()
                server.start(port)
        assert done == list(range(12))


def test_a_server_that_loads_one_step_only_says_what_it_lacks() -> None:
    models = ("swap_faces_i420", "encode_source_bgr")
    with FakeServer(Behavior(models=models)) as server, FaceSwapper(server.address) as swapper:
        swapper.check_model("i420")
        with pytest.raises(ContractMismatch, match="has no model find_faces_i420: load it there"):
            swapper.check_model("i420", found=True)
        with pytest.raises(ContractMismatch, match="has no model swap_found_faces_i420"):
            swapper.swap_found(frame_of(1), SOURCE, np.zeros((1, 15), np.float32))
