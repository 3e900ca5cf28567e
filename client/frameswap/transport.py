"""How a frame gets to the server and back. This file: the interface, and raw gRPC bytes.

transport   copies of a frame made by the client, each way
grpc        1 out (into the message), 1 in (out of the response; 0 with `reuse_buffers`, a view
            of it); gRPC and the kernel copy more underneath
system      1 out (into the region; 0 of a source that makes the frame there), 0 in (a view of it)
cuda        the same with pinned memory; the device copies itself
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from frameswap.connection import Connection, PendingCall
from frameswap.contract import FRAME, OPTIONS, SOURCE
from frameswap.errors import ServerFault
from frameswap.frames import Frame
from frameswap.wire import (
    ResponseError,
    SharedOutput,
    TensorInfo,
    build_header,
    join_request,
)

__all__ = ["GrpcTransport", "PendingSwap", "SwapRequest", "Transport", "TransportName"]

TransportName = Literal["auto", "grpc", "system", "cuda"]
TRANSPORT_NAMES: Final[tuple[TransportName, ...]] = ("auto", "grpc", "system", "cuda")

DOING: Final = "while swapping a frame"


@dataclass(frozen=True, eq=False)
class SwapRequest:
    """One frame on its way.

    frame: uint8, I420 or BGR. options: (16,) float32.
    outputs: all that the model has. An ensemble asked for some of them can answer "unexpected
        deadlock" (triton-inference-server/server issues 7280 and 7482).
    batched: whether the model has a batch axis, which is then 1.
    source: (K, D) float32, C-contiguous; None for a model that takes none.
    found: other tensors, float32, C-contiguous, by name: `faces` and `landmarks`.
    room: bytes of the source of a later request that will be sent with `held`.
    held: an answered request that was not released, and whose memory has this frame in it: this
        one takes that over where it can. Where it cannot, the frame is sent again.
    """

    model: str
    frame: Frame
    options: NDArray[np.float32]
    outputs: tuple[str, ...]
    batched: bool
    source: NDArray[np.float32] | None = None
    found: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    room: int = 0
    held: PendingSwap | None = None

    @property
    def small_tensors(self) -> dict[str, NDArray[np.float32]]:
        """What is always sent in the message, in order."""
        return {OPTIONS: self.options, **self.found}

    def shape_on_wire(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape) if self.batched else shape


class PendingSwap(Protocol):
    """A request in flight, and what holds its buffers."""

    def result(self) -> Mapping[str, NDArray[Any]]:
        """Wait for the outputs, with the batch axis; views until `release`.

        Raises:
            FrameswapError: how it failed.
        """

    def keep(self, frame: NDArray[np.uint8], *, writable: bool) -> NDArray[np.uint8]:
        """Make a frame that is, or was cut from, one of `result` outlast `release`.

        It is copied only where its memory cannot be left to whoever holds it.

        Args:
            writable: whether it is to be written to; else it is read-only.
        """

    def wait(self, patience_s: float) -> bool:
        """Wait at most so many seconds; whether there is an answer, or an error, now."""

    def cancel(self) -> None:
        """Give the answer up. `release` is still to be called."""

    def release(self, *, patience_s: float | None = None) -> None:
        """Give the buffers back: what `result` returned must not be read any more.

        Args:
            patience_s: how long to wait for an answer that is still to come and would be written
                into them; None is as long as it takes. After that they rest until it has come.
        """


class Transport(Protocol):
    """Sends requests; `submit` may be called again before earlier answers are there."""

    name: TransportName

    def submit(self, request: SwapRequest) -> PendingSwap: ...

    def renew(self) -> None:
        """Give back what a lost server may have worked on: it has been found again."""

    def close(self) -> None: ...


class GrpcTransport:
    """Tensors as bytes in the messages: works between any two machines."""

    name: TransportName = "grpc"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._headers: dict[tuple[Any, ...], bytes] = {}

    def submit(self, request: SwapRequest) -> PendingSwap:
        """Send one frame; one copy is made of it, into the message."""
        tensors = request.small_tensors
        if request.source is not None:
            tensors[SOURCE] = request.source
        shapes = tuple(array.shape for array in tensors.values())
        key = (request.model, request.frame.shape, shapes)
        header = self._headers.get(key)
        if header is None:
            # A video has one shape; a mixed stream should not let this table grow for ever.
            if len(self._headers) >= 64:
                self._headers.clear()
            header = self._headers[key] = _build_header(request, tensors)
        message = join_request(header, [as_array(request.frame), *tensors.values()])
        return _PendingBytes(self._connection.submit(message, doing=DOING), self._connection)

    def renew(self) -> None:
        """Nothing is held beyond the connection."""

    def close(self) -> None:
        """Nothing is held beyond the connection."""


class _PendingBytes:
    def __init__(self, call: PendingCall, connection: Connection) -> None:
        self._call = call
        self._connection = connection

    def result(self) -> Mapping[str, NDArray[Any]]:
        return {
            name: array
            for name, array in read_outputs(self._call.result(), self._connection).items()
            if not isinstance(array, SharedOutput)
        }

    def keep(self, frame: NDArray[np.uint8], *, writable: bool) -> NDArray[np.uint8]:
        # A message cannot be written to, and lives as long as its views.
        return frame.copy() if writable and not is_own(frame) else frame

    def wait(self, patience_s: float) -> bool:
        return self._call.wait(patience_s)

    def cancel(self) -> None:
        self._call.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        """The response's bytes belong to the arrays that view them."""


def is_own(array: NDArray[Any]) -> bool:
    """Whether an array's memory is its own, or another array's: no message's, no region's."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is None


def as_array(frame: Frame) -> NDArray[np.uint8]:
    """The frame as a C-contiguous array; no copy when it is one."""
    if isinstance(frame, np.ndarray):
        return np.ascontiguousarray(frame)
    array = np.empty(frame.shape, np.uint8)
    frame.copy_to(array)
    return array


def read_outputs(
    message: bytes, connection: Connection, *, in_regions: frozenset[str] = frozenset()
) -> dict[str, NDArray[Any] | SharedOutput]:
    """`ResponseReader.read`, with damage reported as the server's fault."""
    try:
        return connection.reader.read(message, in_regions=in_regions)
    except ResponseError as error:
        raise ServerFault(
            f"the answer of the server at {connection.address} cannot be read: {error}"
        ) from error


def _build_header(request: SwapRequest, tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    return build_header(
        request.model,
        [
            TensorInfo(FRAME, "UINT8", request.shape_on_wire(request.frame.shape)),
            *(
                TensorInfo(name, "FP32", request.shape_on_wire(array.shape))
                for name, array in tensors.items()
            ),
        ],
        request.outputs,
    )
