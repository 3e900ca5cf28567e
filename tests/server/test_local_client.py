"""The client that asks a server of this machine whether it is ready."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tritonclient.utils import InferenceServerException

from server.local_client import open_client

TRIES = 8
WITHIN_S = 30.0
"""With pauses of half a second it takes four; gRPC's own pauses come to 43 s and grow."""


def test_a_server_that_does_not_listen_yet_is_tried_again_and_again() -> None:
    """As one that loads its models for minutes on a machine with much to do."""
    tries = 0
    with socket.create_server(("127.0.0.1", 0)) as door:

        def refuse() -> None:
            nonlocal tries
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    tries += 1
                    connection.close()

        refusing = threading.Thread(target=refuse)
        refusing.start()
        client = open_client(f"127.0.0.1:{door.getsockname()[1]}")
        try:
            until_s = time.monotonic() + WITHIN_S
            while tries < TRIES and time.monotonic() < until_s:
                with contextlib.suppress(InferenceServerException):
                    client.is_server_ready(client_timeout=1.0)
                time.sleep(0.05)
        finally:
            client.close()
            door.shutdown(socket.SHUT_RDWR)
            refusing.join()
    assert tries >= TRIES
