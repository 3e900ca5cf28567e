"""Where one server listens: a Unix socket in a folder of its own, and TCP where it was asked for.

Whoever reaches the socket is this user or root: its folder has mode 0700. Whoever reaches a TCP
port is anybody on this machine, and what else the address lets in.

Source: gRPC naming (`unix:PATH`); Triton 24.10 hands `--grpc-address` and `--grpc-port`, joined by
a colon, to gRPC as they are (server/src/grpc/grpc_server.cc).
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from server.errors import PortError

LOOPBACK = "127.0.0.1"
SOCKET = "s"
SOCKET_PORT = 1
"""What the socket's name ends with: Triton wants a port, and nothing listens on it."""


@dataclass(frozen=True)
class Doors:
    """Where a server listens.

    address: for TCP; None is loopback.
    grpc_port: None is the socket alone. 0, here and below, lets the system choose.
    http_port, metrics_port: None is not at all.
    socket: the Unix socket's path; none with gRPC over TCP.
    """

    address: str | None = None
    grpc_port: int | None = None
    http_port: int | None = None
    metrics_port: int | None = None
    socket: Path | None = None

    @property
    def ports(self) -> tuple[int | None, int | None, int | None]:
        return self.grpc_port, self.http_port, self.metrics_port

    @property
    def grpc_url(self) -> str:
        return f"unix:{self.socket}" if self.grpc_port is None else self._url(self.grpc_port)

    @property
    def local_grpc_url(self) -> str:
        """Where this machine reaches the server, which may listen on all addresses."""
        local = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.address or "", self.address)
        return replace(self, address=local).grpc_url

    @property
    def http_url(self) -> str | None:
        return None if self.http_port is None else self._url(self.http_port)

    @property
    def metrics_url(self) -> str | None:
        return None if self.metrics_port is None else self._url(self.metrics_port)

    def arguments(self) -> list[str]:
        """The server's arguments that say where it listens."""
        address = self.address or LOOPBACK
        if self.grpc_port is None:
            assert self.socket is not None
            given = [f"--grpc-address=unix:{self.socket.parent / SOCKET}"]
            given.append(f"--grpc-port={SOCKET_PORT}")
        else:
            given = [f"--grpc-address={address}", f"--grpc-port={self.grpc_port}"]
        for name, port in (("http", self.http_port), ("metrics", self.metrics_port)):
            given.append(f"--allow-{name}={str(port is not None).lower()}")
            if port is not None:
                given += [f"--{name}-address={address}", f"--{name}-port={port}"]
        return given

    def chosen(self, folder: Path) -> Doors:
        """The same with ports that are free, where the system may choose.

        The system may give a port away again before the server binds it; the caller tries again.

        Args:
            folder: where the socket goes.

        Raises:
            PortError: names the port that is taken, or the address that is not this machine's.
        """
        address = self.address or LOOPBACK
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with contextlib.ExitStack() as held:
            ports: list[int | None] = []
            for port in self.ports:
                if port is None:
                    ports.append(None)
                    continue
                holder = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                # As the server does: a port that only lingers after a restart is free.
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    holder.bind((address, port))
                except (OSError, OverflowError) as error:
                    raise PortError(
                        f"cannot listen on {address} port {port or '(any)'}: "
                        f"{getattr(error, 'strerror', None) or error}; choose another"
                    ) from error
                if port and port in ports:
                    raise PortError(f"port {port} was asked for twice; choose another")
                ports.append(holder.getsockname()[1])
        grpc, http, metrics = ports
        path = folder / f"{SOCKET}:{SOCKET_PORT}" if grpc is None else None
        return replace(self, grpc_port=grpc, http_port=http, metrics_port=metrics, socket=path)

    def _url(self, port: int) -> str:
        address = self.address or LOOPBACK
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
