"""Leases: exclusive, beating, expiring by the observer's clock, never stolen from the living."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.lease import Lease, LeaseFolder

EXPIRY_S = 0.6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "leases"


def leave_behind(folder: Path, name: str, generation: int = 1) -> Path:
    """A lease file like one whose holder was killed just now."""
    lease = LeaseFolder(folder, expiry_s=EXPIRY_S).try_acquire(name)
    assert lease is not None
    content = lease.path.read_bytes()
    lease.release()
    path = folder / f"{name}.{generation}"
    path.write_bytes(content)
    return path


def race(count: int, attempt: Callable[[], Lease | None]) -> list[Lease]:
    """Run `attempt` in `count` threads at once; the leases they got."""
    barrier, got = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        lease = attempt()
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_of_many_that_ask_at_once_one_gets_the_lease(
    folder: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    for turn in range(10):
        name = f"plan{turn}"
        got = race(8, lambda name=name: LeaseFolder(folder).try_acquire(name))  # type: ignore[misc]
        assert len(got) == 1
        got[0].release()
    assert os.listdir(folder) == []


def test_of_many_that_wait_for_a_dead_holder_one_takes_over(folder: Path) -> None:
    leave_behind(folder, "plan")
    waiting = [LeaseFolder(folder, expiry_s=EXPIRY_S) for _ in range(8)]
    assert all(leases.try_acquire("plan") is None for leases in waiting)
    time.sleep(EXPIRY_S + 0.1)
    left = iter(waiting)
    got = race(8, lambda: next(left).try_acquire("plan"))
    assert len(got) == 1
    got[0].release()
    assert os.listdir(folder) == []


def test_a_beating_lease_outlives_many_expiries(folder: Path) -> None:
    # Longer than a busy machine may keep the beating thread from running.
    expiry_s = 1.5
    lease = LeaseFolder(folder, expiry_s=expiry_s).try_acquire("plan")
    assert lease is not None
    observer = LeaseFolder(folder, expiry_s=expiry_s)
    with lease:
        end = time.monotonic() + 2.5 * expiry_s
        while time.monotonic() < end:
            assert observer.try_acquire("plan") is None
            time.sleep(0.05)
        assert not lease.lost


def test_a_holder_whose_clock_is_wrong_keeps_its_lease(folder: Path) -> None:
    expiry_s = 1.5
    lease = LeaseFolder(folder, expiry_s=expiry_s).try_acquire("plan")
    assert lease is not None
    observer = LeaseFolder(folder, expiry_s=expiry_s)
    with lease:
        assert observer.try_acquire("plan") is None
        end = time.monotonic() + 2 * expiry_s
        while time.monotonic() < end:
            os.utime(lease.path, (0, 0))  # as a client without a clock would stamp it
            assert observer.try_acquire("plan") is None
            time.sleep(0.05)


def test_a_silent_lease_is_taken_over_no_later_than_its_expiry(folder: Path) -> None:
    leave_behind(folder, "plan")
    observer = LeaseFolder(folder, expiry_s=EXPIRY_S)
    started = time.monotonic()
    while (lease := observer.try_acquire("plan")) is None:
        time.sleep(0.02)
    waited_s = time.monotonic() - started
    lease.release()
    # File times are coarse (4 ms on ext4), polls 20 ms, and the machine may be busy.
    assert EXPIRY_S - 0.1 < waited_s < EXPIRY_S + 3.0


def test_a_lease_left_long_ago_is_taken_over_at_once(folder: Path) -> None:
    path = leave_behind(folder, "plan")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    lease = LeaseFolder(folder).try_acquire("plan")
    assert lease is not None
    assert sorted(os.listdir(folder)) == ["plan.2"]
    lease.release()


@pytest.mark.parametrize("content", [b"", b"garbage", b"0" * 20, b"0" * 20 + b"[]", b"\xff" * 99])
def test_a_garbled_lease_expires_like_any_other(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "plan.3").write_bytes(content)
    observer = LeaseFolder(folder, expiry_s=EXPIRY_S)
    assert observer.try_acquire("plan") is None
    holder = observer.holder("plan")
    assert holder is not None
    assert holder.host == "?"
    time.sleep(EXPIRY_S + 0.1)
    lease = observer.try_acquire("plan")
    assert lease is not None
    lease.release()


def test_a_holder_that_was_overtaken_learns_it_and_leaves_the_new_lease_alone(
    folder: Path,
) -> None:
    slow = LeaseFolder(folder, expiry_s=EXPIRY_S, heartbeat_s=2 * EXPIRY_S).try_acquire("plan")
    assert slow is not None
    observer = LeaseFolder(folder, expiry_s=EXPIRY_S)
    assert observer.try_acquire("plan") is None
    time.sleep(EXPIRY_S + 0.1)
    lease = observer.try_acquire("plan")
    assert lease is not None
    time.sleep(EXPIRY_S)
    assert slow.lost
    slow.release()
    assert sorted(os.listdir(folder)) == ["plan.2"]
    assert LeaseFolder(folder, expiry_s=EXPIRY_S).try_acquire("plan") is None
    lease.release()


def test_the_holder_can_be_named_while_others_wait(folder: Path) -> None:
    lease = LeaseFolder(folder).try_acquire("plan")
    assert lease is not None
    with lease:
        holder = LeaseFolder(folder).holder("plan")
        assert holder is not None
        assert holder.pid == os.getpid()
        assert str(holder) == f"process {os.getpid()} on {os.uname().nodename}"
    assert LeaseFolder(folder).holder("plan") is None


def test_names_that_begin_alike_do_not_share_a_lease(folder: Path) -> None:
    leases = LeaseFolder(folder)
    got = [leases.try_acquire(name) for name in ("plan", "plan.1", "plan1", "pla")]
    assert all(lease is not None for lease in got)
    for lease in got:
        assert lease is not None
        lease.release()
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        LeaseFolder(tmp_path / "file" / "leases").try_acquire("plan")
