"""Which transport a client uses, and why not another one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from frameswap.connection import Connection, is_loopback
from frameswap.cuda_memory import CudaRegion, unregister_cuda
from frameswap.errors import (
    FrameswapError,
    ServerTimeout,
    ServerUnreachable,
    TransportUnavailable,
)
from frameswap.shared_memory import (
    Region,
    SystemRegion,
    reclaim_leftovers,
    says_in_use,
    server_of,
    unregister_system,
)
from frameswap.shared_transport import SharedTransport
from frameswap.transport import GrpcTransport, Transport, TransportName

__all__ = ["choose_transport"]

logger = logging.getLogger("frameswap")


def _region_maker(name: TransportName, server: str) -> Callable[[int], Region]:
    if name == "cuda":
        return lambda size: CudaRegion(size, server=server)
    return lambda size: SystemRegion(size, server=server)


_AUTOMATIC: Final[TransportName] = "system"
"""What "auto" tries before gRPC."""
_PROBE_SIZE: Final = 4096
_OTHER_SERVER_S: Final = 2.0
"""How long a server that a killed client had used may take to forget its memory."""


def choose_transport(name: TransportName, connection: Connection) -> Transport:
    """Make the transport that was asked for, or the best one that works.

    Raises:
        TransportUnavailable: the one that was insisted on does not work here; the text says why.
    """
    grpc = GrpcTransport(connection)
    if name == "grpc":
        return grpc
    chosen = _AUTOMATIC if name == "auto" else name
    try:
        _check_shared_memory(chosen, connection)
    except TransportUnavailable as error:
        if name != "auto":
            raise
        logger.info("frames are sent over gRPC, because %s", error)
        return grpc
    maker = _region_maker(chosen, connection.address)
    return SharedTransport(chosen, connection, maker, fallback=grpc if name == "auto" else None)


def _check_shared_memory(name: TransportName, connection: Connection) -> None:
    """Register a small region and give it back, so that nothing fails in mid-stream."""
    if not is_loopback(connection.address):
        raise TransportUnavailable(
            f"{connection.address} is not a loopback address: {name} shared memory needs one "
            f"server on this machine"
        )
    _reclaim(connection)
    region = _region_maker(name, connection.address)(_PROBE_SIZE)
    try:
        region.register(connection)
        region.unregister(connection)
    except FrameswapError as error:
        raise TransportUnavailable(
            f"the server does not accept {name} shared memory ({error}); since Triton 26.05 it "
            f"is started with --allow-client-shm=true for that, and both must see the same "
            f"/dev/shm"
        ) from error
    finally:
        region.close()


def _reclaim(connection: Connection) -> None:
    def forget(leftover: str) -> bool:
        server = server_of(leftover)
        if server in ("", connection.address):
            return forget_at(leftover, connection)
        try:
            other = Connection(server, timeout_s=_OTHER_SERVER_S)
        except FrameswapError:
            return True
        try:
            return forget_at(leftover, other)
        finally:
            other.close()

    reclaim_leftovers(forget=forget)


def forget_at(leftover: str, connection: Connection) -> bool:
    """Make a server forget a region of a client that is no more; False where it works on it."""
    for unregister in (unregister_system, unregister_cuda):
        try:
            unregister(leftover, connection)
        except ServerUnreachable:
            return True  # it is gone, and what it had mapped
        except ServerTimeout:
            return False
        except FrameswapError as error:
            # Any other error: it does not know it, because it has been restarted since.
            if says_in_use(error):
                return False
    return True
