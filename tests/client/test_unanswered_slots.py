"""Slots of shared memory whose answers come late or never: no other frame is put there."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from fake_server import Behavior, FakeServer, sleep_s
from frameswap import ServerTimeout
from shared_frames import SOURCE, connect, frames, nothing_is_left  # noqa: F401


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
