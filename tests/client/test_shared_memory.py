"""Shared memory between client and server: private, used again, and always given back."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from fake_server import Behavior, FakeServer, sleep_s
from frameswap import (
    ContractMismatch,
    FaceSwapper,
    ServerFault,
    ServerTimeout,
    Source,
    SwapOptions,
    TransportUnavailable,
    shared_memory,
)
from frameswap.cuda_memory import CudaDriver, CudaRegion
from frameswap.frames import Frame
from frameswap.shared_memory import FOLDER, SystemRegion, reclaim_leftovers
from frameswap.slots import Layout, Slot, fill
from frameswap.transport import SwapRequest

SOURCE = Source(
    np.float32([1, 2, 3, 4]), "identity", "fake_identity", np.zeros((0, 15), np.float32)
)
OTHER = Source(np.float32([4, 3, 2, 1]), "identity", "fake_identity", SOURCE.faces)


def regions() -> list[Path]:
    return sorted(FOLDER.glob(shared_memory.PREFIX + "*"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names of this test's own, so that clients beside it do not matter; none is left after it."""
    monkeypatch.setattr(shared_memory, "PREFIX", f"frameswap-test-{secrets.token_hex(8)}-")
    yield
    assert regions() == []


def frames(count: int, rows: int = 72) -> Iterator[np.ndarray]:
    for value in range(count):
        yield np.full((rows, 64), value, np.uint8)


def connect(server: FakeServer, **options: object) -> FaceSwapper:
    return FaceSwapper(
        server.address, **{"transport": "system", "in_flight": 4, "timeout_s": 20, **options}
    )


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


def test_what_a_killed_client_left_is_forgotten_by_the_server_that_it_used(
    server: FakeServer,
) -> None:
    """Whichever server the next client is a client of."""
    with FakeServer() as other:
        killed = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.address, shared_memory.PREFIX],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert killed.stdout is not None
        assert killed.stdout.readline() == "ready\n"
        killed.kill()
        killed.wait()
        killed.stdout.close()
        assert len(server.regions) == len(regions()) == 3
        with connect(other):
            assert server.regions == {}
            assert regions() == []


def test_what_was_left_at_a_server_that_is_gone_is_removed(server: FakeServer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        left = FOLDER / shared_memory.name_region(address)
        left.touch(0o600)
        with connect(server):
            assert not left.exists()


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


def test_a_slot_whose_answer_never_came_is_not_used_again(server: FakeServer) -> None:
    with connect(server, in_flight=1, timeout_s=0.5, reconnect_s=0) as swapper:
        server.behavior.fail = lambda value, _: time.sleep(1.5 if value == 1 else 0)
        with pytest.raises(ServerTimeout, match=r"within 0\.5 s"):
            list(swapper.stream(frames(3), SOURCE))
        (doubtful,) = [slot.region.name for slot in swapper._servers.all[0]._transport._slots]
        assert swapper.swap(np.full((72, 64), 7, np.uint8), SOURCE).frame[0, 0] == 248
        assert len(server.regions) == 2
    # Triton before 24.12 would unmap it under the request, so it is left to the server.
    assert list(server.regions) == [doubtful]


def test_slots_that_were_given_up_are_used_again_when_their_answers_have_come(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frameswap.stream.CLOSING_S", 0.1)
    with connect(server, in_flight=4) as swapper:
        for _ in range(3):
            server.behavior.fail = lambda value, _: time.sleep(0.5 if value else 0)
            stream = swapper.stream(frames(5), SOURCE)
            assert next(stream).frame[0, 0] == 255
            stream.close()
            assert len(swapper._servers.all[0]._transport._given_up) == 3
            server.behavior.fail = None
            for pending in swapper._servers.all[0]._transport._given_up:
                assert pending._call.wait(10.0)
        assert [int(s.frame[0, 0]) for s in swapper.stream(frames(8), SOURCE)] == [
            255 - value for value in range(8)
        ]
        assert len(swapper._servers.all[0]._transport._slots) == 4
    assert server.regions == {}


def test_a_slot_that_was_given_up_is_given_back_once_whatever_the_server_does_meanwhile(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice would be two frames in one slot, or a file descriptor closed that is another's."""
    monkeypatch.setattr("frameswap.stream.CLOSING_S", 0.1)
    answer = threading.Event()
    with connect(server, in_flight=4) as swapper:
        server.behavior.fail = lambda value, _: value and answer.wait(20)
        stream = swapper.stream(frames(5), SOURCE)
        assert next(stream).frame[0, 0] == 255
        stream.close()
        transport = swapper._servers.all[0]._transport
        given_up = [pending.slot for pending in transport._given_up]
        assert len(given_up) == 3
        for _ in range(2):
            # As when a server that was lost is found again, with these unanswered.
            transport.renew()
            assert swapper.swap(np.full((72, 64), 0, np.uint8), SOURCE).frame[0, 0] == 255
        assert [pending.slot for pending in transport._given_up] == given_up
        answer.set()
        for pending in transport._given_up:
            assert pending._call.wait(10.0)
        done = [int(s.frame[0, 0]) for s in swapper.stream(frames(8), SOURCE)]
        assert done == [255 - value for value in range(8)]
        transport.renew()
        assert len(transport._slots) == len(transport._free) == 4
        assert len(set(map(id, transport._free))) == 4
    assert server.regions == {}


def test_a_frame_whose_second_sending_was_interrupted_keeps_its_slot(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server may still write to is no other frame's, whichever answer came before."""
    with connect(server, in_flight=1) as swapper:
        assert swapper.swap(np.full((72, 64), 1, np.uint8), SOURCE).frame[0, 0] == 254
        server.regions.clear()  # as after a restart
        send = swapper._servers.all[0].connection.submit

        def interrupted(message: bytes, *, doing: str) -> object:
            call = send(message, doing=doing)
            if server.registrations > registered:
                server.behavior.fail = lambda value, _: time.sleep(0.5 if value == 2 else 0)
                raise KeyboardInterrupt
            return call

        registered = server.registrations
        with monkeypatch.context() as patch:
            patch.setattr(swapper._servers.all[0].connection, "submit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                swapper.swap(np.full((72, 64), 2, np.uint8), SOURCE)
        assert [slot.in_doubt for slot in swapper._servers.all[0]._transport._slots] == [True]
        stream = swapper.stream([np.full((72, 64), 9, np.uint8)], SOURCE, reuse_buffers=True)
        swapped = next(stream)
        deadline = time.monotonic() + 10
        while server.running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert swapped.frame[0, 0] == 246
        stream.close()


def test_every_region_is_given_back_whatever_the_time_limit_of_frames(server: FakeServer) -> None:
    with connect(server, in_flight=8, timeout_s=0.5) as swapper:
        list(swapper.stream(frames(8), SOURCE))
        assert len(server.regions) == 8
        server.behavior.goes_on.clear()
        threading.Timer(0.8, server.behavior.goes_on.set).start()
    assert server.regions == {}


def test_a_newer_server_gets_even_that_slot_back() -> None:
    with FakeServer(Behavior(version="2.53.0")) as server:
        with connect(server, in_flight=1, timeout_s=0.5, reconnect_s=0) as swapper:
            server.behavior.fail = sleep_s(1.0)
            with pytest.raises(ServerTimeout, match=r"within 0\.5 s"):
                swapper.swap(np.zeros((72, 64), np.uint8), SOURCE)
        assert server.regions == {}


def test_only_slots_without_an_answer_are_left_to_an_old_server(server: FakeServer) -> None:
    with connect(server, in_flight=2) as swapper:
        server.behavior.fail = lambda value, _: time.sleep(1.0 if value == 1 else 0.0)
        stream = swapper.stream(frames(5), SOURCE)
        assert next(stream).frame[0, 0] == 255
        # Closed while one result is held, and another request is under way.
    assert len(server.regions) == 1
    stream.close()


def test_closing_a_stream_early_waits_before_its_slots_are_used_again(server: FakeServer) -> None:
    with connect(server) as swapper:
        server.behavior.fail = sleep_s(0.1)
        stream = swapper.stream(frames(50), SOURCE)
        next(stream)
        stream.close()
        assert server.running == 0
        assert swapper.swap(np.full((72, 64), 7, np.uint8), SOURCE).frame[0, 0] == 248


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


KILLED = """
import sys, time
import numpy as np
from frameswap import FaceSwapper, Source, shared_memory
shared_memory.PREFIX = sys.argv[2]
source = Source(np.float32([1, 2, 3, 4]), "identity", "fake_identity", np.zeros((0, 15)))
swapper = FaceSwapper(sys.argv[1], transport="system", in_flight=3)
for _ in swapper.stream([np.zeros((72, 64), np.uint8)] * 3, source):
    pass
print("ready", flush=True)
time.sleep(60)
"""


def test_what_a_killed_client_left_is_reclaimed_and_only_that(server: FakeServer) -> None:
    foreign = FOLDER / f"{shared_memory.PREFIX}not-ours-to-follow"
    foreign.symlink_to("/etc/hostname")
    try:
        with connect(server) as living:
            list(living.stream(frames(4), SOURCE))
            ours = set(regions())
            killed = subprocess.Popen(
                [sys.executable, "-c", KILLED, server.address, shared_memory.PREFIX],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert killed.stdout is not None
            assert killed.stdout.readline() == "ready\n"
            theirs = set(regions()) - ours
            assert len(theirs) == 3
            # While it lives, nobody takes its memory.
            with connect(server):
                assert set(regions()) == ours | theirs
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            killed.stdout.close()
            assert set(regions()) == ours | theirs
            with connect(server):
                assert set(regions()) == ours
                assert {key.strip("/") for key, _ in server.regions.values()} == {
                    path.name for path in ours - {foreign}
                }
            done = [int(s.frame[0, 0]) for s in living.stream(frames(4), SOURCE)]
            assert done == [255, 254, 253, 252]
        assert foreign.is_symlink()
    finally:
        foreign.unlink()


def test_a_leftover_in_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "something-else").touch()
    (tmp_path / f"{shared_memory.PREFIX}dead").touch()
    os.mkfifo(tmp_path / f"{shared_memory.PREFIX}pipe")
    assert reclaim_leftovers(tmp_path) == [f"{shared_memory.PREFIX}dead"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{shared_memory.PREFIX}pipe",
        "something-else",
    ]


class FakeCuda:
    """Stands for libcuda: device memory is host memory; every allocation is counted."""

    def __init__(self, *, refuse: str | None = None) -> None:
        self.refuse = refuse
        self.memory: dict[int, object] = {}
        self.streams = 0
        self.synchronised = 0

    def __getattr__(self, name: str):
        def answer(*arguments: object) -> int:
            return 2 if name == self.refuse else 0

        return answer

    def _allocate(self, pointer: object, size: ctypes.c_size_t) -> int:
        buffer = (ctypes.c_uint8 * size.value)()
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        pointer._obj.value = address
        return 0

    def cuMemAlloc_v2(self, pointer: object, size: ctypes.c_size_t) -> int:
        return 2 if self.refuse == "cuMemAlloc_v2" else self._allocate(pointer, size)

    def cuMemHostAlloc(self, pointer: object, size: ctypes.c_size_t, flags: object) -> int:
        return 2 if self.refuse == "cuMemHostAlloc" else self._allocate(pointer, size)

    def cuStreamCreate(self, stream: object, flags: object) -> int:
        self.streams += 1
        stream._obj.value = 1
        return 0

    def cuStreamDestroy_v2(self, stream: object) -> int:
        self.streams -= 1
        return 0

    def cuMemFree_v2(self, pointer: ctypes.c_uint64) -> int:
        del self.memory[pointer.value]
        return 0

    def cuMemFreeHost(self, pointer: ctypes.c_void_p) -> int:
        del self.memory[pointer.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, device, host, count, stream) -> int:
        ctypes.memmove(device.value, host.value, count.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, host, device, count, stream) -> int:
        ctypes.memmove(host.value, device.value, count.value)
        return 0

    def cuStreamSynchronize(self, stream: object) -> int:
        self.synchronised += 1
        return 0

    def cuGetErrorName(self, code: object, text: object) -> int:
        text._obj.value = b"CUDA_ERROR_OUT_OF_MEMORY"
        return 0


def test_a_cuda_region_moves_the_part_that_is_asked_for_and_frees_all() -> None:
    library = FakeCuda()
    region = CudaRegion(64, CudaDriver(library))
    region.host[:] = np.arange(64)
    region.push(8, 24)
    region.host[:] = 0
    region.pull(0, 64)
    expected = np.zeros(64, np.uint8)
    expected[8:24] = np.arange(8, 24)
    np.testing.assert_array_equal(region.host, expected)
    assert library.synchronised == 2
    region.close()
    assert library.memory == {}
    assert library.streams == 0


@pytest.mark.parametrize("refuse", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_a_full_device_is_said_and_nothing_is_kept(refuse: str) -> None:
    library = FakeCuda(refuse=refuse)
    with pytest.raises(TransportUnavailable, match=f"refused {refuse}.*OUT_OF_MEMORY"):
        CudaRegion(64, CudaDriver(library))
    assert library.memory == {}


def test_a_machine_without_a_driver_is_said(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frameswap import cuda_memory

    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    cuda_memory.load_driver.cache_clear()
    with pytest.raises(TransportUnavailable, match=r"no NVIDIA driver \(libcuda\.so\.1\)"):
        connect(server, transport="cuda")
