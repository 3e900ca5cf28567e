"""The two small HTTP servers of a pod: health for its keepers, metrics for Prometheus.

Triton's own HTTP stays closed. These answer GET of a few paths, read no body, and hold no more than
a handful of connections. Health is plain HTTP, because Kubernetes' probes have no certificate to
show and learn nothing worth hiding; metrics speak TLS, mutual where gRPC does.
"""

from __future__ import annotations

import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

from deploy.settings import Tls
from server.errors import PortError

Answer = Callable[[], tuple[int, str]]
"""Status and text of one path."""

CONNECTION_S: Final = 5.0
MOST_CONNECTIONS: Final = 16
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Door:
    """An HTTP server on one port, in threads of its own.

    Args:
        address, port: 0 lets the system choose; `port` says which it is.
        answers: what each path is answered with.

    Raises:
        PortError: the port is taken.
    """

    def __init__(
        self, address: str, port: int, answers: Mapping[str, Answer], tls: Tls | None = None
    ) -> None:
        context = None if tls is None else _context(tls)
        try:
            self._server = _Server((address, port), answers, context)
        except OSError as error:
            raise PortError(
                f"cannot listen on {address} port {port}: {error.strerror or error}"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name=f"door {self.port}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(HTTPServer):
    """Connections are served in threads, at most so many; more wait in the system's backlog."""

    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        answers: Mapping[str, Answer],
        context: ssl.SSLContext | None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answers = answers
        self._context = context
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: object, client_address: object) -> None:
        self._room.acquire()
        threading.Thread(target=self._serve, args=(request, client_address), daemon=True).start()

    def _serve(self, request: socket.socket, client_address: object) -> None:
        try:
            request.settimeout(CONNECTION_S)
            if self._context is not None:
                # The handshake belongs here: in `accept` one slow client would hold up all.
                request = self._context.wrap_socket(request, server_side=True)
            self.finish_request(request, client_address)
            if isinstance(request, ssl.SSLSocket):
                request.unwrap()
        except OSError:
            # A client that went away, was too slow, or has no certificate: its own business.
            pass
        finally:
            self.shutdown_request(request)
            self._room.release()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "frameswap"
    sys_version = ""
    timeout = CONNECTION_S

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path)
        status, text = (404, "") if answer is None else answer()
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", METRICS_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        """Probes come every few seconds: nothing is logged."""


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.mutual:
        context.load_verify_locations(tls.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def free_port(address: str, asked: int) -> int:
    """A port that Triton can listen on: the one asked for, or one that the system chooses for 0.

    Raises:
        PortError: it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        # As the server does: a port that only lingers after a restart is free.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((address, asked))
        except OSError as error:
            raise PortError(
                f"cannot listen on {address} port {asked}: {error.strerror or error}"
            ) from error
        return int(holder.getsockname()[1])


def fetch_metrics(port: int) -> str:
    """Triton's own metrics, from its loopback port; empty while it does not answer."""
    # No proxy is ever asked for a page of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=CONNECTION_S) as page:
            return str(page.read().decode())
    except (OSError, urllib.error.URLError):
        return ""
