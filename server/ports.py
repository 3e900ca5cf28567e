"""Choosing the ports that a server listens on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from server.errors import PortError


def choose_ports(address: str, asked: Sequence[int]) -> tuple[int, int, int]:
    """Return three free ports, those that were asked for where they are not 0.

    The system may give a port away again before the server binds it; the caller tries again.

    Raises:
        PortError: names the port that is taken, or the address that is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as held:
        ports = []
        for port in asked:
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
            ports.append(holder.getsockname()[1])
        return ports[0], ports[1], ports[2]
