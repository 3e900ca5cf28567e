"""A window of frames under way: sent as there is room, returned in order, sent again when lost."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frameswap.connection import CLOSING_S
from frameswap.contract import (
    FACE_COLUMNS,
    FACES,
    MAX_DETECTIONS,
    SCORE_COLUMN,
    SWAP_MODELS,
    SWAPPED_FRAME,
)
from frameswap.errors import (
    BadOptions,
    ContractMismatch,
    FrameswapError,
    ServerFault,
    ServerTimeout,
)
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, check_size
from frameswap.options import SwapOptions
from frameswap.servers import PASSING_ERRORS, Server, Servers
from frameswap.sources import Source, stack_sources
from frameswap.transport import PendingSwap, SwapRequest

__all__ = ["FrameStream", "SwappedFrame", "found_faces", "take_output"]

_HEALTH_S: Final = 5.0
"""After so long without an answer, a server is asked whether it is there, if there are others."""


@dataclass(frozen=True, eq=False)
class SwappedFrame:
    """A finished frame.

    frame: uint8, shape and format of the frame that was sent; pixels outside the blend are its.
    faces: (F, 15) float32, the faces found, in the order asked for: x1 y1 x2 y2, score, five
        landmarks x y; pixels.
    original: the frame that was sent.
    """

    frame: NDArray[np.uint8]
    faces: NDArray[np.float32]
    original: Frame


class FrameStream:
    """What the frames of one stream share, and the window of those under way.

    Args:
        servers: that take them.
        reconnect_s: how long a frame may be sent again and again, in seconds from its first loss.
    """

    def __init__(
        self,
        servers: Servers,
        sources: Source | Sequence[Source],
        options: SwapOptions,
        *,
        reconnect_s: float,
    ) -> None:
        self._servers = servers
        self._sources = sources
        self._options = options.to_tensor()
        self._reconnect_s = reconnect_s
        # Made once an ensemble, not once a frame: an image source is most of a megabyte, and the
        # same array tells shared memory that what it holds is still right.
        self._stacked: dict[Ensemble, NDArray[np.float32]] = {}
        self._fitting: tuple[Ensemble, tuple[int, ...]] | None = None
        self._window: deque[_InFlight] = deque()

    def run(self, frames: Iterable[Frame], *, copy: bool) -> Iterator[SwappedFrame]:
        """Swap all frames; see `FaceSwapper.stream`."""
        arriving = iter(frames)
        failure: Exception | None = None
        exhausted = False
        window = self._window
        try:
            while True:
                while not exhausted and len(window) < self._servers.capacity():
                    try:
                        entry = _InFlight(next(arriving))
                        self._send(entry)
                        window.append(entry)
                    except StopIteration:
                        exhausted = True
                    except Exception as error:  # raised below, in its place
                        failure, exhausted = error, True
                if not window:
                    break
                head = window[0]
                swapped = self._result(head, copy=copy)
                try:
                    yield swapped
                finally:
                    window.popleft()
                    head.release()
            if failure is not None:
                raise failure
        finally:
            for waiting in window:
                waiting.cancel()
            deadline_s = time.monotonic() + CLOSING_S
            for waiting in window:
                waiting.release(patience_s=max(0.0, deadline_s - time.monotonic()))

    def _send(self, entry: _InFlight) -> None:
        """Send a frame to the server that has the least to do; it stays unsent where none takes it.

        Raises:
            FrameswapError: that frame cannot be sent to any.
        """
        model = SWAP_MODELS[frame_format(entry.frame)]
        while (server := self._servers.choose()) is not None:
            try:
                request = self._request(server, model, entry.frame)
                entry.sent(server, model, server.submit(request))
                return
            except PASSING_ERRORS as error:
                server.fail(error)
                entry.error = error

    def _request(self, server: Server, model: str, frame: Frame) -> SwapRequest:
        ensemble = server.find(model)
        # A stream's frames are mostly of one size: it is checked when it, or the server, changes.
        if self._fitting is None or self._fitting != (ensemble, frame.shape):
            check_size(frame, ensemble)
            self._fitting = (ensemble, frame.shape)
        if ensemble not in self._stacked:
            self._stacked[ensemble] = stack_sources(self._sources, ensemble)
        return SwapRequest(
            model=ensemble.name,
            frame=frame,
            source=self._stacked[ensemble],
            options=self._options,
            batched=ensemble.batched,
        )

    def _result(self, head: _InFlight, *, copy: bool) -> SwappedFrame:
        while True:
            if head.pending is None:
                self._send(head)
            if head.pending is None:
                if time.monotonic() >= head.start_clock(self._reconnect_s):
                    raise head.error or self._servers.last_error()
                self._servers.pause()
                continue
            try:
                outputs = self._wait(head)
            except (*PASSING_ERRORS, ContractMismatch) as error:
                self._lose(head, error)
                continue
            assert head.server is not None  # it was sent
            swapped = _finish(head.frame, outputs, head.server.address, copy=copy)
            head.server.succeed()
            return swapped

    def _wait(self, head: _InFlight) -> Mapping[str, NDArray[Any]]:
        assert head.pending is not None  # it was sent
        assert head.server is not None
        while len(self._servers.all) > 1 and not head.pending.wait(_HEALTH_S):
            if not head.server.is_healthy():
                raise ServerTimeout(
                    f"the server at {head.server.address} did not answer while swapping a frame, "
                    f"nor when it was asked whether it is there"
                )
        return head.pending.result()

    def _lose(self, head: _InFlight, error: FrameswapError) -> None:
        """Have a lost frame sent again, and at once those that were lost with it.

        A swap changes nothing on the server, so sending a frame again is safe.

        Raises:
            FrameswapError: the error, where it does not pass or patience is at its end.
        """
        server = head.server
        assert server is not None  # it was sent
        explained = server.explain(error, head.model)
        if not isinstance(explained, PASSING_ERRORS):
            raise error
        server.fail(explained)
        head.lost(explained)
        is_late = time.monotonic() >= head.start_clock(self._reconnect_s)
        # Another server may have what this one lost, once, however little patience there is.
        if is_late and (head.losses > 1 or self._servers.choose() is None):
            raise explained from error
        self._send(head)
        for other in self._window:
            if other is not head and other.server is server and other.has_failed():
                self._send(other)


class _InFlight:
    """One frame of a stream, and the request that it is in, if it is in one.

    losses: how often it was lost.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.pending: PendingSwap | None = None
        self.server: Server | None = None
        self.model = ""
        self.error: FrameswapError | None = None
        self.losses = 0
        self._deadline_s: float | None = None

    def sent(self, server: Server, model: str, pending: PendingSwap) -> None:
        self.server, self.model, self.pending = server, model, pending

    def start_clock(self, patience_s: float) -> float:
        """When patience ends; it starts with the first trouble."""
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + patience_s
        return self._deadline_s

    def has_failed(self) -> bool:
        """Whether its answer is an error that passes; it is unsent again then."""
        if self.pending is None:
            return True
        if not self.pending.wait(0.0):
            return False
        try:
            self.pending.result()
        except PASSING_ERRORS as error:
            self.lost(error)
            return True
        except FrameswapError:
            pass  # Raised again when it is this frame's turn.
        return False

    def lost(self, error: FrameswapError) -> None:
        self.error = error
        self.losses += 1
        self.cancel()
        self.release(patience_s=0.0)

    def cancel(self) -> None:
        if self.pending is not None:
            self.pending.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        if self.pending is not None:
            pending, self.pending = self.pending, None
            if self.server is not None:
                self.server.settle()
            pending.release(patience_s=patience_s)


def take_output(outputs: Mapping[str, Any], name: str, address: str) -> NDArray[Any]:
    """One output of an answer.

    Raises:
        ServerFault: it is not there.
    """
    array = outputs.get(name)
    if array is None:
        # Triton drops an output that a step did not produce, without an error.
        raise ServerFault(
            f"the server at {address} did not return the output {name}: one of its models is "
            f"broken; look at its log"
        )
    return np.asarray(array)


def found_faces(outputs: Mapping[str, Any], address: str) -> NDArray[np.float32]:
    """(F, 15) float32: the rows of `faces` that hold a face.

    Raises:
        ServerFault: there are no such rows.
        BadOptions: the server could not use the options.
    """
    faces = take_output(outputs, FACES, address).reshape(-1, FACE_COLUMNS)
    if len(faces) != MAX_DETECTIONS:
        raise ServerFault(f"the server returned {len(faces)} rows of faces")
    if np.isnan(faces).any():
        raise BadOptions(
            "the server could not use the options of the request: an option has a value that "
            "it does not know, or the source is not finite"
        )
    return np.array(faces[faces[:, SCORE_COLUMN] > 0.0], np.float32)


def _finish(
    frame: Frame, outputs: Mapping[str, Any], address: str, *, copy: bool
) -> SwappedFrame:
    swapped = take_output(outputs, SWAPPED_FRAME, address)
    if swapped.dtype != np.uint8 or swapped.size != math.prod(frame.shape):
        raise ServerFault(
            f"the server returned a frame of {swapped.dtype} {swapped.shape} for one of "
            f"uint8 {frame.shape}"
        )
    swapped = swapped.reshape(frame.shape)
    return SwappedFrame(
        frame=swapped.copy() if copy else swapped,
        faces=found_faces(outputs, address),
        original=frame,
    )
