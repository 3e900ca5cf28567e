"""Ctrl-C at the worst moments: every time gRPC has just taken one of its locks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from frameswap import interrupts
from frameswap.interrupts import signals_held_back

JOB = """
import signal, sys, threading
import numpy as np
from frameswap import FaceSwapper

address, transport, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
taken = threading.Condition.__enter__.__code__
frames = [np.zeros((24, 16), np.uint8)] * 8


def work(interrupt_at):
    "One job; how often gRPC, in this thread, took a lock that Ctrl-C can break."
    seen = 0

    def watch(frame, event, argument):
        nonlocal seen
        if event == "return" and frame.f_code is taken:
            seen += 1
            if seen == interrupt_at:
                signal.raise_signal(signal.SIGINT)

    with FaceSwapper(address, transport=transport, in_flight=2) as swapper:
        source = swapper.encode_source(np.zeros((48, 64, 3), np.uint8))
        sys.setprofile(watch)
        try:
            for _ in swapper.stream(frames, source):
                pass
        finally:
            sys.setprofile(None)
    return seen


times = work(None)
print(times, flush=True)
for step in range(rounds):
    moment = 1 + step * (times // 2) // rounds
    try:
        work(moment)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print("not interrupted at", moment, flush=True)
"""


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_ctrl_c_while_grpc_takes_a_lock_ends_the_job(
    server: FakeServer, tmp_path: Path, transport: str
) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB)
    job = subprocess.run(
        [sys.executable, str(script), server.address, transport, "20"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (job.returncode, job.stderr) == (0, "")
    times, *outcomes = job.stdout.splitlines()
    # Otherwise gRPC works in another way by now, and this test looks at nothing.
    assert int(times) >= 20
    assert outcomes == ["interrupted"] * 20


class Stopped(Exception):
    pass


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that this process's own handler saw; it raises Stopped at SIGTERM."""
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        if number == signal.SIGTERM:
            raise Stopped

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_in_the_block_is_handled_at_its_end(handled: list[int]) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    at_the_end: list[int] = []

    def work() -> None:
        with signals_held_back:
            with signals_held_back:
                signal.raise_signal(signal.SIGTERM)
            at_the_end.extend([*handled, -1])

    with pytest.raises(Stopped):
        work()
    assert at_the_end == [-1]
    assert handled == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


def test_signals_are_handled_in_their_order(handled: list[int]) -> None:
    def work() -> None:
        with signals_held_back:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        work()
    assert handled == [signal.SIGINT, signal.SIGTERM]


def test_every_signal_is_handled_though_the_first_one_raises(handled: list[int]) -> None:
    def work() -> None:
        with signals_held_back:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        work()
    assert handled == [signal.SIGTERM, signal.SIGINT]


def test_a_signal_that_comes_as_the_block_ends_is_handled(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, real = signal.getsignal(signal.SIGTERM), interrupts.set_handler

    def set_late(number: int, handler: object) -> object:
        if number == signal.SIGINT:
            signal.raise_signal(signal.SIGTERM)
        return real(number, handler)

    def work() -> None:
        with signals_held_back:
            monkeypatch.setattr(interrupts, "set_handler", set_late)

    with pytest.raises(Stopped):
        work()
    assert handled == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_where_handlers_cannot_be_set_the_block_runs_as_it_is(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, handler: object) -> object:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(interrupts, "set_handler", refuse)
    with signals_held_back:
        signal.raise_signal(signal.SIGINT)
        assert handled == [signal.SIGINT]


def test_a_signal_that_is_ignored_stays_ignored(handled: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_held_back:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert handled == []


def test_a_handler_set_in_the_block_is_kept(handled: list[int]) -> None:
    with signals_held_back:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_holds_nothing_back(handled: list[int]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with signals_held_back:
            inside.set()
            leave.wait(10.0)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10.0)
    signal.raise_signal(signal.SIGINT)
    assert handled == [signal.SIGINT]
    leave.set()
    thread.join()
    assert not thread.is_alive()


def test_a_signal_that_comes_as_the_block_begins_spoils_nothing(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = interrupts.set_handler

    def set_late(number: int, handler: object) -> object:
        if number == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        return real(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "set_handler", set_late)
        with pytest.raises(Stopped), signals_held_back:
            pytest.fail("the block is not entered")
    handled.clear()
    signal.raise_signal(signal.SIGINT)
    assert handled == [signal.SIGINT]
    with signals_held_back:
        signal.raise_signal(signal.SIGINT)
        assert handled == [signal.SIGINT]
    assert handled == [signal.SIGINT] * 2
