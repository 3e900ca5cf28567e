"""One server of a job, and how it has been doing.

A server that is lost is asked again after a pause that doubles, and takes frames again when it
says that it is ready. One that is overloaded is given half as many frames at a time, and one more
with each that it finishes.
"""

from __future__ import annotations

import random
import time
from typing import Final

from frameswap.connection import Connection, PendingCall
from frameswap.errors import (
    ContractMismatch,
    FrameswapError,
    ServerNotReady,
    ServerOverloaded,
    ServerTimeout,
    ServerUnreachable,
)
from frameswap.models import Ensemble, Ensembles
from frameswap.transport import PendingSwap, SwapRequest, Transport, TransportName
from frameswap.transports import choose_transport

__all__ = ["PASSING_ERRORS", "Server"]

PASSING_ERRORS: Final = (ServerUnreachable, ServerNotReady, ServerTimeout, ServerOverloaded)
"""After which the same request may succeed later, or at another server."""

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
HEALTH_TIMEOUT_S: Final = 2.0
"""How long a server may take to say that it is ready."""


class Server:
    """One server, and how it has been doing.

    Args:
        connection: the channel to it, which need not be up.
        transport: how frames are to be sent.
        most: requests that it is given at a time.

    Attributes:
        error: the last one that passed, for the sentence when it does not.
    """

    def __init__(self, connection: Connection, *, transport: TransportName, most: int) -> None:
        self.connection = connection
        self.ensembles = Ensembles(connection)
        self.error: FrameswapError | None = None
        self._transport_name = transport
        self._transport: Transport | None = None
        self._most = most
        self._limit = float(most)
        self._is_lost = True
        self._pause_s = _FIRST_PAUSE_S
        self._resting_until_s = 0.0
        self._probe: PendingCall | None = None
        self._served: set[str] = set()
        self._unanswered: list[PendingSwap] = []

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def transport(self) -> TransportName:
        return self._transport_name if self._transport is None else self._transport.name

    @property
    def in_flight(self) -> int:
        """How many requests it has not answered; answers that nobody has read yet are none."""
        self._unanswered = [each for each in self._unanswered if not each.wait(0.0)]
        return len(self._unanswered)

    @property
    def limit(self) -> int:
        """How many requests it is given at a time now."""
        return max(1, int(self._limit))

    @property
    def has_room(self) -> bool:
        """Whether it has less than it is given at a time."""
        # It is not asked which are answered where even all of them would not be too many.
        return len(self._unanswered) < self.limit or self.in_flight < self.limit

    @property
    def is_usable(self) -> bool:
        return not self._is_lost and time.monotonic() >= self._resting_until_s

    def greet(self) -> Ensemble:
        """Look at a server that is new or back; returns one of its ensembles.

        Raises:
            FrameswapError: it is not there, not ready or not one of ours.
        """
        self.connection.check_ready()
        self.ensembles.forget()
        ensemble = self.ensembles.any()
        if self._transport is None:
            self._transport = choose_transport(self._transport_name, self.connection)
        else:
            self._transport.renew()
        self._is_lost, self._resting_until_s = False, 0.0
        return ensemble

    def find(self, model: str) -> Ensemble:
        """Return one of its ensembles.

        Raises:
            ServerNotReady: it had that model, and is leaving, or loading it again.
            FrameswapError: it has no such model, or cannot be asked.
        """
        try:
            ensemble = self.ensembles.get(model)
        except ContractMismatch as error:
            raise self._explain(error, model) from error
        self._served.add(model)
        return ensemble

    def submit(self, request: SwapRequest) -> PendingSwap:
        """Send one frame; `settle` is to be called when nobody waits for its answer any more."""
        assert self._transport is not None, "greet comes first"
        pending = self._transport.submit(request)
        self._unanswered.append(pending)
        return pending

    def settle(self, pending: PendingSwap) -> None:
        if pending in self._unanswered:
            self._unanswered.remove(pending)

    def succeed(self) -> None:
        """It answered: the next pause is short again, and it may get more at a time."""
        self._pause_s = _FIRST_PAUSE_S
        self._limit = min(float(self._most), self._limit + 1.0)

    def explain(self, error: FrameswapError, model: str) -> FrameswapError:
        """What an error of a request means: one of PASSING_ERRORS where it passes."""
        is_of_region = "shared memory region" in str(error).lower()
        passes = isinstance(error, ContractMismatch) and not is_of_region
        return self._explain(error, model) if passes else error

    def fail(self, error: FrameswapError) -> None:
        """Note a passing error: the server rests, and is asked before it gets frames again."""
        self.error = error
        self._is_lost = self._is_lost or not isinstance(error, ServerOverloaded)
        if time.monotonic() < self._resting_until_s:
            return  # One of several requests that met the same trouble.
        self._limit = max(1.0, self._limit / 2.0)
        self._rest()

    def poll(self) -> bool:
        """See, without waiting, whether a lost server is back; returns whether it takes frames."""
        if not self._is_lost:
            return self.is_usable
        if self._probe is None:
            if time.monotonic() < self._resting_until_s:
                return False
            self._probe = self.connection.ask_ready(timeout_s=HEALTH_TIMEOUT_S)
        if not self._probe.wait(0.0):
            return False
        probe, self._probe = self._probe, None
        try:
            if probe.result().ready:
                self.greet()
        except FrameswapError as error:
            self.error = error
        if self._is_lost:
            self._rest()
        return not self._is_lost

    def is_healthy(self) -> bool:
        """Ask, and wait a little: for a server that owes an answer."""
        probe = self.connection.ask_ready(timeout_s=HEALTH_TIMEOUT_S)
        try:
            return bool(probe.result().ready)
        except FrameswapError:
            return False

    def close(self) -> None:
        self.connection.hurry()
        try:
            if self._probe is not None:
                self._probe.cancel()
            if self._transport is not None:
                self._transport.close()
        finally:
            self.connection.close()

    def _rest(self) -> None:
        # Not all clients of a server that comes back may ask it at the same moment.
        self._resting_until_s = time.monotonic() + self._pause_s * random.uniform(0.75, 1.25)
        self._pause_s = min(_LONGEST_PAUSE_S, 2.0 * self._pause_s)

    def _explain(self, error: FrameswapError, model: str) -> FrameswapError:
        if model not in self._served:
            return error
        return ServerNotReady(
            f"the server at {self.address} had the model {model} and has not now: it stops, or "
            f"loads its models again ({error})"
        )
