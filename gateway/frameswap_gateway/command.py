"""`frameswap gateway`: flags in, a web server until Ctrl-C."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frameswap import BadOptions
from frameswap.arguments import HelpFormatter, WholeNumber, port
from frameswap.contract import (
    EMBED_MODEL,
    ENCODE_MODEL,
    FIND_MODELS,
    SWAP_FOUND_MODELS,
    SWAP_MODELS,
)
from frameswap.embedded import embedded_server
from frameswap.server_flags import add_server_flags, tell
from frameswap.server_settings import add_security, read_server

from frameswap_gateway.settings import GIB, Limits, Servers, Settings
from frameswap_gateway.tokens import check_exposure, read_tokens

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup, _SubParsersAction

__all__ = ["register"]

_IN_FLIGHT: Final = 6
"""Of each worker with an embedded server, as `frameswap swap` has it."""
_DRAIN_S: Final = 20
_LIVE_BYTES: Final = 4 << 20
_MODELS: Final = (
    *SWAP_MODELS.values(), *FIND_MODELS.values(), *SWAP_FOUND_MODELS.values(), ENCODE_MODEL,
    EMBED_MODEL,
)  # fmt: skip


def register(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    """Add the verb `gateway` to the command line."""
    parser = subparsers.add_parser(
        "gateway",
        help="serve a web page and a REST API, in front of servers or of one of its own",
        description="Serve a web page and a REST API. It keeps uploads, jobs and results in a "
        "folder, and goes on with what was under way when it is started again.",
        formatter_class=HelpFormatter,
    )
    group = parser.add_argument_group("gateway")
    group.add_argument(
        "--address", default="127.0.0.1", metavar="ADDRESS",
        help="listen there; on any but a loopback address --tokens is needed",
    )  # fmt: skip
    group.add_argument(
        "--port", type=port, default=8080, metavar="PORT", help="listen there; 0: the system's"
    )
    group.add_argument(
        "--folder", type=Path, metavar="FOLDER",
        help="where uploads, jobs and results are (default: ~/.local/share/frameswap/gateway)",
    )  # fmt: skip
    group.add_argument(
        "--tokens", type=Path, metavar="FILE", help="a line `name token` for each user"
    )
    group.add_argument(
        "--host-name", action="append", default=[], metavar="NAME",
        help="a name that browsers call it by, behind a proxy; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--https", action="store_true", help="browsers reach it over HTTPS only, by a proxy"
    )
    group.add_argument(
        "--webhook-host", action="append", default=[], metavar="HOST",
        help="a host that may be told of jobs; may be repeated (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--webhook-secret", type=Path, metavar="FILE", help="what such messages are signed with"
    )
    _add_limits(parser.add_argument_group("limits"))
    add_server_flags(parser)
    add_security(parser)
    parser.set_defaults(run=run)


def _add_limits(group: _ArgumentGroup) -> None:
    limits = Limits()
    for flag, kept, what in (
        ("--most-asset-gib", limits.asset_bytes // GIB, "gibibytes of one upload"),
        ("--most-user-gib", limits.user_bytes // GIB, "gibibytes of a user's files together"),
        ("--most-gib", limits.all_bytes // GIB, "gibibytes of all files together"),
        ("--most-user-jobs", limits.user_jobs, "jobs of a user that wait or run"),
        ("--most-jobs", limits.all_jobs, "jobs that wait or run"),
        ("--photo-workers", limits.short_workers, "processes for photos and previews"),
        ("--video-workers", limits.long_workers, "processes for videos"),
        ("--live-sessions", limits.live_sessions, "cameras at a time"),
        ("--keep-hours", round(limits.kept_s / 3600), "hours that unused files stay"),
    ):
        group.add_argument(flag, type=WholeNumber(1), default=kept, metavar="N", help=what)


def run(arguments: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code.

    Raises:
        FrameswapError: it could not start.
    """
    try:
        settings = _settings(arguments)
        check_exposure(settings.host, settings.tokens)
    except BadOptions as error:
        tell([str(error)])
        return 2
    address, security = read_server(arguments, os.environ, home=Path.home())
    with ExitStack() as stack:
        in_flight = arguments.window or (_IN_FLIGHT if address is None else Servers.in_flight)
        if address is None:
            address = stack.enter_context(
                embedded_server(
                    arguments.repository, target=arguments.server_target, models=_MODELS,
                    frame_size=(1920, 1080), requests_in_flight=4 * in_flight,
                    on_start=lambda: tell(["starting the embedded server"]),
                    on_trouble=lambda note: tell([note]),
                )
            )  # fmt: skip
        servers = Servers(
            address=address, security=security, timeout_s=arguments.timeout_s,
            reconnect_s=arguments.reconnect_s, in_flight=in_flight, transport=arguments.transport,
        )  # fmt: skip
        _serve(settings, servers)
    return 0


def _settings(arguments: Namespace) -> Settings:
    """Raises BadOptions for flags that do not fit together."""
    folder = arguments.folder or Path.home() / ".local" / "share" / "frameswap" / "gateway"
    secret = b""
    if arguments.webhook_secret is not None:
        try:
            secret = arguments.webhook_secret.read_bytes().strip()
        except OSError as error:
            raise BadOptions(f"the webhooks' secret cannot be read: {error}") from error
    if arguments.webhook_host and len(secret) < 16:
        raise BadOptions("--webhook-host needs --webhook-secret: a file of 16 bytes or more")
    return Settings(
        folder=folder, host=arguments.address, port=arguments.port,
        tokens=() if arguments.tokens is None else read_tokens(arguments.tokens),
        names=tuple(arguments.host_name), secure_cookies=arguments.https,
        webhook_hosts=tuple(arguments.webhook_host), webhook_secret=secret,
        limits=Limits(
            asset_bytes=arguments.most_asset_gib * GIB, user_bytes=arguments.most_user_gib * GIB,
            all_bytes=arguments.most_gib * GIB, user_jobs=arguments.most_user_jobs,
            all_jobs=arguments.most_jobs, short_workers=arguments.photo_workers,
            long_workers=arguments.video_workers, live_sessions=arguments.live_sessions,
            kept_s=arguments.keep_hours * 3600.0,
        ),
    )  # fmt: skip


def _serve(settings: Settings, servers: Servers) -> None:
    # Loaded here, so that other commands need not wait for a web server's code.
    import uvicorn

    from frameswap_gateway.app import build_app, build_gateway

    listener = _listen(settings)
    host, number = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    gateway = build_gateway(settings, servers)
    config = uvicorn.Config(
        build_app(gateway), log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=_DRAIN_S, ws_max_size=_LIVE_BYTES,
        http="httptools", ws="websockets-sansio",
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Streams of events have no end of their own, and would be waited for.
            gateway.begin_to_stop()
            await super().shutdown(sockets)

    tell([f"http://{shown}:{number}/ is the page; Ctrl-C stops it"])
    Server(config).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise BadOptions(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}"
        ) from error
    # Inherited by every connection. Without it an answer of a head and a body waits 40 ms for the
    # client's delayed acknowledgement of the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
