"""Shared memory between client and server: private, used again, and always given back."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from fake_server import Behavior, FakeServer
from frameswap import (
    ContractMismatch,
    FaceSwapper,
    ServerFault,
    SwapOptions,
    TransportUnavailable,
    shared_memory,
)
from frameswap.frames import Frame
from frameswap.shared_memory import SystemRegion
from frameswap.slots import Layout, Slot, fill
from frameswap.transport import SwapRequest
from shared_frames import OTHER, SOURCE, connect, frames, nothing_is_left, regions  # noqa: F401


def test_auto_takes_shared_memory_on_the_same_machine(server: FakeServer) -> None:
    with FaceSwapper(server.address) as swapper:
        assert swapper.transport == "system"


def test_a_slot_is_registered_once_and_used_again(server: FakeServer) -> None:
    with connect(server) as swapper:
        probes = server.registrations
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(40), SOURCE)]
        assert done == [255 - value for value in range(40)]
        assert server.registrations - probes == 4
        assert len(server.regions) == 4


def test_regions_are_private_and_have_names_nobody_guesses(server: FakeServer) -> None:
    with connect(server) as swapper:
        list(swapper.stream(frames(4), SOURCE))
        paths = regions()
        assert len(paths) == 4
        for path in paths:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            # 128 random bits, and the one server that may map it.
            assert re.fullmatch("[0-9a-f]{32}", path.name.rpartition(".")[2])
            assert shared_memory.server_of(path.name) == server.address
        assert len({path.name.rpartition(".")[2] for path in paths}) == 4
        assert {f"/{path.name}" for path in paths} == {key for key, _ in server.regions.values()}


def test_closing_gives_everything_back(server: FakeServer) -> None:
    with connect(server) as swapper:
        list(swapper.stream(frames(8), SOURCE))
        assert server.regions
    assert server.regions == {}
    assert regions() == []


def test_closing_gives_everything_back_when_the_server_is_gone() -> None:
    with FakeServer() as server, connect(server) as swapper:
        list(swapper.stream(frames(8), SOURCE))
        server.stop()
    assert regions() == []


def test_a_frame_is_copied_once_on_its_way_out_and_not_at_all_back(server: FakeServer) -> None:
    class Counted:
        shape = (96, 64)
        copies = 0

        def copy_to(self, out: np.ndarray) -> None:
            self.copies += 1
            out[...] = 9

    frame = Counted()
    with connect(server) as swapper:
        stream = swapper.stream([frame], SOURCE, reuse_buffers=True)
        swapped = next(stream).frame
        (slot,) = swapper._servers.all[0]._transport._slots
        # Out: one, straight into the region. In: none, this is the region.
        assert frame.copies == 1
        assert np.shares_memory(swapped, slot.region.host)
        assert not swapped.flags.writeable
        assert (swapped == 246).all()
        stream.close()
        second = swapper.swap(frame, SOURCE).frame
        held, other = swapper._servers.all[0]._transport._slots
        assert held is slot
        assert np.shares_memory(second, other.region.host)
        assert second.flags.writeable
        del swapped, second


def test_a_source_is_written_when_it_changes(server: FakeServer) -> None:
    with connect(server, in_flight=1) as swapper:
        for source in (SOURCE, SOURCE, OTHER, SOURCE):
            swapper.swap(next(frames(1)), source)
            np.testing.assert_array_equal(server.received[-1]["source"], source.vector[None, None])
        swapper.swap(next(frames(1)), [OTHER, SOURCE])
        np.testing.assert_array_equal(
            server.received[-1]["source"], np.stack([OTHER.vector, SOURCE.vector])[None]
        )


def test_options_are_sent_as_they_are_each_time(server: FakeServer) -> None:
    with connect(server, in_flight=1) as swapper:
        for options in (SwapOptions(), SwapOptions(score_threshold=0.25), SwapOptions()):
            for _ in range(2):
                list(swapper.stream(frames(2), SOURCE, options))
                sent = server.received[-1]["options"]
                np.testing.assert_array_equal(sent, options.to_tensor()[None])


def test_a_source_that_a_frame_was_written_over_is_written_again() -> None:
    class Torn:
        shape = (192, 64)

        def copy_to(self, out: np.ndarray) -> None:
            out[...] = 255
            raise ValueError("the frame is torn")

    def write(frame: Frame, source: np.ndarray) -> None:
        request = SwapRequest("m", frame, options, ("swapped_frame",), batched=True, source=source)
        fill(slot, request, Layout(request), holds_frame=False)

    options = np.zeros(16, np.float32)
    # Two small frames, a page each, and a long source: a larger frame reaches where it lies.
    small, long = np.zeros((3, 2), np.uint8), np.arange(1 << 14, dtype=np.float32)[None]
    region = SystemRegion(2 * 4096 + long.nbytes)
    slot = Slot(region)
    write(small, long)
    with pytest.raises(ValueError, match="torn"):
        write(Torn(), SOURCE.vector[None])
    write(small, long)
    np.testing.assert_array_equal(region.host[2 * 4096 :].view(np.float32), long[0])
    region.close()


def test_frames_of_other_sizes_get_room(server: FakeServer) -> None:
    with connect(server, in_flight=2) as swapper:
        for rows in (72, 720, 36, 3600):
            for swapped in swapper.stream(frames(4, rows), SOURCE):
                np.testing.assert_array_equal(swapped.frame, 255 - swapped.original)
        bgr = np.full((48, 64, 3), 5, np.uint8)
        np.testing.assert_array_equal(swapper.swap(bgr, SOURCE).frame, 255 - bgr)
        # Two are under way, and the last result lies in a third.
        assert len(server.regions) == 3


def test_regions_are_registered_again_after_a_restart() -> None:
    with FakeServer() as server:
        with connect(server) as swapper:
            list(swapper.stream(frames(4), SOURCE))
            port = server.port
            server.stop()
            server.start(port)
            assert server.regions == {}
            done = [int(s.frame[0, 0]) for s in swapper.stream(frames(8), SOURCE)]
            assert done == [255 - value for value in range(8)]
            assert len(server.regions) == 4
        assert server.regions == {}


def test_a_server_that_refuses_is_said_once_and_grpc_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "frameswap")
    with (
        FakeServer(Behavior(allow_shared_memory=False)) as server,
        FaceSwapper(server.address) as swapper,
    ):
        list(swapper.stream(frames(4), SOURCE))
        assert swapper.transport == "grpc"
    (message,) = caplog.messages
    assert "frames are sent over gRPC, because the server does not accept system" in message
    assert "--allow-client-shm=true" in message


def test_a_transport_that_is_insisted_on_is_an_error_when_it_cannot_be() -> None:
    with (
        FakeServer(Behavior(allow_shared_memory=False)) as server,
        pytest.raises(TransportUnavailable, match=r"does not accept system shared memory"),
    ):
        connect(server)


def test_another_machine_gets_no_shared_memory(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "frameswap")
    address = f"ipv4:{server.address}"
    with FaceSwapper(address) as swapper:
        assert swapper.transport == "grpc"
    assert "is not a loopback address" in caplog.text
    with pytest.raises(TransportUnavailable, match="is not a loopback address"):
        FaceSwapper(address, transport="system")


@pytest.mark.parametrize("losses", [1, 5])
@pytest.mark.parametrize("transport", ["system", "auto"])
def test_regions_that_a_neighbour_unregistered_are_registered_again(
    server: FakeServer, losses: int, transport: str
) -> None:
    """NVIDIA's examples unregister everybody's regions at their start."""
    left = dict.fromkeys(range(30), losses)

    def lose(value: int, _: object) -> None:
        if left[value]:
            left[value] -= 1
            server.regions.clear()

    with connect(server, transport=transport) as swapper:
        server.behavior.fail = lose
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(30), SOURCE)]
    assert done == [255 - value for value in range(30)]


def test_regions_that_are_lost_time_and_again_end_in_grpc_or_a_sentence(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "frameswap")
    server.behavior.fail = lambda value, _: server.regions.clear()
    with connect(server, transport="auto") as swapper:
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(8), SOURCE)]
        assert swapper.transport == "grpc"
    assert done == [255 - value for value in range(8)]
    assert "some frames are sent over gRPC, because" in caplog.text
    with connect(server) as swapper, pytest.raises(ContractMismatch, match="shared memory region"):
        list(swapper.stream(frames(8), SOURCE))


def fill_up(swapper: FaceSwapper, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shared memory be full after so many slots."""
    left = slots

    def make_region(size: int) -> SystemRegion:
        nonlocal left
        left -= 1
        if left < 0:
            raise TransportUnavailable("shared memory is full")
        return SystemRegion(size)

    monkeypatch.setattr(swapper._servers.all[0]._transport, "_make_region", make_region)


def test_full_shared_memory_sends_the_rest_over_grpc(
    server: FakeServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "frameswap")
    with connect(server, transport="auto") as swapper:
        fill_up(swapper, 2, monkeypatch)
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(20), SOURCE)]
    assert done == [255 - value for value in range(20)]
    assert caplog.messages == ["some frames are sent over gRPC, because shared memory is full"]


def test_full_shared_memory_is_an_error_when_it_is_insisted_on(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server) as swapper:
        fill_up(swapper, 2, monkeypatch)
        with pytest.raises(TransportUnavailable, match="shared memory is full"):
            list(swapper.stream(frames(20), SOURCE))


def test_more_than_there_is_is_refused_and_not_a_crash() -> None:
    # A sparse file would be made, and kill the process when it is written.
    with pytest.raises(TransportUnavailable, match=r"MB are needed and .* MB are free .*--window"):
        SystemRegion(1 << 44)


def test_a_frame_of_another_shape_in_shared_memory_is_a_fault(server: FakeServer) -> None:
    server.behavior.swapped_shape = (1, 64, 96)
    with connect(server) as swapper, pytest.raises(ServerFault, match=r"\(1, 64, 96\) for one of"):
        swapper.swap(next(frames(1)), SOURCE)


def wants(size: int, times: int) -> Callable[[int, grpc.ServicerContext], None]:
    """Fail the 5th frame so often, as Triton does where a region is too small for an output."""
    left = [times]

    def fail(value: int, context: grpc.ServicerContext) -> None:
        if value == 5 and left[0]:
            left[0] -= 1
            context.abort(
                grpc.StatusCode.INTERNAL,
                "shared memory size specified with the request for output 'swapped_frame' (4608 "
                f"bytes) should be at least {size} bytes to hold the results",
            )

    return fail


def test_a_size_that_no_memory_has_is_asked_again_once_and_said(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(server) as swapper:
        server.behavior.fail = wants(0x50 << 56, 1)
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(12), SOURCE)]
    assert done == [255 - value for value in range(12)]
    (record,) = [record for record in caplog.records if record.name == "frameswap"]
    assert "sent once more, because" in record.message
    assert "5764607523034234880 bytes" in record.message


@pytest.mark.parametrize(("size", "times"), [(0x50 << 56, 2), (9216, 1)])
def test_a_size_that_is_named_again_or_can_be_is_the_servers_fault(
    server: FakeServer, size: int, times: int
) -> None:
    with connect(server) as swapper:
        server.behavior.fail = wants(size, times)
        with pytest.raises(ServerFault, match=f"at least {size} bytes"):
            list(swapper.stream(frames(12), SOURCE))
