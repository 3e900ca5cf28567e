"""Every error the client raises, and the one place where gRPC's errors become ours.

    FrameswapError
    ├── ServerUnreachable      nothing answers at that address, or the connection was lost
    ├── ServerTimeout          the server did not answer in time
    ├── ServerNotReady         the server answers, but its models are not ready
    ├── ServerOverloaded       the server has more to do than it takes
    ├── ContractMismatch       the server lacks our models, or is older or newer than the client
    ├── RequestRejected        the server understood the request and refused it
    ├── ServerFault            the server failed, or answered something that breaks the contract
    ├── TransportUnavailable   the transport that was insisted on cannot be used here
    ├── BadFrame               a frame of the wrong type, shape or size
    ├── BadSource              a source that this server's swapper cannot take
    │   ├── NoFaceFound        a source photo without a face
    │   └── SeveralFacesFound  a source photo with more than one face, and no word which
    ├── BadOptions             an option value that does not exist
    ├── BadFaces               faces or landmarks that are none
    ├── UnreadableFile         an input file that is missing, damaged or of an unknown format
    ├── UnwritableFile         an output that cannot be written as asked
    └── ServeUnavailable       no embedded server is installed beside the client

A message is one sentence: what was expected, what came, what to do.
"""

from __future__ import annotations

from typing import Final

import grpc

__all__ = [
    "BadFaces",
    "BadFrame",
    "BadOptions",
    "BadSource",
    "ContractMismatch",
    "FrameswapError",
    "NoFaceFound",
    "RequestRejected",
    "ServeUnavailable",
    "ServerFault",
    "ServerNotReady",
    "ServerOverloaded",
    "ServerTimeout",
    "ServerUnreachable",
    "SeveralFacesFound",
    "TransportUnavailable",
    "UnreadableFile",
    "UnwritableFile",
]


class FrameswapError(Exception):
    """Root of all errors of this package; `str()` of it is a sentence for the user."""


class ServerUnreachable(FrameswapError):
    """Nothing answers at that address, or the connection was lost."""


class ServerTimeout(FrameswapError):
    """The server did not answer in time."""


class ServerNotReady(FrameswapError):
    """The server answers, but its models are not ready."""


class ServerOverloaded(FrameswapError):
    """The server has more to do than it takes: later, or less at a time, it will."""


class ContractMismatch(FrameswapError):
    """The server lacks our models, or is older or newer than this client."""


class RequestRejected(FrameswapError):
    """The server understood the request and refused it."""


class ServerFault(FrameswapError):
    """The server failed, or answered something that breaks the contract."""


class TransportUnavailable(FrameswapError):
    """The transport that was insisted on cannot be used between this client and this server."""


class BadFrame(FrameswapError):
    """A frame of the wrong type, shape or size."""


class BadSource(FrameswapError):
    """A source that this server's swapper cannot take."""


class NoFaceFound(BadSource):
    """A source photo without a face."""


class SeveralFacesFound(BadSource):
    """A source photo with more than one face, and no word which one is meant."""


class BadOptions(FrameswapError):
    """An option value that does not exist."""


class BadFaces(FrameswapError):
    """Faces or landmarks of the wrong shape, or more than the server takes."""


class UnreadableFile(FrameswapError):
    """An input file that is missing, damaged or of an unknown format."""


class UnwritableFile(FrameswapError):
    """An output that cannot be written as asked."""


class ServeUnavailable(FrameswapError):
    """No embedded server is installed beside the client."""


STATUS_ERRORS: Final[dict[grpc.StatusCode, type[FrameswapError]]] = {
    grpc.StatusCode.UNAVAILABLE: ServerUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerTimeout,
    # Nobody asks for a call's result after cancelling it, so a server that shuts down did it.
    grpc.StatusCode.CANCELLED: ServerUnreachable,
    grpc.StatusCode.INVALID_ARGUMENT: RequestRejected,
    grpc.StatusCode.OUT_OF_RANGE: RequestRejected,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerOverloaded,
    grpc.StatusCode.PERMISSION_DENIED: RequestRejected,
    grpc.StatusCode.UNAUTHENTICATED: RequestRejected,
    grpc.StatusCode.NOT_FOUND: ContractMismatch,
    grpc.StatusCode.UNIMPLEMENTED: ContractMismatch,
    grpc.StatusCode.ABORTED: ServerFault,
    grpc.StatusCode.ALREADY_EXISTS: ServerFault,
    grpc.StatusCode.DATA_LOSS: ServerFault,
    grpc.StatusCode.FAILED_PRECONDITION: ServerFault,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNKNOWN: ServerFault,
}
"""Every gRPC status that a call can end with. A test compares this with grpc.StatusCode."""

_CUT_CODES: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)

_HTTP_PORT_SIGNS: Final = ("http1", "http 1", "http/1", "settings frame")
"""In gRPC's details when the other side speaks HTTP/1: Triton's port 8000, or a web server."""


_MODEL_AWAY_SIGNS: Final = ("has no available versions", "is not healthy", "is not ready")
"""In Triton's details while a model is unloaded, loaded again, or its process has died."""


_OVERLOAD_SIGNS: Final = ("maximum queue size", "max_queue_size", "too many requests")
"""In the details of UNAVAILABLE when there is a server, and its queue or a proxy's is full."""

_TOO_LARGE_SIGN: Final = "larger than max"
"""In gRPC's own details of RESOURCE_EXHAUSTED: the message, not the load, is too much."""

_CUT_SIGNS: Final = (
    "rst_stream", "stream removed", "socket closed", "connection reset", "end of stream",
    "goaway", "eos", "stream closed", "missing :status", "transport closed", "connection closed",
    "incomplete",
)  # fmt: skip
"""In gRPC's own details when somebody between client and server cut or garbled a stream."""


_NO_SHARED_MEMORY_SIGN: Final = "shared memory pool size"
"""In Triton's details when a batch does not fit into /dev/shm."""


def from_status(
    code: grpc.StatusCode, details: str, *, address: str, doing: str, timeout_s: float | None = None
) -> FrameswapError:
    """Turn a gRPC status into our error, with a sentence that names the server and the act.

    Args:
        code: how the call ended.
        details: the server's or gRPC's own text.
        address: HOST:PORT of the server, for the sentence.
        doing: what was asked, as in "while swapping a frame".
        timeout_s: the deadline of the call, in seconds, if it had one.
    """
    kind = STATUS_ERRORS.get(code, ServerFault)
    text = " ".join(details.split()).rstrip(".") or code.name.lower().replace("_", " ")
    if _NO_SHARED_MEMORY_SIGN in text:
        # Its own text names a region of the server, which is nobody's business.
        return ServerFault(
            f"the server at {address} has no shared memory left {doing}: make its /dev/shm larger "
            f"(a container: --shm-size=1g), or keep fewer frames in flight (--window)"
        )
    if any(sign in text for sign in _MODEL_AWAY_SIGNS):
        return ServerNotReady(
            f"a model of the server at {address} went away {doing} ({text}): the server stops, or "
            f"one of its processes died; try again, or look at its log"
        )
    lowered = text.lower()
    if kind is ServerOverloaded and _TOO_LARGE_SIGN in lowered:
        kind = RequestRejected
    elif kind is ServerUnreachable and any(sign in lowered for sign in _OVERLOAD_SIGNS):
        kind = ServerOverloaded
    elif code in _CUT_CODES and any(sign in lowered for sign in _CUT_SIGNS):
        kind = ServerUnreachable
    if kind is ServerOverloaded:
        return ServerOverloaded(
            f"the server at {address} has more to do than it takes {doing} ({text}): send fewer "
            f"frames at a time (--window), or add servers"
        )
    if kind is ServerTimeout:
        waited = f" within {timeout_s:g} s" if timeout_s is not None else " in time"
        return ServerTimeout(
            f"the server at {address} did not answer{waited} {doing}: it is overloaded or stuck; "
            f"raise the time limit (--timeout-s) or look at the server's log"
        )
    if kind is ServerUnreachable:
        if any(sign in lowered for sign in _HTTP_PORT_SIGNS):
            return ServerUnreachable(
                f"{address} answers, but not with gRPC: give the server's gRPC port (8001 unless "
                f"it was set otherwise), not its HTTP port"
            )
        return ServerUnreachable(
            f"the server at {address} cannot be reached, or shut down, {doing} ({text}): check the "
            f"address and that the server runs"
        )
    if kind is RequestRejected:
        return RequestRejected(f"the server at {address} refused the request {doing}: {text}")
    if kind is ContractMismatch:
        return ContractMismatch(
            f"the server at {address} cannot do what was asked {doing}: {text}; is it a frameswap "
            f"server with its models loaded?"
        )
    return ServerFault(f"the server at {address} failed {doing} ({code.name}): {text}")


def from_rpc_error(
    error: grpc.RpcError, *, address: str, doing: str, timeout_s: float | None = None
) -> FrameswapError:
    """`from_status` for an exception of the gRPC library; one without a status is a ServerFault."""
    if not isinstance(error, grpc.Call):
        return ServerFault(f"the connection to {address} failed {doing}: {error}")
    code = error.code()
    assert isinstance(code, grpc.StatusCode)  # a finished call always has one
    return from_status(
        code, error.details() or "", address=address, doing=doing, timeout_s=timeout_s
    )
