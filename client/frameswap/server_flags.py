"""Flags of the server that a job uses, and the connection that they ask for."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from frameswap.arguments import WholeNumber, seconds, seconds_or_zero
from frameswap.contract import ENCODE_MODEL
from frameswap.embedded import embedded_server
from frameswap.server_settings import read_server
from frameswap.swapper import (
    DEFAULT_IN_FLIGHT,
    DEFAULT_RECONNECT_S,
    DEFAULT_TIMEOUT_S,
    FaceSwapper,
)
from frameswap.transport import TRANSPORT_NAMES

__all__ = ["add_server_flags", "connect", "tell"]

_EMBEDDED_IN_FLIGHT: Final = 6
"""One for each of the six steps of the ensemble, of which three are heavy; more would only make
Ctrl-C wait on a machine without a GPU."""


def add_server_flags(parser: ArgumentParser) -> None:
    """Add the group `server`."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT,...",
        help="gRPC endpoints of running servers, or dns:///HOST:PORT; without one an embedded "
        "server is started",
    )
    group.add_argument(
        "--timeout-s",
        type=seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="time limit of a request, seconds",
    )
    group.add_argument(
        "--reconnect-s",
        type=seconds_or_zero,
        default=DEFAULT_RECONNECT_S,
        metavar="SECONDS",
        help="seconds to wait for a lost server to come back before the job fails",
    )
    group.add_argument(
        "--window",
        type=WholeNumber(1, 1024),
        metavar="N",
        help=f"frames in flight at each server, at most (default: {DEFAULT_IN_FLIGHT}, and "
        f"{_EMBEDDED_IN_FLIGHT} with an embedded server)",
    )
    group.add_argument(
        "--transport", choices=TRANSPORT_NAMES, default="auto", help="how frames are sent"
    )
    group.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="model repository of the embedded server (default: the checkout's)",
    )
    # `--target` is the file to change.
    group.add_argument(
        "--server-target",
        "--variant",
        default="cpu",
        metavar="TARGET",
        help="the target of build_engines.py whose models the embedded server loads",
    )


def connect(
    arguments: Namespace,
    stack: ExitStack,
    models: Sequence[str],
    frame_size: tuple[int, int],
) -> FaceSwapper:
    """Connect to the servers of the flags, or start one of these models and the one that encodes
    photos; the stack closes both."""
    address, security = read_server(arguments, os.environ, home=Path.home())
    in_flight = arguments.window or (_EMBEDDED_IN_FLIGHT if address is None else DEFAULT_IN_FLIGHT)
    if address is None:
        address = stack.enter_context(
            embedded_server(
                arguments.repository,
                target=arguments.server_target,
                models=[*models, ENCODE_MODEL],
                frame_size=frame_size,
                requests_in_flight=in_flight,
                on_start=lambda: tell(["starting the embedded server"]),
                on_trouble=lambda note: tell([note]),
            )
        )
    return stack.enter_context(
        FaceSwapper(
            address,
            timeout_s=arguments.timeout_s,
            transport=arguments.transport,
            in_flight=in_flight,
            reconnect_s=arguments.reconnect_s,
            security=security,
        )
    )


def tell(notes: Sequence[str]) -> None:
    """Say something beside the result: standard output may be that."""
    for note in notes:
        print(f"frameswap: {note}", file=sys.stderr, flush=True)
