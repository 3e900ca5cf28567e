"""Who the server must be, and what the client shows of itself: TLS, mutual TLS, a bearer token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from frameswap.errors import BadOptions, UnreadableFile

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["ServerCredentials", "add_credentials", "read_credentials"]


@dataclass(frozen=True)
class ServerCredentials:
    """How a connection is secured; made of files, all PEM.

    authority: who signed the server's certificate; None takes the system's.
    certificate, key: the client's own, for servers that ask for one.
    name: a name that the server's certificate is for, where it is not the address's.
    token: file of a bearer token, sent with every call.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None
    token: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise BadOptions("a client's certificate and its private key go together")

    def open_channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """A channel that shows and checks what is said here.

        Raises:
            UnreadableFile: one of the files cannot be read.
        """
        channel = grpc.ssl_channel_credentials(
            _read(self.authority), _read(self.key), _read(self.certificate)
        )
        token = _read(self.token)
        if token is not None:
            # gRPC sends these over TLS only.
            calls = grpc.access_token_call_credentials(token.decode(errors="replace").strip())
            channel = grpc.composite_channel_credentials(channel, calls)
        if self.name is not None:
            options = [*options, ("grpc.ssl_target_name_override", self.name)]
        return grpc.secure_channel(address, channel, options=options)


def add_credentials(parser: ArgumentParser) -> None:
    """Add the flags of `read_credentials` to a command line."""
    group = parser.add_argument_group("a server with TLS")
    group.add_argument("--tls", action="store_true", help="its certificate is a public one")
    for flag, text in (
        ("--tls-authority", "PEM of who signed the server's certificate"),
        ("--tls-certificate", "the client's own certificate, where the server asks for one"),
        ("--tls-key", "private key of that certificate"),
        ("--token-file", "bearer token to send"),
    ):
        group.add_argument(flag, type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--tls-name", metavar="NAME",
        help="name that the server's certificate is for, where it is not the address's",
    )  # fmt: skip


def read_credentials(arguments: Namespace) -> ServerCredentials | None:
    """What the flags say; None where the server speaks no TLS.

    Raises:
        BadOptions: half of a pair.
    """
    credentials = ServerCredentials(
        authority=arguments.tls_authority,
        certificate=arguments.tls_certificate,
        key=arguments.tls_key,
        name=arguments.tls_name,
        token=arguments.token_file,
    )
    return credentials if arguments.tls or credentials != ServerCredentials() else None


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}") from error
