"""A window of frames under way: sent as there is room, returned in order, sent again when lost."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from frameswap.answers import SwappedFrame, is_row, read_frame, read_rows, read_verdicts
from frameswap.connection import CLOSING_S
from frameswap.contract import FACES, SWAP_MODELS, SWAPPED_FRAME, VERDICTS
from frameswap.errors import ContractMismatch, FrameswapError, ServerTimeout
from frameswap.frames import Frame, frame_format
from frameswap.models import Ensemble, check_size
from frameswap.one_server import PASSING_ERRORS, Server
from frameswap.options import SwapOptions, check_deployed
from frameswap.padding import pad_frame
from frameswap.servers import Servers
from frameswap.sources import Source, stack_sources
from frameswap.transport import PendingSwap, SwapRequest

__all__ = ["FrameStream", "InFlight", "RequestStream"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_HEALTH_S: Final = 5.0
"""After so long without an answer, a server is asked whether it is there, if there are others."""
_PATIENCE: Final = 4.0
"""A request is sent once more when it is so many times older than the slowest that was answered: a
server that is merely slow is not given twice the work."""
_LEAST_PATIENCE_S: Final = 5.0
_FIRST_LATENCY_S: Final = 5.0
"""What is assumed before anything was answered."""
_LOOK_S: Final = 0.02


class RequestStream(ABC, Generic[Item, Result]):
    """A window of requests under way, one for each item.

    Args:
        servers: that take them.
        reconnect_s: how long one may be sent again and again, in seconds from its first loss.
    """

    def __init__(self, servers: Servers, *, reconnect_s: float) -> None:
        self._servers = servers
        self._reconnect_s = reconnect_s
        self._window: deque[InFlight[Item]] = deque()
        self._slowest_s = _FIRST_LATENCY_S

    @property
    def patience_s(self) -> float:
        """How old a request may be before it is asked once more."""
        return max(_LEAST_PATIENCE_S, _PATIENCE * self._slowest_s)

    @abstractmethod
    def _model(self, item: Item) -> str:
        """Which ensemble it is for."""

    @abstractmethod
    def _request(self, server: Server, model: str, item: Item) -> SwapRequest:
        """Say what to send.

        Raises:
            FrameswapError: it cannot be sent to that server.
        """

    @abstractmethod
    def _finish(
        self, entry: InFlight[Item], outputs: Mapping[str, Any], server: Server, *, writable: bool
    ) -> Result:
        """Make the result of an answer.

        Raises:
            FrameswapError: the answer breaks the contract.
        """

    def _choose(self, item: Item) -> Server | None:
        """The server for it; None while none takes requests."""
        return self._servers.choose()

    def run(self, items: Iterable[Item], *, writable: bool) -> Generator[Result, None, None]:
        """Send all; see `FaceSwapper.stream`.

        Args:
            writable: whether frames of the results are to be written to.
        """
        arriving = iter(items)
        failure: Exception | None = None
        exhausted = False
        window = self._window
        try:
            while True:
                while not exhausted and self._has_room():
                    try:
                        entry = InFlight(next(arriving))
                        self._send(entry)
                        window.append(entry)
                    except StopIteration:
                        exhausted = True
                    except Exception as error:  # raised below, in its place
                        failure, exhausted = error, True
                if not window:
                    break
                head = window[0]
                results = [self._result(head, writable=writable)]
                try:
                    # Without a name here: who takes it is the only one to hold it.
                    yield results.pop()
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

    def _has_room(self) -> bool:
        return not self._window or self._servers.have_room(len(self._window))

    def _send(self, entry: InFlight[Item]) -> None:
        """Send it to the server that has the least to do; it stays unsent where none takes it.

        Raises:
            FrameswapError: that item cannot be sent to any.
        """
        model = self._model(entry.item)
        while (server := self._choose(entry.item)) is not None:
            try:
                request = self._request(server, model, entry.item)
                entry.request = _Request(server, model, server.submit(request), request.frame.shape)
                return
            except PASSING_ERRORS as error:
                server.fail(error)
                entry.error = error

    def _result(self, head: InFlight[Item], *, writable: bool) -> Result:
        while True:
            if head.request is None:
                self._send(head)
            if head.request is None:
                is_late = time.monotonic() >= head.start_clock(self._reconnect_s)
                # A frame that was not sent yet is tried, however little patience there is.
                if is_late and (head.losses or not self._servers.revive()):
                    raise head.error or self._servers.last_error()
                self._servers.pause()
                continue
            try:
                request = self._answered(head, head.request)
                outputs = request.pending.result()
            except (*PASSING_ERRORS, ContractMismatch) as error:
                self._lose(head, head.request, error)
                continue
            self._note_latency(time.monotonic() - request.sent_s)
            result = self._finish(head, outputs, request.server, writable=writable)
            request.server.succeed()
            return result

    def _note_latency(self, latency_s: float) -> None:
        known = self._slowest_s != _FIRST_LATENCY_S
        self._slowest_s = max(self._slowest_s, latency_s) if known else latency_s

    def _answered(self, head: InFlight[Item], request: _Request) -> _Request:
        """Wait for the answer to a frame, and ask once more where it is long overdue.

        Triton never answers some of the requests that a model's process had when it died.

        Raises:
            ServerTimeout: its server is not there, and there are others.
        """
        overdue_s = request.sent_s + self.patience_s
        has_others = len(self._servers.all) > 1
        while self._reconnect_s or has_others:
            left_s = max(0.0, overdue_s - time.monotonic()) if self._reconnect_s else _HEALTH_S
            if request.pending.wait(min(left_s, _HEALTH_S) if has_others else left_s):
                break
            if has_others and not request.server.is_healthy():
                raise ServerTimeout(
                    f"the server at {request.server.address} did not answer while swapping a "
                    f"frame, nor when it was asked whether it is there"
                )
            if self._reconnect_s and time.monotonic() >= overdue_s:
                return self._ask_again(head, request)
        return request

    def _ask_again(self, head: InFlight[Item], first: _Request) -> _Request:
        """Send a frame once more; the request that is answered first stays the frame's."""
        head.request = None
        try:
            self._send(head)
            again = head.request
            if again is None:
                head.request = first
                return first
            while not (again.pending.wait(_LOOK_S) or first.pending.wait(_LOOK_S)):
                pass
        except BaseException:
            first.abandon()
            raise
        winner, late = (again, first) if again.pending.wait(0.0) else (first, again)
        head.request = winner
        late.abandon()
        return winner

    def _lose(self, head: InFlight[Item], request: _Request, error: FrameswapError) -> None:
        """Have a lost frame sent again, and at once those that were lost with it.

        A swap changes nothing on the server, so sending a frame again is safe.

        Raises:
            FrameswapError: the error, where it does not pass or patience is at its end.
        """
        server = request.server
        explained = server.explain(error, request.model)
        if not isinstance(explained, PASSING_ERRORS):
            raise error
        server.fail(explained)
        head.lose(explained)
        is_late = time.monotonic() >= head.start_clock(self._reconnect_s)
        # Another server may have what this one lost, once, however little patience there is.
        if is_late and (head.losses > 1 or self._servers.choose() is None):
            raise explained from error
        self._send(head)
        for other in self._window:
            if other is not head and other.has_failed_at(server):
                self._send(other)


class _Request:
    """A frame on its way to one server: from when it is sent until its buffers are given back.

    shape: of the frame that was sent.
    """

    def __init__(
        self, server: Server, model: str, pending: PendingSwap, shape: tuple[int, ...]
    ) -> None:
        self.server, self.model, self.pending, self.shape = server, model, pending, shape
        self.sent_s = time.monotonic()

    def release(self, *, patience_s: float | None = None) -> None:
        self.server.settle(self.pending)
        self.pending.release(patience_s=patience_s)

    def abandon(self) -> None:
        self.pending.cancel()
        self.release(patience_s=0.0)


class FrameStream(RequestStream[Frame, SwappedFrame]):
    """Frames whose faces are found and swapped in one request each, all with the same sources."""

    def __init__(
        self,
        servers: Servers,
        sources: Source | Sequence[Source],
        options: SwapOptions,
        *,
        reconnect_s: float,
    ) -> None:
        super().__init__(servers, reconnect_s=reconnect_s)
        self._sources = sources
        self._asked = options
        self._options = options.to_tensor()
        # Made once an ensemble, not once a frame: an image source is a quarter of a megabyte, and
        # the same array tells shared memory that what it holds is still right.
        self._stacked: dict[Ensemble, NDArray[np.float32]] = {}
        self._fitting: tuple[Any, ...] = (None, None, None)

    def _model(self, item: Frame) -> str:
        return SWAP_MODELS[frame_format(item)]

    def _request(self, server: Server, model: str, item: Frame) -> SwapRequest:
        ensemble = server.find(model)
        frame = pad_frame(item)
        # A stream's frames are mostly of one size: it is checked when it, or the server, changes.
        if self._fitting[0] is not ensemble or self._fitting[1] != frame.shape:
            check_size(frame, ensemble)
            check_deployed(self._asked, ensemble)
            if ensemble not in self._stacked:
                self._stacked[ensemble] = stack_sources(self._sources, ensemble)
            self._fitting = (ensemble, frame.shape, self._stacked[ensemble])
        return SwapRequest(
            model=ensemble.name,
            frame=frame,
            source=self._fitting[2],
            options=self._options,
            outputs=(SWAPPED_FRAME, FACES, VERDICTS),
            batched=ensemble.batched,
        )

    def _finish(
        self, entry: InFlight[Frame], outputs: Mapping[str, Any], server: Server, *, writable: bool
    ) -> SwappedFrame:
        rows = read_rows(outputs, server.address)
        held = is_row(rows)
        return SwappedFrame(
            frame=entry.keep(entry.item, outputs, server.address, writable=writable),
            faces=rows[held],
            original=entry.item,
            verdicts=read_verdicts(outputs, held, server.address),
        )


class InFlight(Generic[Item]):
    """One item of a stream, and the request that it is in, if it is in one.

    losses: how often it was lost.
    """

    def __init__(self, item: Item) -> None:
        self.item = item
        self.error: FrameswapError | None = None
        self.losses = 0
        self.request: _Request | None = None
        self._deadline_s: float | None = None

    def start_clock(self, patience_s: float) -> float:
        """When patience ends; it starts with the first trouble."""
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + patience_s
        return self._deadline_s

    def has_failed_at(self, server: Server) -> bool:
        """Whether that server's answer to it is an error that passes; it is unsent then."""
        if self.request is None:
            return True
        if self.request.server is not server or not self.request.pending.wait(0.0):
            return False
        try:
            self.request.pending.result()
        except PASSING_ERRORS as error:
            self.lose(error)
            return True
        except FrameswapError:
            pass  # Raised again when it is this frame's turn.
        return False

    def lose(self, error: FrameswapError) -> None:
        """Give its request up."""
        self.error = error
        self.losses += 1
        if self.request is not None:
            request, self.request = self.request, None
            request.abandon()

    def keep(
        self, frame: Frame, outputs: Mapping[str, Any], address: str, *, writable: bool
    ) -> NDArray[np.uint8]:
        """What became of a frame, by its answer, made to outlast that.

        Raises:
            ServerFault: the answer has none of its size.
        """
        assert self.request is not None
        swapped = read_frame(frame, self.request.shape, outputs, address)
        return self.request.pending.keep(swapped, writable=writable)

    def hand_over(self) -> PendingSwap:
        """Give its answered request to somebody else, who releases it."""
        assert self.request is not None
        request, self.request = self.request, None
        request.server.settle(request.pending)
        return request.pending

    def cancel(self) -> None:
        if self.request is not None:
            self.request.pending.cancel()

    def release(self, *, patience_s: float | None = None) -> None:
        if self.request is not None:
            request, self.request = self.request, None
            request.release(patience_s=patience_s)
