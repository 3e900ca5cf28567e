"""The servers of one job: which of them take frames now, and which one takes the next."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from frameswap.connection import Connection, check_address
from frameswap.errors import (
    BadOptions,
    ContractMismatch,
    FrameswapError,
    ServerUnreachable,
)
from frameswap.interrupts import signals_held_back
from frameswap.models import Ensemble
from frameswap.one_server import PASSING_ERRORS, Server
from frameswap.security import Security
from frameswap.transport import TransportName

__all__ = ["Servers"]

_POLL_S: Final = 0.02
RESOLVE_S: Final = 30.0
"""How often a `dns:///` name is looked up again."""

Result = TypeVar("Result")


class Servers:
    """All servers that a job may use.

    Args:
        addresses: HOST:PORT of each, separated by commas; `dns:///HOST:PORT` stands for all
            addresses behind a name, and is looked up again while the job runs.
        timeout_s: deadline of every single request, in seconds.
        transport: how frames are to be sent to each.
        most: requests that each is given at a time.
        security: TLS and token, for all of them.

    Raises:
        FrameswapError: none of them can be used, or one is not of our contract.
        ContractMismatch: they have different swappers.
    """

    def __init__(
        self,
        addresses: str,
        *,
        timeout_s: float,
        transport: TransportName,
        most: int,
        security: Security | None,
    ) -> None:
        self._timeout_s = timeout_s
        self._transport = transport
        self._most = most
        self._security = security
        self._names = [word.strip() for word in addresses.split(",")]
        self._looked_up_s = time.monotonic()
        self.all: list[Server] = []
        try:
            self._add(_resolve(self._names))
            self.first = self._greet_all()
        except BaseException:
            self.close()
            raise

    def usable(self) -> list[Server]:
        """Those that take frames now; lost ones are asked in passing."""
        if time.monotonic() - self._looked_up_s > RESOLVE_S:
            self._look_up()
        return [server for server in self.all if server.poll()]

    def choose(self) -> Server | None:
        """The one with the fewest requests in flight; None while none takes frames."""
        usable = self.usable()
        if len(usable) > 1:
            return min(usable, key=lambda server: server.in_flight)
        return usable[0] if usable else None

    def have_room(self, under_way: int) -> bool:
        """Whether one takes another frame now, beside so many that are under way.

        With several servers twice as many may be as they work on: answers of the faster ones wait
        for their turn, and meanwhile these are to have work.
        """
        usable = self.usable()
        if len(usable) == 1:
            return under_way < usable[0].limit and usable[0].has_room
        most = 2 * sum(server.limit for server in usable)
        return under_way < most and any(server.has_room for server in usable)

    def call(self, function: Callable[[Server], Result], *, patience_s: float) -> Result:
        """Do something at one server, or at another, as long as errors pass and patience lasts.

        Raises:
            FrameswapError: the first error that does not pass, or the last one.
        """
        deadline_s = time.monotonic() + patience_s
        error: FrameswapError | None = None
        while True:
            server = self.choose()
            if server is None:
                if time.monotonic() >= deadline_s and (error or not self.revive()):
                    raise error or self.last_error()
                self.pause()
                continue
            try:
                result = function(server)
            except PASSING_ERRORS as passing:
                error = passing
                server.fail(passing)
                if time.monotonic() >= deadline_s and self.choose() is None:
                    raise
            else:
                server.succeed()
                return result

    def revive(self) -> bool:
        """Ask lost servers now, and wait for what they say; whether one takes frames."""
        for server in self.all:
            try:
                server.greet()
            except FrameswapError as error:
                server.fail(error)
            else:
                return True
        return False

    def last_error(self) -> FrameswapError:
        """Why no server takes frames."""
        errors = [server.error for server in self.all if server.error is not None]
        names = ", ".join(self._names)
        return errors[-1] if errors else ServerUnreachable(f"no server of {names} takes frames now")

    def pause(self) -> None:
        """Between two looks at servers that are all lost."""
        time.sleep(_POLL_S)

    def close(self) -> None:
        """Close all; those behind one that fails to are closed all the same."""
        while self.all:
            try:
                self.all[-1].close()
            finally:
                self.all.pop()

    def _add(self, found: Sequence[tuple[str, str | None]]) -> None:
        for address, name in found:
            connection = Connection(
                address, timeout_s=self._timeout_s, security=self._security, name=name
            )
            self.all.append(Server(connection, transport=self._transport, most=self._most))

    def _greet_all(self) -> Ensemble:
        ensembles: list[Ensemble] = []
        for server in self.all:
            try:
                ensemble = server.greet()
            except PASSING_ERRORS as error:
                server.fail(error)
                if len(self.all) == 1:
                    raise
                continue
            ensembles.append(ensemble)
            if ensemble.swapper != ensembles[0].swapper:
                raise ContractMismatch(
                    f"the server at {server.address} has the swapper {ensemble.swapper} and "
                    f"others have {ensembles[0].swapper}: one job takes servers of one swapper"
                )
        if not ensembles:
            raise self.last_error()
        return ensembles[0]

    def _look_up(self) -> None:
        """Take in addresses that are new behind a name; the old ones stay while they answer."""
        self._looked_up_s = time.monotonic()
        if not any(_is_name(name) for name in self._names):
            return
        try:
            found = _resolve(self._names)
        except ServerUnreachable:
            return  # What was found before is still there.
        known = {server.address for server in self.all}
        gone = known - {address for address, _ in found}
        for server in list(self.all):
            if server.address in gone and server.in_flight == 0 and not server.is_usable:
                self.all.remove(server)
                server.close()
        self._add([each for each in found if each[0] not in known])


def _is_name(name: str) -> bool:
    return name.startswith("dns:///")


def _resolve(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Addresses, each with the name that it was found behind, if any."""
    found: dict[str, str | None] = {}
    for name in names:
        if not _is_name(name):
            if len(names) > 1:
                check_address(name)
            found.setdefault(name, None)
            continue
        host, _, port = name.removeprefix("dns:///").rpartition(":")
        check_address(f"{host}:{port}")
        try:
            with signals_held_back:
                records = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise ServerUnreachable(f"the name {host} is not known ({error.strerror})") from error
        for family, _, _, _, place in records:
            number = str(place[0])
            shown = f"[{number}]" if family == socket.AF_INET6 else number
            found.setdefault(f"{shown}:{port}", host)
    if not found:
        raise BadOptions("at least one server is needed, none was given")
    return list(found.items())
