"""What a stranger may send to an HTTP port: requests of every form, and what is none."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable

from bench.http_crumbs import CRUMB, connect


def abuse(address: str, rounds: int) -> int:
    """Send every form so many times, each on a connection of its own; how many were answered."""
    answered = 0
    for _ in range(rounds):
        for make in FORMS.values():
            # A server may close or reset what it does not understand.
            with contextlib.suppress(OSError), connect(address) as stream:
                stream.sendall(make())
                stream.shutdown(socket.SHUT_WR)
                answered += bool(stream.recv(4096))
    return answered


def _request(first_line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [first_line, "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _infer(*headers: str, body: bytes = b"") -> bytes:
    return _request("POST /v2/models/invert_twice/infer HTTP/1.1", *headers, body=body)


FORMS: dict[str, Callable[[], bytes]] = {
    "noise": lambda: random.randbytes(random.randrange(1, 5000)),
    "health": lambda: _request("GET /v2/health/ready HTTP/1.1"),
    "a body that never ends": lambda: _infer("Content-Length: 100000000", body=b"x" * 1000),
    "two lengths": lambda: _infer("Content-Length: 5", "Content-Length: 50", body=b"x" * 9),
    "a length and chunks": lambda: _infer(
        "Content-Length: 5", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\n\r\n"
    ),
    "a negative length": lambda: _infer("Content-Length: -1", body=b"x"),
    "a chunk of 2^64 bytes": lambda: _infer(
        "Transfer-Encoding: chunked", body=b"ffffffffffffffff\r\nx\r\n"
    ),
    "a chunk that is none": lambda: _infer("Transfer-Encoding: chunked", body=b"zz\r\nx\r\n"),
    "crumbs": lambda: _infer("Transfer-Encoding: chunked", body=CRUMB * 2000 + b"0\r\n\r\n"),
    "a large chunk": lambda: _infer(
        "Transfer-Encoding: chunked", body=b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n0\r\n\r\n"
    ),
    "brackets within brackets": lambda: _infer("Content-Length: 20000", body=b"[" * 20_000),
    "a header of tensors that is longer than the body": lambda: _infer(
        "Content-Length: 4", "Inference-Header-Content-Length: 2147483648", body=b"{}{}"
    ),
    "what says that it is packed": lambda: _infer(
        "Content-Encoding: gzip", "Content-Length: 9", body=b"\x1f\x8bnothing"
    ),
    "long headers": lambda: _infer(*(f"h{i}: {'x' * 900}" for i in range(60))),
    "a long path": lambda: _request(f"GET /v2/models/{'x' * 60_000}/config HTTP/1.1"),
    "a path out of the models": lambda: _request("GET /v2/models/..%2f..%00/config HTTP/1.1"),
    "another method": lambda: _request(f"{random.choice(METHODS)} /v2/models/stats HTTP/1.1"),
    "many at once": lambda: _request("GET /v2/health/live HTTP/1.1") * 50,
    "another protocol": lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30),
    "half a line": lambda: b"GET /v2/hea",
}
METHODS = ("PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "PATCH", "BREW")
