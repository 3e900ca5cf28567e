"""Which transport a client uses."""

from __future__ import annotations

from frameswap.connection import Connection
from frameswap.transport import GrpcTransport, Transport, TransportName


def choose_transport(name: TransportName, connection: Connection) -> Transport:
    return GrpcTransport(connection)
