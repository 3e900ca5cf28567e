"""Shared memory that killed clients left behind: taken away, and only that."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fake_server import FakeServer
from frameswap import shared_memory
from frameswap.shared_memory import FOLDER, reclaim_leftovers
from shared_frames import SOURCE, connect, frames, nothing_is_left, regions  # noqa: F401


def test_what_a_killed_client_left_is_forgotten_by_the_server_that_it_used(
    server: FakeServer,
) -> None:
    """Whichever server the next client is a client of."""
    with FakeServer() as other:
        with killed_client(server):
            pass
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


@contextmanager
def killed_client(server: FakeServer) -> Iterator[None]:
    """A client in another process holds shared memory in the block, and is killed behind it."""
    command = [sys.executable, "-c", KILLED, server.address, shared_memory.PREFIX]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            yield
        finally:
            client.kill()


def test_what_a_killed_client_left_is_reclaimed_and_only_that(server: FakeServer) -> None:
    foreign = FOLDER / f"{shared_memory.PREFIX}not-ours-to-follow"
    foreign.symlink_to("/etc/hostname")
    try:
        with connect(server) as living:
            list(living.stream(frames(4), SOURCE))
            ours = set(regions())
            with killed_client(server):
                theirs = set(regions()) - ours
                assert len(theirs) == 3
                # While it lives, nobody takes its memory.
                with connect(server):
                    assert set(regions()) == ours | theirs
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
