"""The client against the real server, through an ensemble whose models only copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from frameswap import (
    ContractMismatch,
    FaceSwapper,
    RequestRejected,
    Source,
    SwapOptions,
)
from frameswap.shared_memory import FOLDER

from bench.copy_repository import write_copy_repository
from server.launcher import EmbeddedServer

COMMITTED = Path(__file__).resolve().parents[2] / "model_repository"
SOURCE = Source(
    np.ones(512, np.float32), "identity", "inswapper_128", np.zeros((0, 15), np.float32)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("copies")
    write_copy_repository(folder, COMMITTED)
    with EmbeddedServer(folder, models=["swap_faces_i420"]) as running:
        yield running


def frames(count: int, rows: int = 96) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (count, rows, 64), np.uint8)


def registered(server: EmbeddedServer) -> set[str]:
    """Names of the regions that the server has mapped."""
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    try:
        return set(client.get_system_shared_memory_status().regions)
    finally:
        client.close()


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_every_frame_comes_back_as_it_was_sent_in_order(
    server: EmbeddedServer, transport: str
) -> None:
    sent = frames(40)
    with FaceSwapper(server.grpc_url, transport=transport) as swapper:
        assert swapper.transport == transport
        swapped = [each.frame for each in swapper.stream(sent, SOURCE)]
    np.testing.assert_array_equal(swapped, sent)


def test_frames_of_several_sizes_and_numbers_of_sources_share_one_connection(
    server: EmbeddedServer,
) -> None:
    with FaceSwapper(server.grpc_url, transport="system") as swapper:
        for rows, faces in ((96, 1), (144, 3), (96, 16), (240, 2)):
            sent = frames(10, rows)
            swapped = [each.frame for each in swapper.stream(sent, [SOURCE] * faces)]
            np.testing.assert_array_equal(swapped, sent)


def test_the_server_forgets_every_region(server: EmbeddedServer) -> None:
    before = registered(server)
    with FaceSwapper(server.grpc_url, transport="system", in_flight=3) as swapper:
        for swapped in swapper.stream(frames(9), SOURCE):
            del swapped
        # One in flight each; a result that is looked at may keep one more.
        assert 3 <= len(registered(server) - before) <= 4
    assert registered(server) == before


@pytest.mark.e2e
@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_server_that_restarts_in_mid_stream_loses_and_doubles_no_frame(
    server: EmbeddedServer, transport: str
) -> None:
    sent = frames(30)
    swapped = []
    with FaceSwapper(
        server.grpc_url, transport=transport, in_flight=4, reconnect_s=60, timeout_s=20
    ) as swapper:
        for each in swapper.stream(sent, SOURCE):
            swapped.append(each.frame)
            if len(swapped) == 10:
                server.restart()
    np.testing.assert_array_equal(swapped, sent)
    assert registered(server) == set()


def test_what_the_server_refuses_comes_with_its_own_sentence(server: EmbeddedServer) -> None:
    class Unchecked(SwapOptions):
        def to_tensor(self) -> np.ndarray:
            return np.float32([99, *[0] * 15])

    with (
        FaceSwapper(server.grpc_url) as swapper,
        pytest.raises(RequestRejected, match=r"refused the request while swapping.*face_order"),
    ):
        swapper.swap(frames(1)[0], SOURCE, Unchecked())


def test_a_model_that_was_not_loaded_is_named(server: EmbeddedServer) -> None:
    with FaceSwapper(server.grpc_url) as swapper:
        with pytest.raises(ContractMismatch, match="has no model encode_source_bgr"):
            swapper.encode_source(np.zeros((64, 64, 3), np.uint8))
        with pytest.raises(ContractMismatch, match="has no model swap_faces_bgr"):
            swapper.check_model("bgr")


def test_a_refusal_through_shared_memory_gives_its_slot_back(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Below the models' bounds, as a client sends it that pads nothing: the slot must come back.
    with FaceSwapper(server.grpc_url, transport="system", in_flight=1) as swapper:
        with monkeypatch.context() as patched:
            patched.setattr("frameswap.padding.MIN_SIDE", 0)
            with pytest.raises(RequestRejected, match="refused the request"):
                swapper.swap(np.zeros((24, 16), np.uint8), SOURCE)
        sent = frames(1)[0]
        np.testing.assert_array_equal(swapper.swap(sent, SOURCE).frame, sent)
        assert len(list(FOLDER.glob("frameswap-client-*"))) >= 1
