"""Which transport a client uses, and why not another one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from frameswap.connection import Connection, is_loopback
from frameswap.cuda_memory import CudaRegion, unregister_cuda
from frameswap.errors import FrameswapError, TransportUnavailable
from frameswap.shared_memory import (
    Region,
    SystemRegion,
    reclaim_leftovers,
    says_in_use,
    unregister_system,
)
from frameswap.shared_transport import SharedTransport
from frameswap.transport import GrpcTransport, Transport, TransportName

__all__ = ["choose_transport"]

logger = logging.getLogger("frameswap")

_REGIONS: Final[dict[TransportName, Callable[[int], Region]]] = {
    "system": SystemRegion,
    "cuda": CudaRegion,
}
_AUTOMATIC: Final[TransportName] = "system"
"""What "auto" tries before gRPC."""
_PROBE_SIZE: Final = 4096


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
    return SharedTransport(
        chosen, connection, _REGIONS[chosen], fallback=grpc if name == "auto" else None
    )


def _check_shared_memory(name: TransportName, connection: Connection) -> None:
    """Register a small region and give it back, so that nothing fails in mid-stream."""
    if not is_loopback(connection.address):
        raise TransportUnavailable(
            f"{connection.address} is not a loopback address: {name} shared memory needs one "
            f"server on this machine"
        )
    _reclaim(connection)
    region = _REGIONS[name](_PROBE_SIZE)
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
        for unregister in (unregister_system, unregister_cuda):
            try:
                unregister(leftover, connection)
            except FrameswapError as error:
                # Any other error: it was another server's, or that one has been restarted since.
                if says_in_use(error):
                    return False
        return True

    reclaim_leftovers(forget=forget)
