"""The library against a server that keeps to the contract, and against ones that do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from fake_server import Behavior, FakeServer, sleep_s
from frameswap import (
    BadFrame,
    BadOptions,
    BadSource,
    ContractMismatch,
    FaceOrder,
    FaceSwapper,
    NoFaceFound,
    RequestRejected,
    ServerFault,
    ServerNotReady,
    ServerTimeout,
    ServerUnreachable,
    SeveralFacesFound,
    Source,
    SwapOptions,
    SwappedFrame,
    average_sources,
)

PHOTO = np.full((48, 64, 3), (10, 20, 30), np.uint8)


def make_frame(value: int, pixel: str = "i420") -> np.ndarray:
    shape = (72, 64) if pixel == "i420" else (48, 64, 3)
    return np.full(shape, value, np.uint8)


@pytest.fixture(params=["grpc", "system"])
def swapper(server: FakeServer, request: pytest.FixtureRequest):
    """Every test that takes it runs over both transports."""
    with FaceSwapper(
        server.address, in_flight=4, timeout_s=20, transport=request.param, reconnect_s=0
    ) as connected:
        assert connected.transport == request.param
        yield connected


@pytest.fixture
def source(swapper: FaceSwapper) -> Source:
    return swapper.encode_source(PHOTO)


@pytest.mark.parametrize("pixel", ["i420", "bgr"])
@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_a_frame_comes_back_swapped_in_its_own_shape(pixel: str, max_batch_size: int) -> None:
    with (
        FakeServer(Behavior(max_batch_size=max_batch_size)) as server,
        FaceSwapper(server.address) as swapper,
    ):
        frame = make_frame(7, pixel)
        swapped = swapper.swap(frame, swapper.encode_source(PHOTO))
        np.testing.assert_array_equal(swapped.frame, 255 - frame)
        assert swapped.faces.shape == (1, 15)
        assert swapped.faces[0, 0] == 7
        assert swapped.original is frame


def test_the_server_gets_source_and_options_as_they_were_given(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    options = SwapOptions(face_order=FaceOrder.BEST_FIRST, score_threshold=0.25)
    swapper.swap(make_frame(1), [source, source], options)
    received = server.received[-1]
    np.testing.assert_array_equal(received["source"], np.stack([source.vector] * 2)[None])
    np.testing.assert_array_equal(received["options"], np.float32([[6, 0, 0, 0, 0.25, *[0] * 11]]))


def test_the_returned_frame_belongs_to_the_caller(swapper: FaceSwapper, source: Source) -> None:
    swapped = swapper.swap(make_frame(7), source)
    swapped.frame[:] = 0
    assert swapped.frame.flags.owndata


def test_results_are_in_order_when_answers_are_not(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    server.behavior.fail = lambda value, _: time.sleep(0.05 if value % 3 == 0 else 0.0)
    frames = (make_frame(value) for value in range(20))
    first_bytes = [int(swapped.frame[0, 0]) for swapped in swapper.stream(frames, source)]
    assert first_bytes == [255 - value for value in range(20)]


def test_no_more_than_the_window_is_taken_or_sent(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    taken = 0

    def frames():
        nonlocal taken
        for value in range(12):
            taken += 1
            yield make_frame(value)

    server.behavior.fail = sleep_s(0.01)
    for done, _ in enumerate(swapper.stream(frames(), source)):
        assert taken <= done + 4
    assert server.most_running <= 4


def collect(stream: Iterator[SwappedFrame], done: list[int]) -> None:
    """Read a stream to its end, or to its error; `done` gets the frames' values."""
    for swapped in stream:
        done.append(255 - int(swapped.frame[0, 0]))


def test_an_error_of_one_frame_comes_after_the_frames_before_it(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    def fail(value: int, context: grpc.ServicerContext) -> None:
        if value == 3:
            context.abort(grpc.StatusCode.INTERNAL, "CUDA error: out of memory")
        time.sleep(0.02)

    server.behavior.fail = fail
    done: list[int] = []
    with pytest.raises(ServerFault, match=r"failed while swapping a frame.*out of memory"):
        collect(swapper.stream((make_frame(v) for v in range(9)), source), done)
    assert done == [0, 1, 2]


def test_an_error_of_the_frames_themselves_comes_in_its_place(
    swapper: FaceSwapper, source: Source
) -> None:
    def frames():
        yield make_frame(1)
        yield make_frame(2)
        raise OSError("the camera was unplugged")

    done: list[int] = []
    with pytest.raises(OSError, match="the camera was unplugged"):
        collect(swapper.stream(frames(), source), done)
    assert done == [1, 2]


def test_a_bad_frame_in_a_stream_comes_in_its_place(swapper: FaceSwapper, source: Source) -> None:
    frames = [make_frame(1), np.zeros((7, 7), np.uint8)]
    stream = swapper.stream(frames, source)
    assert next(stream).frame[0, 0] == 254
    with pytest.raises(BadFrame, match="H and W even"):
        next(stream)


def test_closing_a_stream_early_cancels_what_is_under_way(server: FakeServer) -> None:
    # Over gRPC: in shared memory a cancelled request may still write, so it is awaited there.
    with FaceSwapper(server.address, in_flight=4, transport="grpc") as swapper:
        _close_early(server, swapper)


def _close_early(server: FakeServer, swapper: FaceSwapper) -> None:
    source = swapper.encode_source(PHOTO)
    waiting, cancelled = threading.Semaphore(0), threading.Semaphore(0)

    def fail(value: int, context: grpc.ServicerContext) -> None:
        if value > 0:
            waiting.release()
            while context.is_active():
                time.sleep(0.005)
            cancelled.release()

    server.behavior.fail = fail
    stream = swapper.stream((make_frame(v) for v in range(99)), source)
    next(stream)
    for _ in range(3):
        assert waiting.acquire(timeout=10)
    stream.close()
    for _ in range(3):
        assert cancelled.acquire(timeout=10)


def test_an_empty_stream_ends_at_once(swapper: FaceSwapper, source: Source) -> None:
    assert list(swapper.stream([], source)) == []


@pytest.mark.parametrize("output", ["swapped_frame", "faces"])
def test_a_missing_output_is_named(
    server: FakeServer, swapper: FaceSwapper, source: Source, output: str
) -> None:
    server.behavior.missing_output = output
    with pytest.raises(ServerFault, match=f"did not return the output {output}"):
        swapper.swap(make_frame(1), source)


def test_faces_of_nan_mean_options_that_the_server_does_not_know(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    server.behavior.nan_faces = True
    with pytest.raises(BadOptions, match="could not use the options"):
        swapper.swap(make_frame(1), source)


def test_a_server_that_dies_in_mid_stream_is_unreachable(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    stream = swapper.stream((make_frame(v) for v in range(50)), source)
    next(stream)
    server.stop()
    with pytest.raises(
        ServerUnreachable, match="cannot be reached, or shut down, while swapping a frame"
    ):
        list(stream)


def test_a_server_that_comes_back_loses_and_doubles_no_frame() -> None:
    with (
        FakeServer() as server,
        FaceSwapper(server.address, in_flight=4, reconnect_s=20) as swapper,
    ):
        source = swapper.encode_source(PHOTO)
        done = []
        for swapped in swapper.stream((make_frame(v) for v in range(30)), source):
            done.append(255 - int(swapped.frame[0, 0]))
            if len(done) == 10:
                port = server.port
                server.stop()
                threading.Timer(0.5, server.start, [port]).start()
        assert done == list(range(30))


def test_a_model_that_is_away_for_a_while_is_waited_for(server: FakeServer) -> None:
    failures = 3

    def fail(value: int, context: grpc.ServicerContext) -> None:
        nonlocal failures
        if value == 2 and failures:
            failures -= 1
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                "Request for unknown model: 'x' has no available versions",
            )

    with FaceSwapper(server.address, in_flight=4, reconnect_s=20) as swapper:
        source = swapper.encode_source(PHOTO)
        server.behavior.fail = fail
        done: list[int] = []
        collect(swapper.stream((make_frame(v) for v in range(8)), source), done)
        assert done == list(range(8))
        assert failures == 0


@pytest.mark.parametrize(
    "text", ["Stub process 'x' is not healthy.", "unknown model: 'x' has no available versions"]
)
def test_a_model_that_stays_away_is_given_up_in_time(server: FakeServer, text: str) -> None:
    with FaceSwapper(server.address, reconnect_s=0.5) as swapper:
        source = swapper.encode_source(PHOTO)
        server.behavior.fail = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, text)
        started_s = time.monotonic()
        with pytest.raises(ServerNotReady, match="went away while swapping a frame"):
            swapper.swap(make_frame(1), source)
        assert 0.5 <= time.monotonic() - started_s < 10


def test_a_slow_server_runs_into_the_time_limit(server: FakeServer) -> None:
    with FaceSwapper(server.address, timeout_s=0.3, reconnect_s=0) as swapper:
        source = swapper.encode_source(PHOTO)
        server.behavior.fail = sleep_s(1.0)
        with pytest.raises(ServerTimeout, match=r"did not answer within 0.3 s.*--timeout-s"):
            swapper.swap(make_frame(1), source)


def test_nobody_at_the_address_is_said() -> None:
    with pytest.raises(ServerUnreachable, match=r"at 127\.0\.0\.1:1 cannot be reached"):
        FaceSwapper("127.0.0.1:1", timeout_s=5)


@pytest.mark.parametrize(
    "address", ["localhost", "http://localhost:8001", "host:port", ":8001", ""]
)
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(ServerUnreachable, match="HOST:PORT of its gRPC endpoint"):
        FaceSwapper(address)


def test_an_http_port_is_recognised() -> None:
    import http.server

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as web:
        threading.Thread(target=web.serve_forever).start()
        try:
            with pytest.raises(ServerUnreachable, match="not its HTTP port"):
                FaceSwapper(f"127.0.0.1:{web.server_address[1]}", timeout_s=3)
        finally:
            web.shutdown()


def test_a_server_that_is_not_ready_is_said() -> None:
    with (
        FakeServer(Behavior(ready=False)) as server,
        pytest.raises(ServerNotReady, match="up but not ready"),
    ):
        FaceSwapper(server.address)


def test_a_model_that_is_not_ready_is_named() -> None:
    with (
        FakeServer(Behavior(models_ready=False)) as server,
        pytest.raises(ServerNotReady, match="has the model encode_source_bgr but it is not"),
    ):
        FaceSwapper(server.address)


def test_a_server_without_our_models_is_said() -> None:
    with (
        FakeServer(Behavior(models=("resnet50",))) as server,
        pytest.raises(ContractMismatch, match="has none of the models encode_source_bgr"),
    ):
        FaceSwapper(server.address)


def test_a_server_without_the_model_that_is_needed_is_said(source: Source) -> None:
    with (
        FakeServer(Behavior(models=("swap_faces_bgr",))) as server,
        FaceSwapper(server.address) as swapper,
        pytest.raises(ContractMismatch, match="has no model swap_faces_i420"),
    ):
        swapper.swap(make_frame(1), source)


@pytest.mark.parametrize(
    ("version", "older"),
    [
        ("0", "server is older than the client"),
        ("1", "server is older than the client"),
        ("3", "client is older"),
    ],
)
def test_another_contract_version_says_which_side_is_older(version: str, older: str) -> None:
    with (
        FakeServer(Behavior(contract_version=version)) as server,
        pytest.raises(ContractMismatch, match=older),
    ):
        FaceSwapper(server.address)


def test_models_without_a_version_or_kind_are_refused() -> None:
    with (
        FakeServer(Behavior(contract_version="")) as server,
        pytest.raises(ContractMismatch, match="states no contract version"),
    ):
        FaceSwapper(server.address)
    with (
        FakeServer(Behavior(source_kind="")) as server,
        pytest.raises(ContractMismatch, match="does not say its swapper and source kind"),
    ):
        FaceSwapper(server.address)


def test_a_source_photo_without_a_face_says_what_helps(
    server: FakeServer, swapper: FaceSwapper
) -> None:
    server.behavior.faces = 0
    with pytest.raises(NoFaceFound, match="--score-threshold"):
        swapper.encode_source(PHOTO)


def test_a_source_photo_with_two_faces_says_what_helps(
    server: FakeServer, swapper: FaceSwapper
) -> None:
    server.behavior.faces = 2
    with pytest.raises(SeveralFacesFound, match=r"2 faces.*--source-face"):
        swapper.encode_source(PHOTO)
    chosen = swapper.encode_source(PHOTO, face=FaceOrder.LEFT_TO_RIGHT)
    assert len(chosen.faces) == 2
    assert server.received[-1]["options"][0, 0] == 2


def test_a_large_source_photo_is_scaled_to_the_servers_limit() -> None:
    limits = {"max_height": "100", "max_width": "100"}
    with FakeServer(Behavior(parameters=limits)) as server, FaceSwapper(server.address) as swapper:
        source = swapper.encode_source(np.full((300, 200, 3), 9, np.uint8))
    assert server.received[-1]["frame"].shape == (1, 100, 66, 3)
    # Coordinates are those of the photo that was given: x1 is the first byte, times 3.
    assert source.faces[0, 0] == 27
    assert source.faces[0, 4] == np.float32(0.9)


def test_a_frame_beyond_the_servers_limit_is_not_sent(source: Source) -> None:
    limits = {"max_height": "40", "max_width": "100"}
    with (
        FakeServer(Behavior(parameters=limits)) as server,
        FaceSwapper(server.address) as swapper,
        pytest.raises(BadFrame, match="at most 100 x 40 pixels on this server, not 64 x"),
    ):
        swapper.swap(make_frame(1), source)
    assert server.requests == 0


def test_photos_of_one_person_are_averaged_to_a_vector_of_the_same_length(
    swapper: FaceSwapper,
) -> None:
    photos = [PHOTO, np.full_like(PHOTO, 200)]
    sources = [swapper.encode_source(photo) for photo in photos]
    mean = sources[0].vector + sources[1].vector
    expected = mean / np.linalg.norm(mean)
    # float32 rounding of numbers below 1.
    np.testing.assert_allclose(average_sources(sources).vector, expected, atol=1e-6)
    assert average_sources(sources[:1]) is sources[0]


def test_averages_that_make_no_sense_are_refused(source: Source) -> None:
    image = Source(source.vector, "image", "image_swapper_256", source.faces)
    with pytest.raises(BadSource, match="image_swapper_256 takes one photo, not 2"):
        average_sources([image, image])
    other = Source(source.vector, "identity", "other", source.faces)
    with pytest.raises(BadSource, match=r"different swappers.*fake_identity, other"):
        average_sources([source, other])
    opposite = Source(-source.vector, "identity", source.swapper, source.faces)
    with pytest.raises(BadSource, match="cancel each other out"):
        average_sources([source, opposite])
    with pytest.raises(BadSource, match="at least one source"):
        average_sources([])


def test_sources_that_do_not_fit_are_refused(swapper: FaceSwapper, source: Source) -> None:
    def variant(vector: np.ndarray, swapper_name: str = source.swapper) -> Source:
        return Source(vector.astype(np.float32), "identity", swapper_name, source.faces)

    frame = make_frame(1)
    with pytest.raises(BadSource, match="1 to 4 sources on this server, one a face, not 5"):
        swapper.swap(frame, [source] * 5)
    with pytest.raises(BadSource, match="1 to 4 sources on this server, one a face, not 0"):
        swapper.swap(frame, [])
    with pytest.raises(BadSource, match="encoded for the swapper other, but the server has"):
        swapper.swap(frame, variant(source.vector, "other"))
    with pytest.raises(BadSource, match=r"a vector of 4 numbers, not \(5,\)"):
        swapper.swap(frame, variant(np.zeros(5)))
    with pytest.raises(BadSource, match="not finite"):
        swapper.swap(frame, variant(np.array([1, 2, np.nan, 4])))


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (np.zeros((48, 64, 3), np.float32), "must be uint8, 0 to 255, not float32"),
        (np.zeros((48, 64, 4), np.uint8), r"\(H, W, 3\) for BGR or"),
        (np.zeros((0, 64, 3), np.uint8), "neither of them empty"),
        (np.zeros((72, 63), np.uint8), "H and W even"),
        (np.zeros((71, 64), np.uint8), "H and W even"),
        (np.zeros(64, np.uint8), r"not \(64,\)"),
        ("frame.png", "NumPy array of uint8, not str"),
    ],
)
def test_frames_that_are_none_are_refused(
    swapper: FaceSwapper, source: Source, frame: object, text: str
) -> None:
    with pytest.raises(BadFrame, match=text):
        swapper.swap(frame, source)


def test_a_request_that_the_server_refuses_carries_its_sentence(
    server: FakeServer, swapper: FaceSwapper, source: Source
) -> None:
    server.behavior.fail = lambda _, context: context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, "option 0 (face order) is 9; known are 0 to 7"
    )
    with pytest.raises(RequestRejected, match=r"refused the request.*known are 0 to 7"):
        swapper.swap(make_frame(1), source)


def test_a_frame_that_is_not_contiguous_is_sent_right(swapper: FaceSwapper, source: Source) -> None:
    frame = np.random.default_rng(1).integers(0, 255, (48, 128, 3), np.uint8)[:, ::2, ::-1]
    np.testing.assert_array_equal(swapper.swap(frame, source).frame, 255 - frame)


def test_a_window_of_none_is_refused(server: FakeServer) -> None:
    with pytest.raises(BadOptions, match="in_flight must be at least 1, not 0"):
        FaceSwapper(server.address, in_flight=0)


def test_closing_twice_does_no_harm(server: FakeServer) -> None:
    swapper = FaceSwapper(server.address)
    swapper.close()
    swapper.close()
